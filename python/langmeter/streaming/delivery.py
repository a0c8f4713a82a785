"""How listeners are told: in the thread that streams, or through a bounded queue by a worker.

A queue has two kinds of workers, each started by need and gone when there is nothing to do: a
thread, and for coroutine functions of streams in an event loop a task of that loop. Each tells
things one at a time and in order, so that what one stream says is heard as it was said.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from langmeter.errors import ConfigError

_log = logging.getLogger("langmeter")

#: How long a worker thread waits for more before it ends, seconds.
_IDLE: Final = 1.0
_POLICIES: Final = ("drop_oldest", "drop_newest", "block")
_MOST: Final = 1_000_000

#: Adds to a named count of what was lost.
Count: TypeAlias = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Queued:
    """Delivery through a queue, so that no listener slows a stream.

    Attributes:
        queue_size: what may wait, 1 to 1,000,000.
        when_full: "drop_oldest"; "drop_newest"; or "block", which waits for room, up to `timeout`
            seconds, and then drops the newest. An event loop is never made to wait: there "block"
            is "drop_newest". The end of a stream is dropped only where nothing but ends waits.
        timeout: seconds.

    Raises:
        ConfigError: a value out of range.
    """

    queue_size: int = 1024
    when_full: Literal["drop_oldest", "drop_newest", "block"] = "drop_oldest"
    timeout: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.queue_size, int) and 1 <= self.queue_size <= _MOST):
            raise ConfigError(f"queue_size = {self.queue_size!r}: must be 1 to {_MOST:,}")
        if self.when_full not in _POLICIES:
            raise ConfigError(
                f"when_full = {self.when_full!r}: must be one of {', '.join(_POLICIES)}"
            )
        if not (
            isinstance(self.timeout, int | float) and 0 <= self.timeout <= threading.TIMEOUT_MAX
        ):
            raise ConfigError(f"timeout = {self.timeout!r}: must be seconds, 0 or more")


class Listener:
    """A function of the user's that is told things, until it has failed too often in a row."""

    __slots__ = ("_count", "_failed", "_limit", "_queue", "function", "is_async", "name", "off")

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        queue: Queue | None,
        count: Count,
        max_failures: int,
    ) -> None:
        self.name = name
        self.function = function
        self.is_async = is_async(function)
        self.off = False
        self._queue = queue
        self._count = count
        self._limit = max_failures
        self._failed = 0

    def tell(self, what: Any, *, end: bool = False) -> None:
        """Tell it, now or soon; only Ctrl-C and its like come out of an inline listener."""
        if self.off:
            return
        if self._queue is not None:
            self._queue.put((self, what, end))
            return
        try:
            self.function(what)
        except Exception as exc:
            self.failed(exc)
        else:
            self._failed = 0

    def run(self, what: Any, runner: Callable[[], asyncio.Runner]) -> None:
        """Tell it in the worker thread, from which nothing comes out."""
        if self.off:
            return
        try:
            if self.is_async:
                runner().run(self.function(what))
            else:
                self.function(what)
        except BaseException as exc:
            self.failed(exc)
        else:
            self._failed = 0

    async def arun(self, what: Any) -> None:
        """Tell it in a task of the loop."""
        if self.off:
            return
        try:
            await self.function(what)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the worker is meant, not what it waits for
            self.failed(exc)
        except Exception as exc:
            self.failed(exc)
        else:
            self._failed = 0

    def failed(self, exc: BaseException) -> None:
        """Count a failure, say so the first time, and switch off after too many in a row."""
        self._count("callback_errors", 1)
        self._failed += 1
        if self._failed == 1:
            _log.warning(
                "%s=%r failed; the stream goes on, and further failures are only counted",
                self.name,
                self.function,
                exc_info=exc,
            )
        if self._failed >= self._limit:
            self.off = True
            _log.warning(
                "%s=%r failed %d times in a row and is not called any more",
                self.name,
                self.function,
                self._failed,
            )


#: Whom, what, and whether it is the end of a stream.
Item: TypeAlias = tuple[Listener, Any, bool]


