"""Differences of snapshots at moments that a test decides, and rows of a history made of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid4

from langmeter import Snapshot, _core
from langmeter.history.schema import INTERVAL
from langmeter.history.store import Span, counted, interval_of
from langmeter.testing import ManualClock

#: Unix second that a `ManualClock` begins at.
EPOCH = 1


def difference(
    start: float,
    end: float,
    durations: Iterable[float] = (0.5,),
    *,
    model: str = "gpt-4o",
    errors: int = 0,
    team: str = "",
) -> Snapshot:
    """Return what one recorder counted from `start` to `end`, Unix seconds.

    Each call takes 1,000 input and 100 output tokens and costs 0.004 USD; the first ones fail.
    """
    clock = ManualClock()
    clock.advance(start - EPOCH)
    recorder = _core.Recorder(max_series=16, max_runs=64, clock=clock)
    before = Snapshot(recorder.snapshot())
    begun = start
    for place, seconds in enumerate(durations):
        run, failed = uuid4(), place < errors
        labels = [("team", team)] if team else None
        recorder.run_started(run, None, 0, "chat", "openai", model, labels=labels)
        clock.advance(seconds)
        begun += seconds
        usage = (1000, 100, 1100, *[0] * 16)
        recorder.run_ended(
            run, 0, int(failed), usage=None if failed else usage, cost=None if failed else 4 * 10**9
        )
    clock.advance(max(end - begun, 0.0))
    return Snapshot(recorder.snapshot()) - before


def row(
    snapshot: Snapshot,
    *,
    process: str = "1-a",
    number: int = 1,
    host: str = "a",
    interval: int = 60,
) -> Span:
    """Return the row of an interval of a difference."""
    figures = counted(snapshot)
    assert figures is not None
    span = interval_of(figures, interval)
    return Span(INTERVAL, *span, host, _core.__version__, figures, process, number)
