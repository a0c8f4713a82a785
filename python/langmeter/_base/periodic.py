"""Periodic work: one daemon thread for the whole process, while needed.

A task is a bound method whose object is held weakly: when the object goes, so does the task, and
with the last task the thread. All tasks share the thread, so they have to be short; a user's
callback belongs into `langmeter._base.delivery`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from types import MethodType
from typing import Any, Final
from weakref import WeakMethod

from langmeter._base.check import real_number
from langmeter._base.forks import at_fork
from langmeter._base.log import log

#: Seconds that the thread waits for another task before it ends. With a meter for each request, a
#: thread for each would cost more than everything else of the meter.
_IDLE: Final = 0.25
#: Least and most seconds between two calls of a task.
_LEAST: Final = 0.001
_MOST: Final = 86_400.0


class Task:
    """One task. `cancel()` ends it; the end of its object does too.

    Attributes:
        failures: how often it raised; the first time was logged.
    """

    __slots__ = ("_due", "_method", "_owner", "_seconds", "failures")

    def __init__(
        self, owner: PeriodicTasks, seconds: float, method: Callable[[], Any], due: float
    ) -> None:
        self._owner = owner
        self._seconds = seconds
        self._method: WeakMethod[Callable[[], Any]] | None = WeakMethod(method, self._gone)
        self._due = due
        self.failures = 0

    @property
    def active(self) -> bool:
        """Whether it is still called."""
        return self._method is not None and self._method() is not None

    def cancel(self) -> None:
        """Call it no more; one that runs right now runs to its end. May be called again."""
        self._method = None
        self._owner._wake()

    def _gone(self, _: object) -> None:
        # The garbage collector calls this in any thread at any place: no lock may be taken here.
        self._owner._wake()

    def _run(self) -> None:
        method = self._method and self._method()
        if not method:
            return
        try:
            method()
        except BaseException as exc:  # the thread is the others' too
            self.failures += 1
            if self.failures == 1:
                log.warning(
                    "%s failed; further failures are only counted",
                    getattr(method, "__qualname__", method),
                    exc_info=exc,
                )


class PeriodicTasks:
    """The tasks and their thread; `by_hand`, there is none and the owner calls `run_due()`.

    `clock` gives seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = monotonic, *, by_hand: bool = False) -> None:
        self._clock = clock
        self._by_hand = by_hand
        self._tasks: list[Task] = []
        self._warned = False
        self._clear()

    def _clear(self) -> None:
        # Reentrant: a finaliser that runs while the lock is held may begin a task of its own.
        self._lock = threading.RLock()
        # Unlike a condition, its `put` may be called from a finaliser.
        self._news: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def _after_fork(self) -> None:
        # The thread is not here, and its lock may be held for ever. The tasks wait for `resume`:
        # a child that only executes another program shall not pay for a thread.
        self._clear()

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def every(
        self,
        seconds: float,
        method: Callable[[], Any],
        *,
        start: bool = True,
        first: float | None = None,
    ) -> Task:
        """Call a bound method every so many seconds, until its object goes.

        The first call is after `first` seconds; after `seconds` if it is None.

        What was missed, by a slow task or a computer that slept, is not made up for. With `start`
        false the thread is not started now, but by the next task or `resume()`. Raises
        ConfigError for seconds outside 0.001 to 86,400, TypeError if `method` is not bound.
        """
        real_number("seconds", seconds, _LEAST, _MOST)
        if not isinstance(method, MethodType):
            raise TypeError(
                f"method = {method!r}: must be a bound method, whose object says how long it lasts"
            )
        first = seconds if first is None else first
        task = Task(self, seconds, method, self._clock() + first)
        with self._lock:
            self._tasks.append(task)
        self._wake()
        if start:
            self.resume()
        return task

    def resume(self) -> None:
        """Start the thread if there is work and it is not there, as in a child after a fork."""
        if self._thread is not None or self._by_hand or not self._tasks:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="langmeter:periodic", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError as exc:
                    # At the end of the interpreter, in a subinterpreter, or out of threads.
                    self._thread = None
                    if not self._warned:
                        self._warned = True
                        log.warning("no thread for what is done at times: %s", exc)

    def run_due(self) -> float | None:
        """Call what is due; returns seconds until the next is, None when no task is left."""
        for task in list(self._tasks):
            if task._due <= self._clock():
                task._run()
                task._due += task._seconds
                if task._due <= (now := self._clock()):
                    task._due = now + task._seconds
        with self._lock:
            # In place: a finaliser may add a task meanwhile.
            for task in [task for task in self._tasks if not task.active]:
                self._tasks.remove(task)
                task._method = None  # it and its callback refer to each other
            first = min((task._due for task in self._tasks), default=None)
        return None if first is None else max(first - self._clock(), 0.0)

    def _wake(self) -> None:
        if self._thread is not None:
            self._news.put(None)

    def _work(self) -> None:
        while True:
            wait = self.run_due()
            try:
                self._news.get(timeout=_IDLE if wait is None else wait)
            except Empty:
                if wait is not None:
                    continue
                with self._lock:
                    if not self._tasks:
                        self._thread = None
                        return


#: The one of this process.
shared = PeriodicTasks()
at_fork(after_in_child=shared._after_fork)

every = shared.every
resume = shared.resume