def is_async(function: object) -> bool:
    """Whether calling it gives a coroutine; an object with an async `__call__` is one too."""
    called = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Waiting:
    """What waits for a worker; at most so many."""

    def __init__(self, settings: Queued, count: Count) -> None:
        self.settings = settings
        self.items: deque[Item] = deque()
        self._count = count

    @property
    def full(self) -> bool:
        return len(self.items) >= self.settings.queue_size

    def add(self, item: Item) -> bool:
        """Take in what comes, or let go of it or of the oldest; whether it is in."""
        if self.full:
            self._count("stream_events_dropped", 1)
            if self.settings.when_full != "drop_oldest" and not item[2]:
                return False
            # The end of a stream is worth more than a piece of it.
            place = next((n for n, (_, _, end) in enumerate(self.items) if not end), 0)
            del self.items[place]
        self.items.append(item)
        return True

    def clear(self) -> None:
        if self.items:
            self._count("stream_events_dropped", len(self.items))
            self.items.clear()


class _ThreadWorker(_Waiting):
    """A daemon thread, started by need, that ends after a second with nothing to do."""

    def __init__(self, settings: Queued, count: Count) -> None:
        super().__init__(settings, count)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def put(self, item: Item) -> None:
        with self._changed:
            if self.full and self.settings.when_full == "block" and self._may_wait():
                self._changed.wait_for(lambda: not self.full, self.settings.timeout)
            if self.add(item):
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._work, name="langmeter-streams", daemon=True
                    )
                    thread.start()
                    self._thread = thread
                elif len(self.items) == 1:
                    self._changed.notify_all()

    def _may_wait(self) -> bool:
        # A listener that streams by itself would wait for itself, and a loop for all its tasks.
        return threading.current_thread() is not self._thread and running_loop() is None

    def flush(self, timeout: float) -> bool:
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self.items and not self._busy, timeout)

    def _work(self) -> None:
        runners: list[asyncio.Runner] = []

        def runner() -> asyncio.Runner:
            if not runners:
                runners.append(asyncio.Runner())
            return runners[0]

        try:
            while (item := self._next()) is not None:
                listener, what, _ = item
                listener.run(what, runner)
                del item, listener, what
        finally:
            for made in runners:
                made.close()

    def _next(self) -> Item | None:
        with self._changed:
            self._busy = False
            if not self.items:
                self._changed.notify_all()
                if not self._changed.wait_for(lambda: self.items, _IDLE):
                    self._thread = None
                    return None
            self._busy = True
            item = self.items.popleft()
            if self.settings.when_full == "block":
                self._changed.notify_all()
            return item


class _LoopWorker(_Waiting):
    """A task of one event loop, there while there is something to do; used in that loop only."""

    def __init__(self, settings: Queued, count: Count) -> None:
        super().__init__(settings, count)
        self.task: asyncio.Task[None] | None = None

    def put(self, item: Item, loop: asyncio.AbstractEventLoop) -> None:
        if self.add(item) and self.task is None:
            # A context of its own: that of the stream which happens to be first is nobody else's.
            self.task = loop.create_task(self._work(), context=Context())

    async def _work(self) -> None:
        try:
            while self.items:
                listener, what, _ = self.items.popleft()
                await listener.arun(what)
        finally:
            self.task = None
            self.clear()


class Queue:
    """The queue of one `StreamingCallback`."""

    def __init__(self, settings: Queued, count: Count) -> None:
        self.settings = settings
        self._count = count
        self.reset()

    def reset(self) -> None:
        """Begin anew: a forked child has neither its parent's threads nor its loops."""
        self._thread = _ThreadWorker(self.settings, self._count)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWorker] = WeakKeyDictionary()

    def put(self, item: Item) -> None:
        """Hand an item to the worker whose it is."""
        loop = running_loop() if item[0].is_async else None
        if loop is None:
            self._thread.put(item)
            return
        worker = self._loops.get(loop)
        if worker is None:
            worker = self._loops.setdefault(loop, _LoopWorker(self.settings, self._count))
        worker.put(item, loop)

    def flush(self, timeout: float) -> bool:
        """Wait until the thread has told everything; False when it takes longer."""
        return self._thread.flush(timeout)

    async def aflush(self) -> None:
        """Wait until this loop's task has told everything."""
        worker = self._loops.get(asyncio.get_running_loop())
        if worker is not None and worker.task is not None:
            await asyncio.shield(worker.task)
