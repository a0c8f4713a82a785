"""Readings of a source, one after another: all that was counted, and what was counted of late."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from langmeter.snapshot import Snapshot
from langmeter.sources import Source, Spans, open

#: Seconds that recent figures are of, and of a history, which has a row a minute.
WINDOW: Final = 60.0
HISTORY_WINDOW: Final = 300.0
#: Most snapshots that are kept for differences: one for each so many seconds.
_KEPT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The figures of a source at one moment.

    Attributes:
        snapshot: all of it; of a history, what `recent` is.
        recent: what was counted in the last seconds; all of it where nothing earlier is known.
        seconds: how long `recent` took; 0 where nothing was counted.
        before: the snapshot at its begin; None where nothing earlier is known, and of a history.
        is_whole: whether `recent` is all that was counted, because nothing earlier is known.
    """

    snapshot: Snapshot
    recent: Snapshot
    seconds: float
    before: Snapshot | None
    is_whole: bool = False

    @property
    def at(self) -> datetime | None:
        """Moment of the snapshot, UTC; None for an empty one."""
        return self.snapshot.taken_at


class Recent:
    """Differences of snapshots over about the last minute.

    Args:
        window: seconds of a difference.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._snapshots: deque[tuple[datetime, Snapshot]] = deque()

    def add(self, snapshot: Snapshot) -> Reading:
        """Take a snapshot; returns it with what was counted in the window before it.

        The first one of a recorder stands for itself: what was counted since its beginning.
        """
        now, earlier = snapshot.taken_at, self._snapshots
        if now is None:
            return Reading(snapshot, snapshot, 0.0, None, is_whole=True)
        if earlier and earlier[-1][0] > now:  # of another recorder, whose clock is behind
            earlier.clear()
        while len(earlier) > 1 and earlier[1][0] <= now - timedelta(seconds=self._window):
            earlier.popleft()
        reading = None
        if earlier and earlier[0][0] < now:
            begin, before = earlier[0]
            try:
                difference = snapshot - before
                reading = Reading(snapshot, difference, (now - begin).total_seconds(), before)
            except ValueError:  # of another recorder: the process was started again
                earlier.clear()
        if not earlier or earlier[-1][0] <= now - timedelta(seconds=min(_KEPT, self._window / 12)):
            earlier.append((now, snapshot))
        return reading or Reading(snapshot, snapshot, _lasted(snapshot), None, is_whole=True)


class Reader:
    """Reads a source again and again.

    Args:
        source: as of `langmeter.sources.open`.
        window: seconds of `Reading.recent`; of a history five minutes, if that is longer.

    Raises:
        ConfigError: the source is not one.
    """

    def __init__(self, source: Source, window: float = WINDOW) -> None:
        self._source = open(source)
        self._window = window
        self._recent = Recent(window)

    def read(self) -> Reading:
        """Return the next reading; raises what `langmeter.sources.read` does."""
        if isinstance(self._source, Spans):
            length = timedelta(seconds=max(self._window, HISTORY_WINDOW))
            rows = self._source.between(length, None)
            return Reading(rows, rows, _lasted(rows), None)
        return self._recent.add(self._source.snapshot())


def _lasted(snapshot: Snapshot) -> float:
    begin, end = snapshot.started_at, snapshot.taken_at
    return 0.0 if begin is None or end is None else (end - begin).total_seconds()
