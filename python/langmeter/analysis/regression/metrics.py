"""Metrics of a comparison, each with its test, if any.

Of the list in `analysis.metrics`: *durations* by their histograms, any quantile and the whole
distribution; *shares and rates* by their counts. *Sums per call* (tokens, cost) have no test: a
snapshot holds their sum and nothing of how calls vary, and no sum says whether two of them differ
by chance. Sums themselves are not compared: they depend on how long was metered.

Of attempts at defects, the share of fixed defects is tested, by defect: attempts at one defect are
not independent. The cost of a fix is a sum, and has no test. (Taking fixes for Poisson events in
dollars holds its level only while the costs of defects vary by at most their mean, and would report
each fall of the success rate a second time.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from langmeter._base.text import format_duration
from langmeter._core import Sample
from langmeter.analysis import metrics
from langmeter.analysis.metrics import Quantile, Ratio, Stats, Unit
from langmeter.analysis.regression import significance as tests
from langmeter.analysis.regression.significance import Tails
from langmeter.snapshot import ModelStats
from langmeter.snapshot.defect_stats import DefectStats

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
    what, _, figure = name.partition(".")
    what = metrics.SHORT.get(what, what)
    if what in metrics.DURATIONS and figure == "ks":
        return Measure(f"{what}.ks", "share", partial(_distribution, what), relative=False)
    if name in metrics.SUMS:
        raise ValueError(f"no metric {name!r} to compare; there are {', '.join(NAMES)}")
    try:
        metric = metrics.metric(name)
    except ValueError as error:
        if "percentile" in str(error):
            raise
        raise ValueError(f"no metric {name!r}; there are {', '.join(NAMES)}") from None
    if metric.name in _COUNTED:
        return _COUNTED[metric.name]
    assert isinstance(metric, Quantile)
    return Measure(metric.name, metric.unit, partial(_quantile, metric.what, metric.q))


def usual(stats: Stats) -> list[Measure]:
    """Return what is compared of a model or a component by default."""
    if isinstance(stats, DefectStats):
        return [one for one in _COUNTED.values() if one.of_defects]
    durations = metrics.DURATIONS if isinstance(stats, ModelStats) else metrics.DURATIONS[:1]
    timed = [measure(f"{what}.{figure}") for what in durations for figure in (*_QUANTILES, "ks")]
    counted = _COUNTED if isinstance(stats, ModelStats) else ("error_rate", "abandoned_rate")
    return [*timed, *(_COUNTED[name] for name in counted if not _COUNTED[name].of_defects)]


# --- durations -----------------------------------------------------------------------------------


def _sample(what: str, stats: Stats) -> Sample:
    distribution = getattr(stats, what, None)
    if distribution is None:
        return Sample(())
    sample = Sample.of(distribution)
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


def _share(ratio: Ratio, pair: Pair, level: float) -> Evidence | None:
    both = _both(ratio, pair)
    if both is None:
        return None
    (x, n), (y, m) = both
    # A difference of snapshots may count a defect as fixed that was closed before it.
    if not (0 <= x <= n and 0 <= y <= m):
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


def _rate(ratio: Ratio, pair: Pair, level: float) -> Evidence | None:
    both = _both(ratio, pair)
    if both is None:
        return None
    (x, n), (y, m) = both
    if not x + y:
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


def _both(ratio: Ratio, pair: Pair) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return part and whole, before and now; None where one of the two has no data."""
    if ratio.read(pair.base) is None or ratio.read(pair.now) is None:
        return None
    base, now = ((int(ratio.part(stats)), ratio.whole(stats)) for stats in (pair.base, pair.now))
    return base, now


def _untested(ratio: Ratio, pair: Pair, level: float, *, relative: bool = True) -> Evidence | None:
    before, after = ratio.read(pair.base), ratio.read(pair.now)
    if before is None or after is None:
        return None
    return Evidence(before.value, after.value, (before.count, after.count), relative=relative)


def _counted(
    name: str, read: Callable[[Ratio, Pair, float], Evidence | None], *, relative: bool = True
) -> Measure:
    ratio = metrics.RATIOS[name]
    more_is_worse, of_defects = ratio.more_is_worse, ratio.of_defects
    return Measure(name, ratio.unit, partial(read, ratio), more_is_worse, relative, of_defects)


_COUNTED: Final = {
    measure.name: measure
    for measure in (
        _counted("error_rate", _share, relative=False),
        _counted("abandoned_rate", _share, relative=False),
        _counted("input_tokens.per_call", _untested),
        _counted("output_tokens.per_call", _untested),
        _counted("cost.per_call", _untested),
        _counted("cache_read.share", partial(_untested, relative=False), relative=False),
        _counted("web_searches.per_call", _rate),
        _counted("success_rate", _share, relative=False),
        _counted("cost.per_fixed", _untested),
    )
}
#: How metrics are named, for messages.
NAMES: Final = (
    *(f"{what}.p50 (or any p1 … p99.99) and {what}.ks" for what in metrics.DURATIONS),
    *_COUNTED,
)
