"""Feed: one reading of the source a second, for all viewers, for as long as there is one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final

from langmeter._base.log import log
from langmeter._base.text import printable
from langmeter.report.html.timeline import ByTime
from langmeter.report.live import view
from langmeter.report.live.past import Past
from langmeter.report.live.view import View
from langmeter.snapshot import Snapshot
from langmeter.sources import SnapshotSource

#: Seconds between two readings; of a history, the least, and the rest by the time of a reading.
EVERY: Final = 1.0
EVERY_SPAN: Final = 15.0
_REST: Final = 20
#: Events that wait for a viewer; one that is slower gets the newest whole page instead.
MAX_WAITING: Final = 4
#: Viewers at a time.
MAX_VIEWERS: Final = 100


class Reading:
    """A source that is read at most once a second, whoever asks.

    Args:
        source: what is read.
        clock: seconds of a clock that only goes forward.
    """

    def __init__(self, source: SnapshotSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._snapshot, self._at = Snapshot(), float("-inf")

    def snapshot(self) -> Snapshot:
        """Return the snapshot of this second. Raises what the source raises."""
        with self._lock:
            now = self._clock()
            # A little less than a second: a feed that wakes early must not get the same again.
            if now - self._at >= 0.9 * EVERY:
                self._snapshot, self._at = self._source.snapshot(), now
            return self._snapshot


class Viewer:
    """Events that wait for one viewer."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._shape: object = None

    def put(self, latest: View) -> None:
        """Add what the viewer needs of a view; if too much waits, the whole page alone."""
        follows = self._shape == latest.shape
        if self._events.full():
            self._clear()
            follows = False
        self._shape = latest.shape
        self._events.put_nowait(latest.frame if follows else latest.whole)

    def say(self, event: bytes | None) -> None:
        """Add an event, None for the end; what waits before it is dropped if it is too much."""
        if event is None or self._events.full():
            self._clear()
            self._shape = None
        self._events.put_nowait(event)

    def _clear(self) -> None:
        while not self._events.empty():
            self._events.get_nowait()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield the events until the end."""
        while (event := await self._events.get()) is not None:
            yield event


class Feed:
    """Reads for its viewers: begins with the first one, and ends with the last one.

    Args:
        read: returns a view; called in a thread, one call at a time.
        every: seconds between two readings, at least.
        rest: how many times longer it rests than a reading takes, at least.
    """

    def __init__(self, read: Callable[[], View], every: float = EVERY, rest: float = 0.0) -> None:
        self._read, self._every, self._rest = read, every, rest
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._latest: View | None = None

    @property
    def viewers(self) -> int:
        """Number of pages that are open."""
        return len(self._viewers)

    def join(self) -> Viewer:
        """Add a viewer. Must be called in the event loop."""
        viewer = Viewer()
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._latest = None
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._latest is not None:
            viewer.put(self._latest)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer."""
        self._viewers.discard(viewer)
        if not self._viewers and self._task is not None:
            self._task.cancel()
            self._task = None

    def close(self) -> None:
        """End all viewers."""
        for viewer in self._viewers:
            viewer.say(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            try:
                self._latest = await loop.run_in_executor(None, self._read)
            except Exception as error:  # a source that does not answer may answer later
                log.debug("live page: %s", printable(error))
                event = view.problem(printable(error) or type(error).__name__)
                for viewer in list(self._viewers):
                    viewer.say(event)
            else:
                for viewer in list(self._viewers):
                    viewer.put(self._latest)
            took = loop.time() - begun
            await asyncio.sleep(max(self._every - took, self._rest * took, 0.05))


def moving(source: SnapshotSource) -> Feed:
    """Return the feed of a source that is read each second; its charts outlive its viewers."""
    past, lock = Past(), threading.Lock()

    def read() -> View:
        with lock:  # the thread of a feed that has ended may read still
            snapshot, now = source.snapshot(), datetime.now(UTC)
            past.add(now.timestamp(), snapshot)
            return view.live(snapshot, past, now)

    return Feed(read)


def span(history: ByTime, since: str | None) -> Feed:
    """Return the feed of a span of a history, from a time before now; None for all."""

    def read() -> View:
        return view.span(history.excerpt(since, None), datetime.now(UTC))

    return Feed(read, EVERY_SPAN, _REST)
