"""Streams that have gone silent, told while they are: one look at all of them every second."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from time import time_ns
from typing import Any, Final, Protocol
from uuid import UUID

from langmeter._base import observer, periodic
from langmeter._base.delivery import notice_listener, plain_function
from langmeter._base.observer import RecorderObserver
from langmeter._base.options import Rule, held_to, real, ruled
from langmeter.snapshot import Snapshot, StreamState

__all__ = ["Stall", "StallObserver", "streams_in_flight"]

#: Silence that is none yet, whatever the model: seconds.
_PATIENCE: Final = 10.0
#: A model may be silent for so many times the gap that 99 % of its tokens come within.
_GAPS: Final = 8
#: The gaps are asked for at most every so many seconds: a snapshot is milliseconds of work.
_GAPS_EVERY: Final = 30
_LEAST: Final = 0.05
_MOST: Final = 86_400.0
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True)
class Stall:
    """A stream that has begun and gives no more tokens; what `on_stall` gets.

    Attributes:
        run_id: of the call; None when it ended just now.
        provider, model: as requested.
        silent_for: seconds since its last piece of output.
        elapsed: seconds since it began.
        token_events: pieces of output it has sent.
    """

    run_id: UUID | None
    provider: str
    model: str
    silent_for: float
    elapsed: float
    token_events: int


def _stall_listener(name: str, value: Any) -> Any:
    return None if value is None else plain_function(name, value, "Stall")


#: Rules of the options `on_stall` and `stall_after`.
ON_STALL: Final = ruled(Rule(_stall_listener))
STALL_AFTER: Final = real(
    _LEAST,
    _MOST,
    "seconds",
    "leave it out for 10 seconds or 8 times the model's p99 gap between tokens",
    optional=True,
)


class ObservedRecorder(observer.ObservedRecorder, Protocol):
    """The methods of a recorder that are called."""

    def silent(self, silence: float) -> Iterable[tuple[int, str, str, int, int, int]]:
        """Runs that have sent tokens, but none for so many seconds.

        Key of the run, requested provider and model, Unix nanoseconds of its begin and of its last
        token, token events.
        """

    def stalled(self, provider: str, model: str) -> object:
        """Count a stall."""

    def snapshot(self) -> Any:
        """A native snapshot, for the gaps between tokens."""


class StallObserver(RecorderObserver[ObservedRecorder]):
    """Looks for stalled streams, and reports each once, and again after more tokens.

    A stream stalls that has sent something and then nothing for `stall_after` seconds; by default
    for 10, or 8 times the model's 99th percentile of the gaps between tokens, if that is more.

    It looks every second, or four times in a shorter `stall_after`; it holds the recorder weakly,
    and ends when its owner lets go of it.

    Args:
        recorder: whose streams; each stall is counted there.
        on_stall: gets a `Stall`, in a thread of its own; what it raises is counted there as
            `callback_errors` and logged once. None to count only.
        stall_after: seconds, 0.05 to 86,400.
        run_id: the id of a run by its key, None when it is not known any more.
        clock: Unix nanoseconds.

    Raises:
        ConfigError: `stall_after` is outside its range, or `on_stall` is not a plain function.
    """

    def __init__(
        self,
        recorder: ObservedRecorder,
        on_stall: Callable[[Stall], Any] | None = None,
        stall_after: float | None = None,
        *,
        run_id: Callable[[int], UUID | None] | None = None,
        clock: Callable[[], int] = time_ns,
        tasks: periodic.PeriodicTasks = periodic.shared,
    ) -> None:
        held_to(ON_STALL, "on_stall", on_stall)
        self._limit: float | None = held_to(STALL_AFTER, "stall_after", stall_after)
        super().__init__(recorder, min(1.0, (stall_after or 4.0) / 4), tasks)
        self._listener = on_stall and notice_listener("on_stall", on_stall, self._count)
        self._run_id = run_id
        self._clock = clock
        #: Runs that were told of: when they began and how many tokens they had, by key.
        self._told: dict[int, tuple[int, int]] = {}
        self._gaps: dict[tuple[str, str], float] = {}
        self._gaps_at: int | None = None

    @property
    def stalled(self) -> Collection[int]:
        """Keys of the runs whose stall was reported, and that have sent nothing since."""
        return self._told.keys()

    def _observe(self, recorder: ObservedRecorder) -> None:
        silent = list(recorder.silent(_PATIENCE if self._limit is None else self._limit))
        now = self._clock()
        # First all that is known: what fails below makes no stall be told twice.
        reported = {run[0]: (run[3], run[5]) for run in silent}
        self._told = {key: this for key, this in reported.items() if self._told.get(key) == this}
        for key, provider, model, started, last, events in silent:
            known = key in self._told
            if known or now - last < self._more_patience(recorder, provider, model, now):
                continue
            self._told[key] = (started, events)
            recorder.stalled(provider, model)
            if self._listener is None:
                continue
            stall = Stall(
                run_id=self._run_id(key) if self._run_id else None,
                provider=provider,
                model=model,
                silent_for=max(now - last, 0) / _SECOND,
                elapsed=max(now - started, 0) / _SECOND,
                token_events=events,
            )
            self._listener.notify(stall)

    def _count(self, name: str, n: int) -> None:
        recorder = self._recorder()
        if recorder is not None:
            recorder.dropped(name, n)

    def _more_patience(
        self, recorder: ObservedRecorder, provider: str, model: str, now: int
    ) -> float:
        """Nanoseconds that a silence has to last beyond what the recorder was asked for, or -inf.

        Without them the recorder's clock alone decides.
        """
        if self._limit is not None:
            return -inf
        if self._gaps_at is None or not 0 <= now - self._gaps_at < _GAPS_EVERY * _SECOND:
            self._gaps_at, self._gaps = now, _gaps(Snapshot(recorder.snapshot()))
        gap = self._gaps.get((provider, model))
        if gap is None:
            # A stream has the requested model, the gaps the one that answered: gpt-4o and
            # gpt-4o-2024-11-20.
            dated = (
                gap
                for (by, name), gap in self._gaps.items()
                if by == provider and name.startswith(model)
            )
            gap = max(dated, default=0.0)
        return _GAPS * gap * _SECOND if _GAPS * gap > _PATIENCE else -inf


class _Observed(Protocol):
    """The parts of services that are used: their recorder, and its observers."""

    @property
    def recorder(self) -> ObservedRecorder: ...
    @property
    def observers(self) -> tuple[RecorderObserver[Any], ...]: ...


def streams_in_flight(services: _Observed) -> Iterable[StreamState]:
    """Return the streams that have sent something, those that were silent for longest last."""
    watches = (each for each in services.observers if isinstance(each, StallObserver))
    stalled = {key for watch in watches for key in watch.stalled}
    runs = sorted(services.recorder.silent(0.0), key=lambda run: -run[4])
    for key, provider, model, started, last, events in runs:
        begin, end = (datetime.fromtimestamp(n / _SECOND, UTC) for n in (started, last))
        yield StreamState(provider, model, begin, end, events, key in stalled)


def _gaps(snapshot: Snapshot) -> dict[tuple[str, str], float]:
    """The 99th percentile of the gaps between tokens, seconds, of the models that streamed."""
    every = {name: stats.inter_token_latency for name, stats in snapshot.models.items()}
    return {name: gaps.quantile(0.99) for name, gaps in every.items() if gaps.count}
