"""Queues of coroutines of async handlers: one a run, in order, awaited beside the pipeline.

A coroutine is awaited in the event loop that the event came from; for events of sync code one loop
in a daemon thread awaits them. A run's queue lives only while something waits in it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from langmeter._base.delivery import running_loop
from langmeter._base.forks import at_fork
from langmeter._base.log import log

#: Coroutines of one handler that wait at most; what is over is dropped and counted.
MAX_WAITING: Final = 65_536
#: Seconds between two looks of `wait`.
_LOOK: Final = 0.002
#: Seconds that the end of the program waits for async handlers at most.
_AT_EXIT: Final = 1.0

#: What awaits one event.
Event: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


class _Background:
    """The event loop for events of sync code, in a daemon thread that is started when needed."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child: it has not the thread."""
        self._lock = threading.Lock()
        self.running: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, running."""
        with self._lock:
            if self.running is None:
                loop = asyncio.new_event_loop()
                threading.Thread(
                    target=loop.run_forever, name="langmeter-async-handlers", daemon=True
                ).start()
                self.running = loop
            return self.running


_background: Final = _Background()


def leaves_task(error: BaseException) -> bool:
    """Return whether what an async handler raised has to leave the task that awaits it.

    That is the end of the task itself, and Ctrl-C and the like in a loop of the program's own.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, GeneratorExit) or running_loop() is not _background.running


class RunQueues:
    """The events of one async handler that wait to be awaited, by run.

    What waits in a loop that closes is awaited by that of the thread; only the event that is being
    awaited then is lost.

    Attributes:
        dropped: events that found `MAX_WAITING` others waiting, or were cut off by a closing loop.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.reset()
        _all.add(self)

    def reset(self) -> None:
        """Begin anew, as in a forked child."""
        self._lock = threading.Lock()
        self._queues: dict[object, deque[tuple[Event, Callable[[], None]]]] = {}
        #: Tasks in loops of the program's own, by run; such a loop holds its tasks weakly.
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Events that are not finished."""
        return self._waiting

    def put(self, run: object, event: Event, discard: Callable[[], None]) -> None:
        """Let an event be awaited after those of its run that came before, or discard it."""
        if self._waiting >= MAX_WAITING:
            self._leave_closed_loops()
        with self._lock:
            has_room = self._waiting < MAX_WAITING
            is_first = has_room and run not in self._queues
            if has_room:
                self._waiting += 1
                self._queues.setdefault(run, deque()).append((event, discard))
            else:
                self.dropped += 1
        if not has_room:
            discard()
        elif is_first:
            self._start(run, running_loop())

    def _start(self, run: object, loop: asyncio.AbstractEventLoop | None) -> None:
        work = self._work(run)
        try:
            if loop is None:
                asyncio.run_coroutine_threadsafe(work, _background.loop())
            else:
                task = self._tasks[run] = loop.create_task(work)
                task.add_done_callback(lambda ended: self._ended(run, ended))
        except RuntimeError as error:  # the interpreter is ending
            log.debug("an async handler is not called: %s", error)
            work.close()
            with self._lock:
                rest = self._queues.pop(run, deque())
                self._waiting -= len(rest)
                self.dropped += len(rest)
            for _, discard in rest:
                discard()

    async def _work(self, run: object) -> None:
        """Await the events of a run until there is none."""
        while (event := self._next(run)) is not None:
            try:
                await event()
            except BaseException:
                with self._lock:
                    self.dropped += 1
                raise
            finally:
                with self._lock:
                    self._waiting -= 1

    def _next(self, run: object) -> Event | None:
        with self._lock:
            queue = self._queues.get(run)
            if queue:
                return queue.popleft()[0]
            self._queues.pop(run, None)
            # With the queue: the next event of this run starts a task of its own.
            self._tasks.pop(run, None)
            return None

    def _ended(self, run: object, task: asyncio.Task[None]) -> None:
        """Let the thread's loop go on where a task was cancelled, maybe before its first step."""
        was_whole = task.done() and not task.cancelled() and task.exception() is None
        with self._lock:
            is_last = self._tasks.get(run) is task
            if is_last:
                del self._tasks[run]
        if is_last and not was_whole:
            self._start(run, None)

    def _leave_closed_loops(self) -> None:
        """Do the same for tasks whose loop was closed without cancelling them."""
        for run, task in list(self._tasks.items()):
            if task.get_loop().is_closed():
                coroutine = task.get_coro()
                if isinstance(coroutine, Coroutine):
                    with suppress(RuntimeError, ValueError):  # a handler that goes on at its end
                        coroutine.close()
                self._ended(run, task)

    def wait(self, timeout: float) -> bool:
        """Wait until nothing waits; False when that takes longer. Not for use in an event loop."""
        self._leave_closed_loops()
        deadline = monotonic() + timeout
        while self._waiting:
            if monotonic() >= deadline:
                return False
            sleep(_LOOK)
        return True

    async def wait_async(self, timeout: float) -> bool:
        """Do the same in an event loop."""
        self._leave_closed_loops()
        deadline = monotonic() + timeout
        while self._waiting:
            if monotonic() >= deadline:
                return False
            await asyncio.sleep(_LOOK)
        return True


_all: Final[WeakSet[RunQueues]] = WeakSet()


def _after_fork() -> None:
    _background.reset()
    for queues in list(_all):
        queues.reset()


def _at_exit() -> None:
    """Wait a second for what the last calls of the program sent."""
    deadline = monotonic() + _AT_EXIT
    for queues in list(_all):
        queues.wait(max(deadline - monotonic(), 0))


at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
