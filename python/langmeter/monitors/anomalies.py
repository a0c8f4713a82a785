"""Changes that last, told while they happen: of latency, error rate, tokens and cost per call.

Every few seconds, what each model has done since the last time goes into a test of each figure
(`langmeter.monitors.change_point`). Nothing of it is on the path of a call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from operator import lt, sub
from time import time_ns
from typing import Final, Protocol, TypeAlias

from langmeter._base import observer, periodic
from langmeter._base.check import whole_number
from langmeter._base.observer import RecorderObserver
from langmeter.monitors.change_point import (
    ChangeDetector,
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

#: What a model did since its recorder began: provider, model, ended calls (answers from a cache are
#: none), those that failed, tokens, pico-dollars, and the sum of the calls' latencies in seconds.
Row: TypeAlias = tuple[str, str, int, int, int, int, float]
#: An anomaly as the recorder takes it: at, detected at (Unix nanoseconds), provider, model, metric,
#: before, after (in 1e-12), calls before, calls after.
Change: TypeAlias = tuple[int, int, str, str, str, int, int, int, int]
_Figures: TypeAlias = tuple[int, int, int, int, float]


class _Model:
    """The four figures of a model, and the batch that is not full yet."""

    __slots__ = ("begin", "done", "levels", "seen")

    def __init__(self, figures: _Figures, now: int, sensitivity: Sensitivity) -> None:
        #: Where the batch begins, and what was seen last.
        self.done = self.seen = figures
        #: When the batch begins.
        self.begin = now
        self.levels: tuple[tuple[str, int, ChangeDetector], ...] = (
            ("latency", 1, MeanDetector(sensitivity)),
            ("error_rate", 1, ProportionDetector(sensitivity)),
            ("tokens_per_call", 1, MeanDetector(sensitivity)),
            ("cost_per_call", _PICO, MeanDetector(sensitivity)),
        )


class AnomalyDetector:
    """Finds changes in the cumulative figures of many models.

    Args:
        min_calls: calls that make a batch, 1 to 1,000,000; where ticks have fewer, several go into
            one, so that a rarely called model is watched too, and later told of.
        sensitivity: what is a change; the default is chosen by `python -m benches.anomalies`.
        max_models: models that are watched, 1 to 100,000; about 6 KB each.

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
        self._models: dict[tuple[str, str], _Model] = {}
        self._last = self._unwatched = 0

    @property
    def watched(self) -> int:
        """Models that are watched."""
        return len(self._models)

    @property
    def unwatched(self) -> int:
        """Models of the last `observe` that were not watched, being beyond `max_models`."""
        return self._unwatched

    def observe(self, rows: Iterable[Row], at_ns: int) -> list[Anomaly]:
        """Take the figures of all models at a moment (Unix nanoseconds); returns what is new.

        The first figures of a model are what later ones are counted from. Figures that fall are of
        a recorder that began anew: what was learned of that model is forgotten.
        """
        changes: list[Anomaly] = []
        unwatched = 0
        for row in rows:
            name, figures = row[:2], row[2:]
            model = self._models.get(name)
            if model is not None and not _fell(model.seen, figures):
                if model.seen[0] == model.done[0]:
                    # At the last tick none of the batch's calls had ended.
                    model.begin = self._last
                model.seen = figures
                if figures[0] - model.done[0] >= self._min_calls:
                    changes += self._test(name, model, at_ns)
            elif model is not None or len(self._models) < self._max_models:
                self._models[name] = _Model(figures, at_ns, self._sensitivity)
            else:
                unwatched += 1
        self._unwatched, self._last = unwatched, at_ns
        return changes

    def _test(self, name: tuple[str, str], model: _Model, now: int) -> Iterator[Anomaly]:
        calls, errors, tokens, cost, latency = map(sub, model.seen, model.done)
        model.done = model.seen
        answered = calls - errors
        sums = ((latency, calls), (errors, calls), (tokens, answered), (cost, answered))
        for (metric, unit, level), (total, of) in zip(model.levels, sums, strict=True):
            change = level.update(model.begin, of, total) if of > 0 else None
            if change is not None:
                before, after = change
                yield Anomaly(
                    at=_moment(after.begin),
                    detected_at=_moment(now),
                    provider=name[0],
                    model=name[1],
                    metric=metric,
                    before=before.total / before.calls / unit,
                    after=after.total / after.calls / unit,
                    calls_before=before.calls,
                    calls_after=after.calls,
                )


class ObservedRecorder(observer.ObservedRecorder, Protocol):
    """What is asked of a recorder."""

    def pulse(self) -> Iterable[tuple[str, str, int, int, int, int, int]]:
        """Rows, with the latencies in nanoseconds."""


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
        detected = self._detector.observe(rows, self._clock())
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


def _fell(before: Sequence[float], now: Sequence[float]) -> bool:
    return any(map(lt, now, before))


def _moment(unix_ns: int) -> datetime:
    return _EPOCH + unix_ns // 1000 * _MICROSECOND


def _unix_ns(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000
