"""Money: what calls cost, in exact integers, shown as Decimal."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

from langmeter._base.money import PICO, usd
from langmeter._base.provider_names import provider_name
from langmeter.budgets import Budget, Ledger
from langmeter.callbacks.base import Callback, Share
from langmeter.callbacks.views import CostView
from langmeter.config import MeterConfig
from langmeter.prices import PriceBook
from langmeter.snapshot import Snapshot


class CostTrackingCallback(Callback, CostView):
    """Prices every call as it ends, by the model that the response names.

    The price catalogue loads in a thread of its own; `prices.warm(wait=True)` waits for it. A call
    that ends before it is loaded is priced afterwards. A model without a price is unpriced: its
    cost is None, never 0. Own prices never wait.

    `total_cost`, `provider_costs` and `label_costs` each take a whole snapshot; `of(snapshot)`
    reads them of one moment.

    Args:
        prices: where prices come from; the catalogue by default. False leaves calls unpriced.
        budgets: what calls may cost, see `langmeter.Budget`.
    """

    def __init__(
        self,
        prices: PriceBook | bool | None = None,
        *,
        budgets: Iterable[Budget] | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        settings |= {"prices": prices, "budgets": budgets}
        config = MeterConfig.chosen(config, settings, "prices", "budgets")
        self._prices = config.prices if isinstance(config.prices, PriceBook) else PriceBook()
        share: Share = {}
        if config.prices is not False:
            share["prices"] = self._prices
        if config.budgets:
            share["ledger"] = Ledger(config.budgets, share.get("prices"))
        super().__init__(share, config=config)
        if config.prices is not False:
            self._prices.warm()

    @staticmethod
    def of(snapshot: Snapshot) -> CostView:
        """Return the same figures of a snapshot: `meter.cost.of(snapshot)`."""
        return CostView(snapshot)

    @property
    def prices(self) -> PriceBook:
        """Where the prices come from; asked by `calculate_cost` alone where they are off."""
        return self._services.prices or self._prices

    @property
    def burn_rate(self) -> Decimal:
        """US dollars an hour, at the pace of the last five minutes; 0 when nothing was spent."""
        _, (_, covered, nano_dollars), _ = self._recorder.spent_lately()
        seconds = max(Decimal(covered) / 10**9, Decimal(1))
        hourly = (Decimal(nano_dollars) / 10**9 * 3600 / seconds).quantize(Decimal("1e-9"))
        return hourly or Decimal(0)  # not 0E-9

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets that calls are held to."""
        ledger = self._services.ledger
        return () if ledger is None else ledger.budgets

    def calculate_cost(
        self, provider: str, input_tokens: int, output_tokens: int, *, model: str | None = None
    ) -> Decimal | None:
        """US dollars that such a call would cost now; None when no price is known.

        Without `model` by the price that holds for the whole provider; where there is none, as
        providers price by the model, by the mix of traffic metered so far: the mean over the
        provider's models, each weighted by its priced calls. None before the first of them. May
        load the catalogue first. Raises ValueError for counts that are not whole
        numbers or are negative.
        """
        price = partial(self.prices.cost, input=input_tokens, output=output_tokens)
        cost = price(provider, model or "*")
        if cost is not None or model:
            return cost
        total, calls = Fraction(0), 0
        for (who, name), stats in self.snapshot().models.items():
            if stats.priced_calls and provider_name(who) == provider_name(provider):
                cost = price(who, name)
                if cost is not None:
                    total += Fraction(cost) * stats.priced_calls
                    calls += stats.priced_calls
        return usd(round(total * PICO / calls)) if calls else None
