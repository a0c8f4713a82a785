"""Worst case of calls, computed once a model: the budgets that cover them, and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Final, TypeAlias

from langmeter import _core
from langmeter._base.log import log
from langmeter._base.scope import covers_model, looks_at_models, looks_at_runs
from langmeter._base.warn import LimitedWarnings
from langmeter.budgets.budget import Budget
from langmeter.prices import PriceBook
from langmeter.prices.book import Priced
from langmeter.prices.card import RateCard

#: Seconds that the first calls under a blocking budget in USD wait for the price catalogue.
LONGEST_WAIT: Final = 10.0
#: Names of models that the warning about a scope shows.
_MOST_NAMES: Final = 10

#: Pico-dollars at worst for an input token and an output token, for the call, and for an input
#: token that no cache has seen.
Rates: TypeAlias = tuple[int, int, int, int]
#: Input tokens above which rates hold, and the rates.
Band: TypeAlias = tuple[int, Rates]


class Plans:
    """Answers about a model for the native `Demands`, which keeps them."""

    def __init__(self, budgets: Sequence[Budget], prices: PriceBook | None) -> None:
        self._budgets = budgets
        self._prices = prices
        self._blocking = mask(b.action == "block" and b.unit == "usd" for b in budgets)
        self._deadline: float | None = None
        self._seen: dict[str, None] = {}
        self._matched = 0
        self._warnings = LimitedWarnings("budgets that match no call")
        self._reported = False
        #: Where failures are counted, once there is one.
        self._recorder: _core.Recorder | None = None

    def count_in(self, recorder: _core.Recorder) -> None:
        """Count failures, and warnings that are not logged, in a recorder."""
        self._recorder = recorder
        self._warnings.count = partial(recorder.dropped, "warnings")

    def demands(self) -> _core.Demands:
        """Return the native object that finds the budgets of a call and its worst case."""
        budgets = self._budgets
        priced = mask(
            b.unit == "usd" and (b.action == "block" or b.unpriced not in ("allow", "block"))
            for b in budgets
        )
        bounded = mask(b.action == "block" and b.unit != "calls" for b in budgets)
        conditions = [
            [
                (None if key == "tag" else key, list(values))
                for key, values in budget.scope.items()
                if key not in ("provider", "model")
            ]
            for budget in budgets
        ]
        return _core.Demands(
            conditions,
            bounded=bounded | priced,
            priced=priced,
            prices=self._prices,
            covers=self.covers,
            price=self.price,
            unread=self.unread,
            counted=self.counted if any(looks_at_models(b.scope) for b in budgets) else None,
        )

    def covers(self, provider: str, model: str, vendor: str = "") -> tuple[int, int]:
        """Return the bits of the budgets that cover every call of a model, and some of them."""
        covered = [covers_model(budget.scope, provider, model, vendor) for budget in self._budgets]
        runs = [looks_at_runs(budget.scope) for budget in self._budgets]
        always = mask(c and not r for c, r in zip(covered, runs, strict=True))
        others = mask(c and r for c, r in zip(covered, runs, strict=True))
        self._matched |= always | others
        if len(self._seen) <= _MOST_NAMES:
            self._seen[f"{provider}/{model}"] = None
        return always, others

    def price(
        self,
        provider: str,
        model: str,
        deployment: str,
        vendor: str,
        tier: str,
        answered: Sequence[str],
        budgets: int,
    ) -> tuple[int, float, list[Band] | None]:
        """Return version and end of a price, and its rates; None without one, [] if not loaded.

        Of the prices that the rule may choose the dearest of each rate; `answered` are models that
        have answered such calls. A blocking budget waits for the catalogue once; own prices are
        there from the beginning.
        """
        prices = self._prices
        if prices is None:
            return 0, inf, None
        names = Priced(provider, model, deployment=deployment, vendor=vendor, tier=tier)
        version = prices.version
        cards = prices.worst_now(names, answered)
        if not cards and not prices.loaded and budgets & self._blocking:
            self._wait(prices)
            version = prices.version
            cards = prices.worst_now(names, answered)
        if cards:
            until = min(card.valid_until for card in cards)
            # The worst of all bands that are reached counts: those of several prices too.
            return version, until, [band for card in cards for band in _worst(card)]
        return version, inf, None if prices.loaded else []

    def _wait(self, prices: PriceBook) -> None:
        """Wait for the catalogue: all calls together for `LONGEST_WAIT` seconds."""
        now = monotonic()
        if self._deadline is None:
            self._deadline = now + LONGEST_WAIT
        if now < self._deadline and not prices.ready:
            prices.warm(wait=self._deadline - now)

    def counted(self) -> None:
        """Name the budgets whose provider or model matched none of the first 100 calls."""
        for place, budget in enumerate(self._budgets):
            if looks_at_models(budget.scope) and not self._matched >> place & 1:
                names = list(self._seen)
                more = ", …" if len(names) > _MOST_NAMES else ""
                self._warnings.warn(
                    place,
                    "the budget %r matches none of the first 100 model calls: its scope is %r, "
                    "and the calls were to %s%s",
                    budget.name,
                    dict(budget.scope),
                    ", ".join(map(repr, names[:_MOST_NAMES])),
                    more,
                )

    def unread(self, exc: Exception) -> None:
        """Count a value in the metadata of a call that cannot be read as text."""
        self.report(
            exc,
            "a call's metadata has a value that cannot be read as text: no budget with a scope on "
            "it covers the call",
        )

    def report(self, exc: Exception, what: str) -> None:
        """Count a failure; log the first one."""
        if self._recorder is not None:
            self._recorder.dropped("hook_errors")
        if not self._reported:
            self._reported = True
            log.warning("%s; further failures are only counted", what, exc_info=exc)


def mask(flags: Iterable[bool]) -> int:
    """Return the flags as bits, the first one lowest."""
    return sum(1 << place for place, flag in enumerate(flags) if flag)


def _worst(card: RateCard) -> list[Band]:
    """Return of each band the dearest that text can cost, rounded up; at last plain input."""
    bands = []
    for band in card.bands:
        most = max(band.input, band.cache_read, band.cache_write, band.cache_write_1h)
        rates = most, max(band.output, band.reasoning), band.request, band.input
        worst, output, call, text = (-(-rate // card.scale) for rate in rates)
        bands.append((band.above, (worst, output, call, text)))
    return bands
