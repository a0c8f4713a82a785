"""What two snapshots are compared by: each figure, where it is read and how it is tested.

Three kinds. *Durations* by their histograms: any quantile, and the whole distribution. *Shares and
rates* by their counts. *Sums per call* (tokens, cost) have no test: a snapshot holds their sum and
nothing of how calls vary, and no sum says whether two of them differ by chance.

Of attempts at defects, the share of fixed defects is tested, by defect: attempts at one defect are
not independent. The cost of a fix is a sum, and has no test. (Taking fixes for Poisson events in
dollars holds its level only while the costs of defects vary by at most their mean, and would report
each fall of the success rate a second time.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias

from langmeter._base.text import format_duration
from langmeter.analysis.regression import significance as tests
from langmeter.analysis.regression.significance import Sample, Tails
from langmeter.snapshot import ComponentStats, ModelStats
from langmeter.snapshot.defect_stats import DefectStats

Stats: TypeAlias = ModelStats | ComponentStats | DefectStats
Unit: TypeAlias = Literal["s", "share", "USD", "tokens", "count"]

_DURATIONS: Final = ("latency", "time_to_first_token", "inter_token_latency")
_SHORT: Final = {"ttft": "time_to_first_token", "itl": "inter_token_latency"}
_QUANTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
#: Quantiles that are compared unasked.
_QUANTILES: Final = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One figure in two snapshots.

    Attributes:
        before, after: the figure, in the measure's unit.
        calls: how many independent observations it rests on, before and now.
        interval: of `after / before - 1` where `relative`, else of `after - before`; None untested.
        relative: which of the two.
        tails: p-values of a rise and a fall; None where there is no test.
        min_p_value: the least p possible here, given only what tells nothing of a change.
        floor_of: the least p that n calls on each side could give; None where n sets no bound.
        note: what `before` and `after` are, where the metric's name does not say.
    """

    before: float
    after: float
    calls: tuple[int, int]
    interval: tuple[float, float] | None = None
    relative: bool = True
    tails: Tails | None = None
    min_p_value: float = 1.0
    floor_of: Callable[[int], float] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The figures of one subject in two snapshots; its histograms are read once for all tests."""

    base: Stats
    now: Stats
    _samples: dict[str, tuple[Sample, Sample] | None] = field(default_factory=dict)

    @property
    def models(self) -> tuple[ModelStats, ModelStats] | None:
        """Both, where they are of a model."""
        if isinstance(self.base, ModelStats) and isinstance(self.now, ModelStats):
            return self.base, self.now
        return None

    @property
    def attempts(self) -> tuple[DefectStats, DefectStats] | None:
        """Both, where they are of attempts at defects."""
        if isinstance(self.base, DefectStats) and isinstance(self.now, DefectStats):
            return self.base, self.now
        return None

    def samples(self, what: str) -> tuple[Sample, Sample] | None:
        """Return the durations called `what`; None where one of the two has none."""
        if what not in self._samples:
            base, now = _sample(what, self.base), _sample(what, self.now)
            self._samples[what] = (base, now) if base.n and now.n else None
        return self._samples[what]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric. `read(pair, level)` is None where one of the two has no data."""

    name: str
    unit: Unit
    read: Callable[[Pair, float], Evidence | None]
    more_is_worse: bool = True
    relative: bool = True
    of_defects: bool = False


def measure(name: str) -> Measure:
    """A metric by its name. Raises ValueError, naming those that exist."""
    if name in _COUNTED:
        return _COUNTED[name]
    what, _, figure = name.partition(".")
    what = _SHORT.get(what, what)
    if what in _DURATIONS:
        if figure == "ks":
            read = partial(_distribution, what)
            return Measure(f"{what}.ks", "share", read, relative=False)
        if (match := _QUANTILE.fullmatch(figure)) and float(match[1]) > 0:
            percent = float(match[1])
            if percent < 1:
                raise ValueError(
                    f"{name!r} must name a percentile in percent, p1 to p99.99; "
                    f"write {what}.p{100 * percent:g}"
                )
            return Measure(f"{what}.{figure}", "s", partial(_quantile, what, percent / 100))
    raise ValueError(f"no metric {name!r}; there are {', '.join(NAMES)}")


def usual(stats: Stats) -> list[Measure]:
    """Return what is compared of a model or a component by default."""
    if isinstance(stats, DefectStats):
        return [one for one in _COUNTED.values() if one.of_defects]
    durations = _DURATIONS if isinstance(stats, ModelStats) else _DURATIONS[:1]
    timed = [measure(f"{what}.{figure}") for what in durations for figure in (*_QUANTILES, "ks")]
    counted = _COUNTED if isinstance(stats, ModelStats) else ("error_rate", "abandoned_rate")
    return [*timed, *(_COUNTED[name] for name in counted if not _COUNTED[name].of_defects)]


# --- durations -----------------------------------------------------------------------------------


def _sample(what: str, stats: Stats) -> Sample:
    distribution = getattr(stats, what, None)
    if distribution is None:
        return Sample(())
    sample = Sample(distribution.buckets())
    if what == "inter_token_latency" and isinstance(stats, ModelStats):
        # The gaps of one call resemble one another, so a call is worth at the least one gap, and
        # is taken for no more: counted one by one, 50 gaps a call made most comparisons of equals
        # significant (benches.regression prints it).
        return sample.downsampled(min(sample.n, stats.streamed))
    return sample


