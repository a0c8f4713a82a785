"""Calls of users' callbacks: in the thread of the event, or through a bounded queue by a worker.

This is the only place that calls a function of the user's. A queue has two kinds of workers, each
started when needed and ended when idle: a thread, and for coroutine functions used in an event
loop a task of that loop. Each makes one call at a time, in order, so that the pieces of one stream
arrive in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from langmeter._base.check import refusal
from langmeter._base.forks import at_fork
from langmeter._base.log import log
from langmeter._base.options import check_options, choice, real, whole

#: Seconds that an idle worker thread waits before it ends.
_IDLE: Final = 1.0
_POLICIES: Final = ("drop_oldest", "drop_newest", "block")
_MAX_SIZE: Final = 1_000_000

#: Adds to a named counter of `dropped`.
Count: TypeAlias = Callable[[str, int], object]


@dataclass(frozen=True, slots=True)
class Queued:
    """Delivery through a queue, so that no listener slows a stream.

    Attributes:
        queue_size: most items that wait, 1 to 1,000,000.
        when_full: "drop_oldest"; "drop_newest"; or "block", which waits for room, up to `timeout`
            seconds, and then drops the newest. An event loop is never made to wait: there "block"
            means "drop_newest". The end of a stream is dropped only if nothing but ends waits.
        timeout: seconds, 0 or more.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    queue_size: int = field(default=1024, metadata=whole(1, _MAX_SIZE))
    when_full: Literal["drop_oldest", "drop_newest", "block"] = field(
        default="drop_oldest", metadata=choice(*_POLICIES)
    )
    timeout: float = field(default=1.0, metadata=real(0, threading.TIMEOUT_MAX, "seconds"))

    def __post_init__(self) -> None:
        check_options(self)


class Listener:
    """A callback of the user's, called with one argument until it has failed too often in a row.

    Args:
        name: of the keyword that it was given as: "on_event".
        function: a function of one argument, plain or async.
        queue: where its calls wait; None to call it in the thread of the event.
        count: counts its failures as `callback_errors`, and what found no room as `dropped_as`.
        max_failures: failures in a row after which it is called no more.
        dropped_as: counter of the calls that the queue had no room for.
    """

    __slots__ = (
        "_failed",
        "_limit",
        "_queue",
        "count",
        "disabled",
        "dropped_as",
        "function",
        "is_async",
        "name",
    )

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        queue: Queue | None,
        count: Count,
        max_failures: float = inf,
        dropped_as: str = "stream_events_dropped",
    ) -> None:
        self.name = name
        self.function = function
        self.is_async = is_async(function)
        self.disabled = False
        self.count = count
        self.dropped_as = dropped_as
        self._queue = queue
        self._limit = max_failures
        self._failed = 0

    def notify(self, what: Any, *, end: bool = False) -> bool:
        """Call it, now or soon; only Ctrl-C and the like leave an inline listener.

        Returns False where it is switched off, or its queue is full.
        """
        if self.disabled:
            return False
        if self._queue is not None:
            return self._queue.put((self, what, end))
        try:
            self.function(what)
        except Exception as exc:
            self.failed(exc)
        else:
            self._failed = 0
        return True

    def run(self, what: Any, runner: Callable[[], asyncio.Runner]) -> None:
        """Call it in the worker thread; nothing that it raises leaves."""
        if self.disabled:
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
        """Call and await it in a task of the loop."""
        if self.disabled:
            return
        try:
            await self.function(what)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the worker itself is cancelled, not what the listener awaits
            self.failed(exc)
        except Exception as exc:
            self.failed(exc)
        else:
            self._failed = 0

    def failed(self, exc: BaseException) -> None:
        """Count a failure, log the first in a row, and switch off after too many in a row."""
        self.count("callback_errors", 1)
        self._failed += 1
        if self._failed == 1:
            log.warning(
                "%s=%r failed; the call goes on, and further failures are only counted",
                self.name,
                self.function,
                exc_info=exc,
            )
        if self._failed >= self._limit:
            self.disabled = True
            log.warning(
                "%s=%r failed %d times in a row and is not called any more",
                self.name,
                self.function,
                self._failed,
            )


#: The listener, its argument, and whether that is the end of a stream.
Item: TypeAlias = tuple[Listener, Any, bool]


