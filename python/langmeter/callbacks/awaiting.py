"""Queues of coroutines of async handlers: one a run, in order, awaited beside the pipeline.

A coroutine is awaited in the event loop that the event came from; for events of sync code one loop
in a daemon thread awaits them. A run's queue lives only while something waits in it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic, sleep
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from langmeter._base.delivery import running_loop
from langmeter._base.log import log

#: Coroutines of one handler that wait at most; what is over is dropped and counted.
MAX_WAITING: Final = 65_536
#: Seconds between two looks of `wait`.
_LOOK: Final = 0.002

#: What awaits one event.
Event: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class _Background:
    """The event loop for events of sync code, in a daemon thread that is started when needed."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child: it has not the thread."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="langmeter-async-handlers", daemon=True
                ).start()
            return self._loop


_background: Final = _Background()


class RunQueues:
    """The events of one async handler that wait to be awaited, by run.

    Attributes:
        dropped: events that found `MAX_WAITING` others waiting, or whose loop was closed.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Begin anew, as in a forked child."""
        self._lock = threading.Lock()
        self._queues: dict[object, deque[Event]] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Events that are not finished."""
        return self._waiting

    def put(self, run: object, event: Event) -> bool:
        """Let an event be awaited after those of its run that came before; False without room."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                self.dropped += 1
                return False
            self._waiting += 1
            queue = self._queues.get(run)
            if queue is not None:
                queue.append(event)
                return True
            self._queues[run] = deque([event])
        loop = running_loop()
        try:
            if loop is not None:
                task = loop.create_task(self._work(run))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
            else:
                asyncio.run_coroutine_threadsafe(self._work(run), _background.loop())
        except RuntimeError as error:  # the interpreter is ending
            log.debug("an async handler is not called: %s", error)
            self._forget(run)
        return True

    async def _work(self, run: object) -> None:
        """Await the events of a run until there is none."""
        try:
            while (event := self._next(run)) is not None:
                await event()
                with self._lock:
                    self._waiting -= 1
        except BaseException:
            # Only what ends the task itself comes here: its loop is closing.
            with self._lock:
                self._waiting -= 1
                self.dropped += 1
            self._forget(run)
            raise

    def _next(self, run: object) -> Event | None:
        with self._lock:
            queue = self._queues.get(run)
            if queue:
                return queue.popleft()
            self._queues.pop(run, None)
            return None

    def _forget(self, run: object) -> None:
        with self._lock:
            rest = len(self._queues.pop(run, ()))
            self._waiting -= rest
            self.dropped += rest

    def wait(self, timeout: float) -> bool:
        """Wait until nothing waits; False when that takes longer. Not for use in an event loop."""
        deadline = monotonic() + timeout
        while self._waiting:
            if monotonic() >= deadline:
                return False
            sleep(_LOOK)
        return True

    async def wait_async(self, timeout: float) -> bool:
        """Do the same in an event loop."""
        deadline = monotonic() + timeout
        while self._waiting:
            if monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK)
        return True


#: A loop holds its tasks weakly.
_tasks: Final[set[asyncio.Task[None]]] = set()
_all: Final[WeakSet[RunQueues]] = WeakSet()


def _after_fork() -> None:
    _background.reset()
    _tasks.clear()
    for queues in list(_all):
        queues.reset()


os.register_at_fork(after_in_child=_after_fork)