def _quantile(what: str, q: float, pair: Pair, level: float) -> Evidence | None:
    if (samples := pair.samples(what)) is None:
        return None
    n, m = (sample.n for sample in samples)
    low, high = tests.quantile_interval(*samples, q, level)
    return Evidence(
        getattr(pair.base, what).quantile(q),
        getattr(pair.now, what).quantile(q),
        (n, m),
        (low - 1, high - 1),
        tails=tests.quantile_test(*samples, q),
        min_p_value=tests.quantile_floor(n, m, q),
        floor_of=lambda n: tests.quantile_floor(n, n, q),
    )


def _distribution(what: str, pair: Pair, level: float) -> Evidence | None:
    if (samples := pair.samples(what)) is None:
        return None
    n, m = (sample.n for sample in samples)
    gap = tests.ks_test(*samples)
    return Evidence(
        gap.before,
        gap.after,
        (n, m),
        relative=False,
        tails=gap.tails,
        min_p_value=tests.ks_floor(n, m),
        floor_of=lambda n: tests.ks_floor(n, n),
        note=f"over {format_duration(gap.at / 1e6)}",
    )


# --- counts --------------------------------------------------------------------------------------


def _share(
    part: Callable[[ModelStats | ComponentStats], int],
    whole: Callable[[ModelStats | ComponentStats], int],
    pair: Pair,
    level: float,
) -> Evidence | None:
    if isinstance(pair.base, DefectStats) or isinstance(pair.now, DefectStats):
        return None
    return _shares(part(pair.base), whole(pair.base), part(pair.now), whole(pair.now), level)


def _shares(x: int, n: int, y: int, m: int, level: float) -> Evidence | None:
    if not n or not m:
        return None
    return Evidence(
        x / n,
        y / m,
        (n, m),
        tests.share_interval(x, n, y, m, level),
        relative=False,
        tails=tests.share_test(x, n, y, m),
        min_p_value=tests.share_floor(x + y, n, m),
        floor_of=lambda n: tests.share_floor_of_sizes(n, n),
    )


def _rate(part: Callable[[ModelStats], int], pair: Pair, level: float) -> Evidence | None:
    if pair.models is None:
        return None
    base, now = pair.models
    x, n, y, m = part(base), _answered(base), part(now), _answered(now)
    if not n or not m or not x + y:
        return None
    low, high = tests.rate_interval(x, n, y, m, level)
    return Evidence(
        x / n,
        y / m,
        (n, m),
        (low - 1, high - 1),
        tails=tests.rate_test(x, n, y, m),
        min_p_value=tests.rate_floor(x + y, n, m),
    )


def _per(
    part: Callable[[ModelStats], float],
    whole: Callable[[ModelStats], int],
    pair: Pair,
    level: float,
    *,
    relative: bool = True,
) -> Evidence | None:
    if pair.models is None:
        return None
    base, now = pair.models
    n, m = whole(base), whole(now)
    if not n or not m:
        return None
    calls = _answered(base), _answered(now)
    return Evidence(part(base) / n, part(now) / m, calls, relative=relative)


def _success(pair: Pair, level: float) -> Evidence | None:
    if (attempts := pair.attempts) is None:
        return None
    base, now = attempts
    # A difference of snapshots may count a defect as fixed that was closed before it.
    if any(not 0 <= stats.fixed <= stats.closed for stats in attempts):
        return None
    return _shares(base.fixed, base.closed, now.fixed, now.closed, level)


def _cost_per_fixed(pair: Pair, level: float) -> Evidence | None:
    if (attempts := pair.attempts) is None:
        return None
    before, after = (stats.cost_per_fixed for stats in attempts)
    if before is None or after is None:
        return None
    base, now = attempts
    return Evidence(float(before), float(after), (base.closed, now.closed))


def _answered(stats: ModelStats) -> int:
    """Calls with usage: those that tokens can have come from."""
    return stats.priced_calls + stats.unpriced_calls


def _judged(stats: ModelStats | ComponentStats) -> int:
    return stats.outcomes["ok"] + stats.outcomes["error"]


def _run(stats: ModelStats | ComponentStats) -> int:
    return stats.calls - stats.outcomes["cache_hit"]


_COUNTED: Final = {
    measure.name: measure
    for measure in (
        Measure(
            "error_rate",
            "share",
            partial(_share, lambda stats: stats.errors, _judged),
            relative=False,
        ),
        Measure(
            "abandoned_rate",
            "share",
            partial(_share, lambda stats: stats.outcomes["abandoned"], _run),
            relative=False,
        ),
        Measure(
            "input_tokens.per_call",
            "tokens",
            partial(_per, lambda stats: stats.tokens.input, _answered),
        ),
        Measure(
            "output_tokens.per_call",
            "tokens",
            partial(_per, lambda stats: stats.tokens.output, _answered),
        ),
        Measure(
            "cost.per_call",
            "USD",
            partial(_per, lambda stats: float(stats.cost or 0), lambda stats: stats.priced_calls),
        ),
        Measure(
            "cache_read.share",
            "share",
            partial(
                _per,
                lambda stats: stats.tokens.cache_read,
                lambda stats: stats.tokens.input,
                relative=False,
            ),
            more_is_worse=False,
            relative=False,
        ),
        Measure(
            "web_searches.per_call",
            "count",
            partial(_rate, lambda stats: stats.web_searches),
        ),
        Measure(
            "success_rate",
            "share",
            _success,
            more_is_worse=False,
            relative=False,
            of_defects=True,
        ),
        Measure("cost.per_fixed", "USD", _cost_per_fixed, of_defects=True),
    )
}
#: How metrics are named, for messages.
NAMES: Final = (
    *(f"{what}.p50 (or any p1 … p99.99) and {what}.ks" for what in _DURATIONS),
    *_COUNTED,
)