def is_async(function: object) -> bool:
    """Return whether a call of it gives a coroutine, also by an async `__call__`."""
    called = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def plain_function(
    name: str, function: Callable[[Any], Any], argument: str
) -> Callable[[Any], Any]:
    """Return a callback of one argument if it is a plain function; raises ConfigError otherwise."""
    if callable(function) and not is_async(function):
        return function
    remedy = ""
    if callable(function):
        value = argument.lower()
        remedy = (
            "an async one would never be awaited: pass e.g. "
            f"lambda {value}: loop.call_soon_threadsafe(queue.put_nowait, {value})"
        )
    raise refusal(name, f"a plain function of one {argument}", function, remedy)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread; None without one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Waiting:
    """Bounded queue of the items that wait for one worker."""

    def __init__(self, settings: Queued) -> None:
        self.settings = settings
        self.items: deque[Item] = deque()

    @property
    def full(self) -> bool:
        return len(self.items) >= self.settings.queue_size

    def add(self, item: Item) -> bool:
        """Append an item, dropping it or the oldest if there is no room; whether it was added."""
        if self.full:
            if self.settings.when_full != "drop_oldest" and not item[2]:
                _count_dropped(item)
                return False
            # The end of a stream is worth more than a piece of it.
            place = next((n for n, (_, _, end) in enumerate(self.items) if not end), 0)
            _count_dropped(self.items[place])
            del self.items[place]
        self.items.append(item)
        return True

    def clear(self) -> None:
        while self.items:
            _count_dropped(self.items.popleft())


def _count_dropped(item: Item) -> None:
    listener = item[0]
    listener.count(listener.dropped_as, 1)


class _ThreadWorker(_Waiting):
    """A daemon thread, started when needed, that ends after an idle second."""

    def __init__(self, settings: Queued) -> None:
        super().__init__(settings)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False

    def put(self, item: Item) -> bool:
        with self._changed:
            if self.full and self.settings.when_full == "block" and self._may_wait():
                self._changed.wait_for(lambda: not self.full, self.settings.timeout)
            added = self.add(item)
            if added:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._work, name="langmeter-callbacks", daemon=True
                    )
                    thread.start()
                    self._thread = thread
                elif len(self.items) == 1:
                    self._changed.notify_all()
            return added

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
    """A task of one event loop that ends when idle; used in that loop only."""

    def __init__(self, settings: Queued) -> None:
        super().__init__(settings)
        self.task: asyncio.Task[None] | None = None

    def put(self, item: Item, loop: asyncio.AbstractEventLoop) -> bool:
        added = self.add(item)
        if added and self.task is None:
            # A context of its own, not that of the stream which happens to be first.
            self.task = loop.create_task(self._work(), context=Context())
        return added

    async def _work(self) -> None:
        try:
            while self.items:
                listener, what, _ = self.items.popleft()
                await listener.arun(what)
        finally:
            self.task = None
            self.clear()


class Queue:
    """Bounded queue of calls of listeners, with the workers that make them."""

    def __init__(self, settings: Queued) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Begin anew: a forked child has neither the threads nor the loops of its parent."""
        self._thread = _ThreadWorker(self.settings)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopWorker] = WeakKeyDictionary()

    def put(self, item: Item) -> bool:
        """Hand an item to the worker of its listener; returns False where there was no room."""
        loop = running_loop() if item[0].is_async else None
        if loop is None:
            return self._thread.put(item)
        worker = self._loops.get(loop)
        if worker is None:
            worker = self._loops.setdefault(loop, _LoopWorker(self.settings))
        return worker.put(item, loop)

    def flush(self, timeout: float) -> bool:
        """Wait until the thread has made every call; False when that takes longer."""
        return self._thread.flush(timeout)

    async def aflush(self) -> None:
        """Wait until the task of this loop has made every call."""
        worker = self._loops.get(asyncio.get_running_loop())
        if worker is not None and worker.task is not None:
            await asyncio.shield(worker.task)


#: Queue of the callbacks that belong to no stream: crossed thresholds of budgets, stalls.
notices: Final = Queue(Queued(queue_size=1024, when_full="drop_newest"))


def notice_listener(name: str, function: Callable[[Any], Any], count: Count) -> Listener:
    """Return a listener that is called in a thread of its own, soon, and is never switched off.

    A call that finds 1,024 others waiting is dropped and counted as `callback_errors`.
    """
    return Listener(name, function, notices, count, dropped_as="callback_errors")


at_fork(after_in_child=notices.reset)
