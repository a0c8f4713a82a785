"""Money: what calls cost, in exact integers, shown as Decimal."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from langmeter.callbacks.base import Callback
from langmeter.config import Config
from langmeter.prices import PriceBook


class CostTrackingCallback(Callback):
    """Prices every call as it ends, by the model that the response names.

    The price catalogue loads in a thread of its own. Calls that end before it is there (250 ms,
    once per process; `prices.warm(wait=True)` waits for it) and models without a price are
    unpriced: their cost is None, never 0.
    """

    def __init__(
        self,
        prices: PriceBook | None = None,
        *,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(config=config, **settings)
        self._prices: PriceBook = PriceBook() if prices is None else prices
        self._prices.warm()

    @property
    def prices(self) -> PriceBook:
        """Where the prices come from."""
        return self._prices

    @property
    def total_cost(self) -> Decimal:
        """US dollars of all priced calls; 0 before the first."""
        return self.snapshot().totals.cost or Decimal(0)

    @property
    def provider_costs(self) -> Mapping[str, Decimal]:
        """US dollars by provider; a provider none of whose calls has a price is not in it."""
        costs: dict[str, Decimal] = {}
        for (provider, _), stats in self.snapshot().models.items():
            if stats.cost is not None:
                costs[provider] = costs.get(provider, Decimal(0)) + stats.cost
        return MappingProxyType(costs)

    def calculate_cost(
        self, provider: str, input_tokens: int, output_tokens: int, *, model: str | None = None
    ) -> Decimal | None:
        """US dollars that such a call would cost now; None when no price is known.

        Without `model` the price that holds for the whole provider. May load the catalogue first.
        Raises ValueError for counts that are no whole numbers or negative.
        """
        return self._prices.cost(provider, model or "*", input=input_tokens, output=output_tokens)
