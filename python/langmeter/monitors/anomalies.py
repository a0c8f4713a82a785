"""Changes that last, reported while they happen.

Watched are the latency, the error rate, and the tokens and the cost per call of each model, and the
success rate and the cost per fixed defect of models that fix defects. Every few seconds, what each
model has done since the last time goes into a test of each figure
(`langmeter.monitors.change_point`). Nothing of it is on the path of a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from operator import lt, sub
from time import time_ns
from typing import Final, NamedTuple, Protocol, TypeAlias

from langmeter._base import observer, periodic
from langmeter._base.check import whole_number
from langmeter._base.observer import RecorderObserver
from langmeter.monitors.change_point import (
    MeanDetector,
    ProportionDetector,
    Sensitivity,
)
from langmeter.snapshot import Anomaly

__all__ = ["Anomaly", "AnomalyDetector", "AnomalyObserver"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_PICO: Final = 10**12
_KEPT: Final = 1000

#: What a model did since its recorder began: provider, model, ended calls (without answers from a
#: cache), those that failed, tokens, pico-dollars, and the sum of the calls' latencies in seconds.
Row: TypeAlias = tuple[str, str, int, int, int, int, float]
#: The same of its fixes: provider, model, defects with a verdict, those that are fixed, fixes that
#: were ever recorded, and pico-dollars of all attempts.
FixRow: TypeAlias = tuple[str, str, int, int, int, int]
#: An anomaly as the recorder takes it: at, detected at (Unix nanoseconds), provider, model, metric,
#: before, after (in 1e-12), calls before, calls after.
Change: TypeAlias = tuple[int, int, str, str, str, int, int, int, int]
_Figures: TypeAlias = tuple[float, ...]


class _Metric(NamedTuple):
    """One figure divided by another, of the figures of a facet."""

    name: str
    total: int
    of: int
    unit: int
    detector: type[MeanDetector | ProportionDetector]


class _Facet(NamedTuple):
    """Figures of a model that are read together; the first one fills the batches."""

    metrics: tuple[_Metric, ...]
    #: As many of the figures, from the first, never fall.
    growing: int
    #: A batch is `min_calls` divided by this.
    finer: int


#: Calls, answered ones, failed ones, tokens, pico-dollars, seconds.
_CALLS: Final = _Facet(
    (
        _Metric("latency", 5, 0, 1, MeanDetector),
        _Metric("error_rate", 2, 0, 1, ProportionDetector),
        _Metric("tokens_per_call", 3, 1, 1, MeanDetector),
        _Metric("cost_per_call", 4, 1, _PICO, MeanDetector),
    ),
    growing=6,
    finer=1,
)
#: Defects with a verdict, and those that are fixed, which a later verdict may make fewer. There are
#: fewer defects than calls: five make a batch where 20 calls do.
_VERDICTS: Final = _Facet(
    (_Metric("success_rate", 1, 0, 1, ProportionDetector),), growing=1, finer=4
)
#: Fixes, and pico-dollars of all attempts.
_FIXES: Final = _Facet((_Metric("cost_per_fixed", 1, 0, _PICO, MeanDetector),), growing=2, finer=4)


class _Track:
    """A facet of a model: its detectors, and the batch that is not full yet."""

    __slots__ = ("begin", "detectors", "done", "facet", "seen")

    def __init__(
        self, facet: _Facet, figures: _Figures, now: int, sensitivity: Sensitivity
    ) -> None:
        self.facet = facet
        #: Where the batch begins, and what was seen last.
        self.done = self.seen = figures
        #: When the batch begins.
        self.begin = now
        self.detectors = tuple(metric.detector(sensitivity) for metric in facet.metrics)

    def fell(self, figures: _Figures) -> bool:
        """Return whether a figure is lower than before that only grows."""
        return any(map(lt, figures[: self.facet.growing], self.seen))


class AnomalyDetector:
    """Finds changes in the cumulative figures of many models.

    Args:
        min_calls: calls that make a batch, 1 to 1,000,000; where ticks have fewer, several go into
            one, so that a rarely called model is watched too, and reported later. Of defects a
            quarter of it makes a batch.
        sensitivity: what is a change; the default is chosen by `python -m benches.anomalies`.
        max_models: models that are watched, 1 to 100,000; about 6 KB each, 3 more with fixes.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        *,
        min_calls: int = 20,
        sensitivity: Sensitivity | None = None,
        max_models: int = 1024,
    ) -> None:
        self._min_calls = whole_number("min_calls", min_calls, 1, 1_000_000)
        self._max_models = whole_number("max_models", max_models, 1, 100_000)
        self._sensitivity = sensitivity or Sensitivity()
        self._models: dict[tuple[str, str], dict[_Facet, _Track]] = {}
        self._last = self._unwatched = 0

    @property
    def watched(self) -> int:
        """Models that are watched."""
        return len(self._models)

    @property
    def unwatched(self) -> int:
        """Models of the last `observe` that were not watched, being beyond `max_models`."""
        return self._unwatched

    def observe(
        self, rows: Iterable[Row], at_ns: int, fixes: Iterable[FixRow] = ()
    ) -> list[Anomaly]:
        """Take the figures of all models at a moment (Unix nanoseconds); returns what is new.

        The first figures of a model are what later ones are counted from. Figures that fall are of
        a recorder that began anew: what was learned of that model is forgotten.
        """
        changes: list[Anomaly] = []
        unwatched = 0
        for provider, model, calls, errors, tokens, cost, latency in rows:
            figures = (calls, calls - errors, errors, tokens, cost, latency)
            unwatched += not self._take((provider, model), _CALLS, figures, at_ns, changes)
        for provider, model, closed, fixed, ever_fixed, cost in fixes:
            name = (provider, model)
            self._take(name, _VERDICTS, (closed, fixed), at_ns, changes)
            self._take(name, _FIXES, (ever_fixed, cost), at_ns, changes)
        self._unwatched, self._last = unwatched, at_ns
        return changes

    def _take(
        self,
        name: tuple[str, str],
        facet: _Facet,
        figures: _Figures,
        now: int,
        changes: list[Anomaly],
    ) -> bool:
        """Take the figures of a facet; returns whether the model is watched."""
        tracks = self._models.get(name)
        if tracks is None:
            if len(self._models) >= self._max_models:
                return False
            tracks = self._models[name] = {}
        track = tracks.get(facet)
        if track is None or track.fell(figures):
            tracks[facet] = _Track(facet, figures, now, self._sensitivity)
            return True
        if track.seen[0] == track.done[0]:
            # At the last tick nothing of the batch had ended.
            track.begin = self._last
        track.seen = figures
        if figures[0] - track.done[0] >= max(1, self._min_calls // facet.finer):
            changes += _test(name, track, now)
        return True


def _test(name: tuple[str, str], track: _Track, now: int) -> Iterator[Anomaly]:
    batch = tuple(map(sub, track.seen, track.done))
    track.done = track.seen
    for metric, detector in zip(track.facet.metrics, track.detectors, strict=True):
        # Verdicts may revoke more fixes than a batch has.
        of, total = int(batch[metric.of]), max(0, batch[metric.total])
        change = detector.update(track.begin, of, total) if of > 0 else None
        if change is not None:
            before, after = change
            yield Anomaly(
                at=_moment(after.begin),
                detected_at=_moment(now),
                provider=name[0],
                model=name[1],
                metric=metric.name,
                before=before.total / before.calls / metric.unit,
                after=after.total / after.calls / metric.unit,
                calls_before=before.calls,
                calls_after=after.calls,
            )


class ObservedRecorder(observer.ObservedRecorder, Protocol):
    """The methods of a recorder that are called."""

    def pulse(self) -> Iterable[tuple[str, str, int, int, int, int, int]]:
        """Rows, with the latencies in nanoseconds."""

    def fix_pulse(self) -> Iterable[FixRow]:
        """Rows of the models that fix defects."""


class AnomalyObserver(RecorderObserver[ObservedRecorder]):
    """Asks a recorder every few seconds, and keeps what is found for its snapshots.

    It holds the recorder weakly, and ends when its owner lets go of it. A forked child begins anew,
    as its recorder does. `detector` makes the detector; `clock` gives Unix nanoseconds.
    """

    def __init__(
        self,
        recorder: ObservedRecorder,
        *,
        seconds: float = 5.0,
        detector: Callable[[], AnomalyDetector] = AnomalyDetector,
        clock: Callable[[], int] = time_ns,
        tasks: periodic.PeriodicTasks = periodic.shared,
    ) -> None:
        super().__init__(recorder, seconds, tasks)
        self._new = detector
        self._detector = detector()
        self._clock = clock
        self._changes: tuple[Change, ...] = ()
        self._pid = os.getpid()

    def _observe(self, recorder: ObservedRecorder) -> None:
        if self._pid != os.getpid():
            self._detector, self._changes = self._new(), ()
            self._pid = os.getpid()
        rows = ((*row[:6], row[6] / 1e9) for row in recorder.pulse())
        detected = self._detector.observe(rows, self._clock(), recorder.fix_pulse())
        if detected:
            changes = (*self._changes, *map(_native, detected))
            # Replaced, not changed: snapshots are taken meanwhile.
            self._changes = changes[-_KEPT:]
            if len(changes) > _KEPT:
                recorder.dropped("anomalies_forgotten", len(changes) - _KEPT)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The last 1,000 that were found, oldest first, as `Recorder.snapshot` takes them."""
        return self._changes if self._pid == os.getpid() else ()


def _native(found: Anomaly) -> Change:
    return (
        _unix_ns(found.at),
        _unix_ns(found.detected_at),
        found.provider,
        found.model,
        found.metric,
        round(found.before * 1e12),
        round(found.after * 1e12),
        found.calls_before,
        found.calls_after,
    )


def _moment(unix_ns: int) -> datetime:
    return _EPOCH + unix_ns // 1000 * _MICROSECOND


def _unix_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000
