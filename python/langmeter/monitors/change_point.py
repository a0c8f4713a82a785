"""Whether a figure has gone to another level: a Page-Hinkley test in units of its own spread."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Final, NamedTuple, TypeAlias

from langmeter._base.check import real_number, whole_number

#: Clip each deviation to this many standard deviations: one outlier cannot raise an alarm.
_CLIP: Final = 5.0
#: Tighter clip for the variance: else a level shift inflates it and masks itself.
_TRUSTED: Final = 2.5
#: The spread is that of about so many batches.
_MEMORY: Final = 256
#: And of the sums of so many in a row: where batches are alike, as when a provider's load comes and
#: goes in minutes, those spread more than the batches say. False alarms in 1,000 hours of a mean
#: that wanders by 5 %: 1,933 without, 46 with; time to detect 50 and 100 % unchanged.
_RUN: Final = 12
#: In variances, what one of those sums tells at most.
_TRUSTED_RUN: Final = 4.0
#: A change is looked for where a direction last had no more than that piled up.
_CANDIDATE_STARTS: Final = (0.0, 1.5, 4.0)
#: Lowest error rate whose binomial deviation is used: a single failed call is not a change.
_RARE: Final = 0.01
_RANGES: Final = {
    # Beyond the clip nothing would ever be found.
    "delta": (0.01, 4.0),
    "threshold": (1.0, 1000.0),
    "warm_up": (5, 10_000),
    "min_std": (0.001, 1.0),
}


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Definition of a change. Lengths are in standard deviations of a batch.

    Attributes:
        delta: half the change that is found soonest; less than it is never found.
        threshold: how much more than `delta` has to pile up.
        warm_up: batches from which the first level and its spread are learned.
        min_std: lowest standard deviation of a mean, as a share of it.

    Raises:
        ConfigError: a value is outside its range.
    """

    # A threshold of 10 detects +20 % in 30 s instead of 45, and raises 50 false alarms in
    # 1,000 hours of a model instead of none; delta 1 with threshold 8 is as quick and quiet, but
    # blind to a change of less than a spread.
    delta: float = 0.5
    threshold: float = 15.0
    warm_up: int = 30
    min_std: float = 0.05

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if name == "warm_up":
                whole_number(name, self.warm_up, int(low), int(high))
            else:
                real_number(name, getattr(self, name), low, high)


class PageHinkley:
    """The two-sided Page-Hinkley test: whether the mean of a stream has changed.

    It decides as `PageHinkley(alpha=1)` of PyPI `river` does. A forgetting factor (there 0.9999) is
    left out: it stops the downward drift of the sums, and so makes false alarms common in a stream
    of days; `python -m benches.anomalies` prints how common.

    Args:
        delta: half the change worth telling, in units of the stream.
        threshold: how much has to pile up; false alarms get exponentially rarer with it.
        warm_up: samples before the first decision.
        samples, mean: what it shall be taken to have seen already.
    """

    __slots__ = ("_delta", "_threshold", "_warm_up", "down", "mean", "samples", "up")

    def __init__(
        self,
        delta: float,
        threshold: float,
        warm_up: int = 1,
        *,
        samples: int = 0,
        mean: float = 0.0,
    ) -> None:
        self._delta = delta
        self._threshold = threshold
        self._warm_up = warm_up
        self.samples = samples
        self.mean = mean
        #: How much has piled up in each direction; a change began after the last 0.
        self.up = 0.0
        self.down = 0.0

    def update(self, x: float) -> int:
        """Take a sample; 1 when the mean has gone up, -1 when it has gone down, else 0."""
        self.samples += 1
        self.mean += (x - self.mean) / self.samples
        deviation = x - self.mean
        # Twice as fast as max().
        up = self.up + deviation - self._delta
        down = self.down - deviation - self._delta
        self.up = up = up if up > 0.0 else 0.0
        self.down = down = down if down > 0.0 else 0.0
        if self.samples < self._warm_up or (up <= self._threshold and down <= self._threshold):
            return 0
        return 1 if up >= down else -1


class Segment(NamedTuple):
    """Calls on one level: what they add up to, in how many batches.

    `begin` is when the first of the calls can have ended, in nanoseconds.
    """

    begin: int
    calls: int
    total: float
    batches: int


class Change(NamedTuple):
    """All of the old level, and what there is of the new one, which begins at `after.begin`."""

    before: Segment
    after: Segment


#: A stretch, as a plain tuple for speed, and what had piled up at its end.
_Mark: TypeAlias = tuple[tuple[int, int, float, int], float]


