"""Figures of each provider by a meter, read off the path of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from time import monotonic
from typing import Any, Final, NamedTuple

from langmeter._base import periodic
from langmeter._base.log import log
from langmeter.callbacks.base import Callback
from langmeter.runnables.models import Names
from langmeter.runnables.providers.request import CHARACTERS_A_TOKEN
from langmeter.snapshot import Snapshot
from langmeter.snapshot.defect_stats import DefectStats
from langmeter.snapshot.stats import ModelStats
from langmeter.usage.token_counters import ratio_of

#: Calls from which on a percentile counts, and closed defects for a success rate.
_MIN_CALLS: Final = 3
_MIN_CLOSED: Final = 5
#: Seconds that recent figures cover, at least; at most twice as many.
_RECENT: Final = 300.0
#: Output tokens of a call of a model that was not measured.
_USUAL_OUTPUT: Final = 500.0


class Rates(NamedTuple):
    """USD a token from `above` input tokens on."""

    above: int
    input: float
    output: float
    cache_read: float


class Figures(NamedTuple):
    """Measured figures of one provider; None where too few calls were made.

    Attributes:
        latency: p95 of the last minutes, seconds.
        first_token: p95 of the time to the first token, seconds.
        output: mean output tokens of a call.
        cached: share of input tokens that came from the provider's cache, 0 to 1.
        rates: prices by size of the prompt; empty where no price is known.
        fixes: share of the defects of each type that the provider fixed, of at least 5.
        ratio: tokens of the model for each of OpenAI's, by family.
    """

    latency: float | None = None
    first_token: float | None = None
    output: float | None = None
    cached: float = 0.0
    rates: tuple[Rates, ...] = ()
    fixes: Mapping[str, float] = {}
    ratio: float = 1.0

    def cost(self, characters: int, cached: float = 0.0) -> float | None:
        """Return the US dollars that a call is expected to cost; None without a price."""
        if not self.rates:
            return None
        tokens = characters / CHARACTERS_A_TOKEN * self.ratio
        rates = self.rates[0]
        for band in self.rates[1:]:
            if tokens > band.above:
                rates = band
        output = _USUAL_OUTPUT if self.output is None else self.output
        whole = tokens * ((1 - cached) * rates.input + cached * rates.cache_read)
        return whole + output * rates.output


class LiveFigures:
    """The figures of each provider by its name, read from a meter every `seconds`.

    Reading takes milliseconds, so it happens in the thread of periodic tasks, and only after calls.
    """

    def __init__(
        self,
        meter: Callback | None,
        names: Mapping[str, Names],
        seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.meter = meter
        self._names = dict(names)
        self._clock = clock
        #: Whether prices were read after they were loaded.
        self.is_priced = False
        #: Whether a provider has a cache that was read: conversations are worth knowing.
        self.has_caches = False
        self.snapshot = Snapshot()
        self._base = self._next_base = (clock(), Snapshot())
        self.of: Mapping[str, Figures] = self._read()
        #: Whether calls were made since the last reading.
        self.is_stale = False
        self._seconds = seconds
        self._task: periodic.Task | None = None

    def touch(self) -> None:
        """Have the figures read soon: a call was made."""
        self.is_stale = True
        if self._task is None and self.meter is not None:
            self._task = periodic.every(self._seconds, self._refresh_stale)

    def read_prices(self) -> None:
        """Read the prices, once they are loaded."""
        if not self.is_priced and self.meter is not None:
            book = self.meter._services.prices
            if book is None or book.ready:
                self.is_priced = True
                self.of = self._read()

    def _refresh_stale(self) -> None:
        if self.is_stale:
            self.refresh()

    def refresh(self) -> None:
        """Read the meter now; takes milliseconds."""
        if self.meter is None:
            return
        self.is_stale = False
        self.snapshot = self.meter.snapshot()
        now = self._clock()
        if now - self._next_base[0] >= _RECENT:
            self._base, self._next_base = self._next_base, (now, self.snapshot)
        self.of = self._read()

    def _read(self) -> dict[str, Figures]:
        try:
            recent = self.snapshot - self._base[1]
        except ValueError:  # a forked child counts anew
            recent = self.snapshot
            self._base = self._next_base = (self._clock(), Snapshot())
        figures = {name: self._figures(names, recent) for name, names in self._names.items()}
        self.has_caches = any(each.cached for each in figures.values())
        return figures

    def _figures(self, names: Names, recent: Snapshot) -> Figures:
        rows, whole = self._rows(names, recent), self._rows(names, self.snapshot)
        calls = sum(row.outcomes["ok"] for row in whole)
        tokens = [row.tokens for row in whole]
        prompt = sum(each.input for each in tokens)
        return Figures(
            latency=_p95([row.latency for row in rows]),
            first_token=_p95([row.time_to_first_token for row in rows]),
            output=sum(each.output for each in tokens) / calls if calls else None,
            cached=sum(each.cache_read for each in tokens) / prompt if prompt else 0.0,
            rates=self._rates(names),
            fixes=self._fixes(names),
            ratio=ratio_of(names.model),
        )

    def _rows(self, names: Names, snapshot: Snapshot) -> list[ModelStats]:
        rows = snapshot.models.items()
        return [row for key, row in rows if self._is_of(names, *key)]

    def _is_of(self, names: Names, provider: str, model: str) -> bool:
        """Whether a row is of this provider; of two with one name, by the model that answered."""
        if provider != names.provider:
            return False
        models = [each.model for each in self._names.values() if each.provider == provider]
        if len(models) == 1:
            return True
        fitting = [each for each in models if model == each or model.startswith(f"{each}-")]
        return bool(fitting) and max(fitting, key=len) == names.model

    def _rates(self, names: Names) -> tuple[Rates, ...]:
        book = None if self.meter is None else self.meter._services.prices
        try:
            card = book and book.card_now(
                names.provider, names.model, deployment=names.deployment, vendor=names.vendor
            )
        except Exception:
            log.debug("the price of %s cannot be read", names, exc_info=True)
            return ()
        if not card:
            return ()
        unit = card.scale * 1e12
        return tuple(
            Rates(band.above, band.input / unit, band.output / unit, band.cache_read / unit)
            for band in card.bands
        )

    def _fixes(self, names: Names) -> dict[str, float]:
        rows: dict[str, list[DefectStats]] = {}
        for (defect_type, provider, model, _), row in self.snapshot.defects.items():
            if self._is_of(names, provider, model):
                rows.setdefault(defect_type, []).append(row)
        merged = {kind: DefectStats.merged(each) for kind, each in rows.items()}
        return {kind: row.success_rate for kind, row in merged.items() if row.closed >= _MIN_CLOSED}


def _p95(distributions: list[Any]) -> float | None:
    merged = sum(distributions[1:], distributions[0]) if distributions else None
    if merged is None or merged.count < _MIN_CALLS:
        return None
    value = float(merged.quantile(0.95))
    return None if isnan(value) else value