class ChangeDetector:
    """One figure, a total by calls, batch by batch. Its memory is a dozen numbers.

    The first level and the spread of the batches around it are learned. The spread goes on being
    learned and outlives a change, so that the next level is watched from its first batch.
    """

    __slots__ = (
        "_baseline",
        "_batches",
        "_calls",
        "_falls",
        "_min_variance",
        "_rises",
        "_run",
        "_run_variance",
        "_seen",
        "_sensitivity",
        "_test",
        "_total",
        "_typical",
        "_variance",
    )

    def __init__(self, sensitivity: Sensitivity, min_variance: float) -> None:
        self._sensitivity = sensitivity
        #: The least variance, in units of `_unit`.
        self._min_variance = min_variance
        self._learn_anew()

    def _learn_anew(self) -> None:
        self._test: PageHinkley | None = None
        #: The level's so far; and as they were at the marks, with what had piled up then.
        self._calls, self._total, self._batches = 0, 0.0, 0
        self._rises: list[_Mark] = [((0, 0, 0.0, 0), 0.0)] * len(_CANDIDATE_STARTS)
        self._falls = self._rises.copy()
        #: The place of the level.
        self._baseline = 0.0
        #: Of the batches' places, in units of `_unit`; while learning, the sum of squares.
        self._variance = 0.0
        #: The same from runs of batches, and the sum of the run that goes on.
        self._run_variance = 0.0
        self._run = 0.0
        #: Calls of a usual batch.
        self._typical = 0.0
        #: Batches that the spread is learned from.
        self._seen = 0

    def _place(self, calls: int, total: float) -> float:
        """Where the figure stands, on a scale where changes add up; -inf where nowhere."""
        raise NotImplementedError

    def _unit(self, calls: float) -> float:
        """Return the prior of the standard deviation of a batch with this number of calls."""
        raise NotImplementedError

    def update(self, begin: int, calls: int, total: float) -> Change | None:
        """Take a batch that began then; returns the change, where with it there is one."""
        place = self._place(calls, total)
        test = self._test
        if test is None:
            self._learn(calls, total, place)
            return None
        if test.up <= _CANDIDATE_STARTS[-1] or test.down <= _CANDIDATE_STARTS[-1]:
            here = (begin, self._calls, self._total, self._batches)
            _mark(self._rises, here, test.up)
            _mark(self._falls, here, test.down)
        variance = max(self._variance, self._run_variance, self._min_variance)
        away = (place - self._baseline) / (self._unit(calls) * sqrt(variance))
        away = -_CLIP if away < -_CLIP else _CLIP if away > _CLIP else away
        off = away - test.mean
        self._run += off
        off = abs(off)
        off = _TRUSTED if off > _TRUSTED else off
        self._seen += 1
        if self._seen % _RUN == 0:
            far = min(self._run * self._run / _RUN, _TRUSTED_RUN) * variance
            self._run_variance += (far - self._run_variance) / min(
                self._seen / _RUN, _MEMORY / _RUN
            )
            self._run = 0.0
        weight = 1 / self._seen if self._seen < _MEMORY else 1 / _MEMORY
        self._variance += weight * (off * off * variance - self._variance)
        self._typical += weight * (calls - self._typical)
        self._calls += calls
        self._total += total
        self._batches += 1
        way = test.update(away)
        if not way:
            return None
        return self._change(*((self._rises, test.up) if way > 0 else (self._falls, test.down)))

    def _learn(self, calls: int, total: float, place: float) -> None:
        if place == -inf:
            return
        self._calls += calls
        self._total += total
        self._batches += 1
        self._seen += 1
        off = place - self._baseline
        self._baseline += off / self._seen
        self._variance += off * (place - self._baseline)
        self._typical += (calls - self._typical) / self._seen
        if self._seen == self._sensitivity.warm_up:
            self._variance /= (self._seen - 1) * self._unit(self._typical) ** 2
            self._watch()

    def _watch(self) -> None:
        it = self._sensitivity
        self._test = PageHinkley(it.delta, it.threshold, samples=self._batches)

    def _change(self, marks: list[_Mark], cumulative_sum: float) -> Change:
        def likelihood(mark: _Mark) -> float:
            there, then = mark
            batches = self._batches - there[-1]
            return (cumulative_sum - then + self._sensitivity.delta * batches) ** 2 / batches

        # Where a sum was last 0, the usual estimate, is too early for a change that is large: it
        # takes batches of the old level for ones of the new.
        before = Segment(*max(marks, key=likelihood)[0])
        after = Segment(
            before.begin,
            self._calls - before.calls,
            self._total - before.total,
            self._batches - before.batches,
        )
        baseline = self._place(after.calls, after.total)
        if baseline == -inf:
            self._learn_anew()
        else:
            self._baseline, self._run = baseline, 0.0
            _, self._calls, self._total, self._batches = after
            self._watch()
        return Change(before, after)


class MeanDetector(ChangeDetector):
    """Something positive by call: its logarithm, whose spread is learned.

    A mean of 0 (no usage, no price) is not learned from, but is a fall when it follows a figure.
    """

    __slots__ = ()

    def __init__(self, sensitivity: Sensitivity) -> None:
        super().__init__(sensitivity, sensitivity.min_std**2)

    def _place(self, calls: int, total: float) -> float:
        return log(total / calls) if total > 0 else -inf

    def _unit(self, calls: float) -> float:
        # A smaller batch than usual spreads more. A larger one not surely less: what all calls of
        # a moment have in common does not average out.
        return sqrt(self._typical / calls) if calls < self._typical else 1.0


class ProportionDetector(ChangeDetector):
    """The share of calls that something holds for: at least its binomial spread."""

    __slots__ = ()

    def __init__(self, sensitivity: Sensitivity) -> None:
        super().__init__(sensitivity, 1.0)

    def _place(self, calls: int, total: float) -> float:
        return total / calls

    def _unit(self, calls: float) -> float:
        share = max(self._baseline * (1 - self._baseline), _RARE * (1 - _RARE))
        # As for a mean: nor is the level known better when batches get larger.
        return sqrt(share / (calls if calls < self._typical else self._typical))


def _mark(marks: list[_Mark], here: tuple[int, int, float, int], cumulative_sum: float) -> None:
    for i, most in enumerate(_CANDIDATE_STARTS):
        if cumulative_sum <= most:
            marks[i] = (here, cumulative_sum)
