"""Writer of a history: one thread that takes differences, appends them, and tries again.

Nothing here is on the path of a call, and no failure of the database reaches it: what is not
written waits in memory, and beyond a bound neighbours are merged.
"""

from __future__ import annotations

import atexit
import os
import random
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import Final, Protocol
from weakref import WeakSet, ref

from langmeter import _core
from langmeter._base.forks import at_fork, at_worker_end
from langmeter._base.log import log
from langmeter._base.text import plural
from langmeter.history.options import HistoryOptions
from langmeter.history.recovery import Recovery
from langmeter.history.schema import INTERVAL
from langmeter.history.store import Span, Store, counted, interval_of, total
from langmeter.snapshot import Snapshot

#: Seconds between two tries, at first and at most; doubled each time.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
#: Seconds that a statement may take before it is given up.
_TIMEOUT: Final = 5.0

#: Seconds that a fork waits for a writing at most.
_FORK_WAITS: Final = 1.0


class _Pending:
    """A difference that waits, and what was counted up to its end.

    `number` is None until the first try, which fixes it.
    """

    __slots__ = ("number", "snapshot", "until")

    def __init__(self, snapshot: Snapshot, until: Snapshot) -> None:
        self.snapshot = snapshot
        self.until = until
        self.number: int | None = None


class Differences(Protocol):
    """Where a writer takes its differences."""

    def take(self) -> Snapshot | None:
        """Return what was counted since the last call; None where its recorder has gone."""

    @property
    def taken(self) -> Snapshot:
        """The snapshot up to which differences were taken."""


class Writer:
    """Appends what a meter counts to its history.

    Args:
        options: where, how often, and for how long.

    Raises:
        ConfigError: the URL is not one of a known database.
    """

    def __init__(self, options: HistoryOptions) -> None:
        self.options = options
        self._differences: Callable[[], Differences | None] = lambda: None
        self._recovery: Recovery | None = None
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        """Begin anew, as in a forked child: it has neither the thread nor what waits for it."""
        self._store = Store(self.options.url, timeout=_TIMEOUT)
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._number = 0
        self._pending: list[_Pending] = []
        self._changed = threading.Condition()
        # Unlike a condition, its `put` may be called from a finaliser.
        self._news: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._taking = threading.Lock()
        self._failures = 0
        self._retry_at = 0.0
        self._rolled_until = 0.0
        self._closed = False

    def observe(self, differences: Differences, recovery: Recovery | None = None) -> None:
        """Write these differences, which are held weakly.

        Args:
            differences: where they come from.
            recovery: of the meter's directory; None without.
        """
        self._differences = ref(differences, lambda _: self._news.put(None))
        self._recovery = recovery

    def begin(self) -> None:
        """Start the thread, unless started: the first call of this process begins."""
        if self._thread is not None or self._closed:
            return
        thread = threading.Thread(target=self._work, name="langmeter-history", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError as error:  # at the end of the interpreter, or out of threads
            self._thread = None
            log.debug("no thread for the history: %s", error)
            return

    def due(self) -> bool:
        """Wake the thread for the next difference."""
        if self._thread is None:
            return False
        self._news.put(None)
        return True

    def flush(self, timeout: float) -> Snapshot | None:
        """Write what was counted up to now; returns what could not be, None where all is written.

        Tries at once, also after a failure, and then again until `timeout` seconds have passed.
        """
        self.begin()
        self._collect()
        self._retry_at = 0.0
        if self._thread is None:
            self._write_all()
        else:
            self._news.put(None)
        with self._changed:
            self._changed.wait_for(
                lambda: not self._pending or self._thread is None, max(timeout, 0)
            )
            rest = [pending.snapshot for pending in self._pending]
        return total(rest) if rest else None

    def close(self, timeout: float) -> Snapshot | None:
        """Do the same, and end: what is returned is not written later."""
        self.flush(timeout)
        with self._changed:
            rest = [pending.snapshot for pending in self._pending]
            self._pending.clear()
            self._closed = True
        self._news.put(None)
        _writers.discard(self)
        return total(rest) if rest else None

    def _work(self) -> None:
        thread = threading.current_thread()
        if self._recovery is not None:
            self._recovery.note(self._row(Snapshot(), 0), Snapshot())
        while self._thread is thread:  # after a fork there may be another
            wait = max(self._retry_at - monotonic(), 0.0) if self._pending else None
            with suppress(Empty):
                self._news.get(timeout=wait)
                while not self._news.empty():
                    self._news.get_nowait()
            over = self._closed or self._differences() is None
            try:
                self._collect()
                self._write_all()
                self._recover()
                self._roll_up()
            except Exception as error:  # of ours: the thread goes on
                log.warning("the history of %s failed", self._name, exc_info=error)
            if over:
                self._end()

    def _end(self) -> None:
        """End the thread; what still waits is lost, unless `close` has returned it."""
        if self._pending and not self._closed:
            rest = total(pending.snapshot for pending in self._pending)
            calls = plural(rest.totals.calls, "call")
            log.warning("%s: %s not written: their meter has gone", self._name, calls)
        self._store.database.unpin()
        with self._changed:
            self._thread = None
            self._changed.notify_all()

    def _collect(self) -> None:
        """Take a difference, to be written."""
        # Both at once: what was taken is never out of sight of `flush`.
        with self._taking:
            differences = None if self._closed else self._differences()
            difference = None if differences is None else differences.take()
            if differences is not None and difference is not None:
                snapshot = counted(difference)
                if snapshot is not None:
                    self._add(snapshot, differences.taken)

    def _write_all(self) -> None:
        """Write what waits, unless it is too early to try again."""
        while monotonic() >= self._retry_at:
            with self._changed:
                pending = self._pending[0] if self._pending else None
                if pending is None:
                    return
                if pending.number is None:
                    pending.number = self._number = self._number + 1
            self._write(pending, pending.number)

    def _add(self, snapshot: Snapshot, until: Snapshot) -> None:
        with self._changed:
            self._pending.append(_Pending(snapshot, until))
            if len(self._pending) <= self.options.max_pending:
                return
            # One that was tried stays as it is: it may have been written, and its answer lost.
            first = 1 if self._pending[0].number is not None else 0
            fixed, free = self._pending[:first], self._pending[first:]
            pairs = [free[place : place + 2] for place in range(0, len(free), 2)]
            merged = [
                _Pending(total(one.snapshot for one in pair), pair[-1].until) for pair in pairs
            ]
            self._pending[:] = fixed + merged

    def _row(self, snapshot: Snapshot, number: int) -> Span:
        started, ended = interval_of(snapshot, self.options.interval)
        source = (socket.gethostname(), _core.__version__)
        return Span(INTERVAL, started, ended, *source, snapshot, self._process, number)

    def _write(self, pending: _Pending, number: int) -> None:
        row = self._row(pending.snapshot, number)
        if self._recovery is not None:
            self._recovery.note(row, pending.until)
        try:
            with _turn.lock:
                self._store.append([row])
                self._store.database.pin()
        except Exception as error:
            self._store.database.unpin()
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures)
            self._failures = min(self._failures + 1, 16)
            self._retry_at = monotonic() + pause * random.uniform(0.5, 1.0)
            if self._failures == 1:
                log.warning(
                    "the history %s cannot be written: %s; figures are kept and written later",
                    self._name,
                    str(error).splitlines()[0],
                )
            return
        if self._failures:
            log.info("the history %s is written again", self._name)
        self._failures = 0
        with self._changed:
            if pending in self._pending:  # unless `close` has returned it
                self._pending.remove(pending)
            self._changed.notify_all()

    def _recover(self) -> None:
        """Write what processes that were killed have left, unless the database does not answer."""
        if self._recovery is not None and not self._failures and not self._closed:
            with _turn.lock:
                self._recovery.recover(self._store)

    def _roll_up(self) -> None:
        """Roll finished hours up, once an hour; what fails is tried an hour later."""
        now = time()
        if now < self._rolled_until or not self._number or self._pending or self._closed:
            return
        self._rolled_until = (now // 3600 + 1) * 3600
        with suppress(Exception):
            more = True
            while more and self._news.empty():
                with _turn.lock:
                    more = self._store.roll_up(now, self.options.keep)

    def process(self) -> str:
        """Return the name of this process in the rows."""
        return self._process

    @property
    def _name(self) -> str:
        return self._store.database.name


#: Writers that are not closed.
_writers: Final[WeakSet[Writer]] = WeakSet()


def _close_all() -> None:
    """Close every writer at the end of the process, all within the longest of their times."""
    writers = list(_writers)
    deadline = monotonic() + max((writer.options.exit_timeout for writer in writers), default=0.0)
    for writer in writers:
        try:
            rest = writer.close(min(writer.options.exit_timeout, deadline - monotonic()))
        except Exception as error:
            log.warning("the history %s failed at the end", writer._name, exc_info=error)
            continue
        if rest is not None:
            calls = plural(rest.totals.calls, "call")
            log.warning("%s: %s not written when the process ended", writer._name, calls)


class _Turn:
    """Lock that a writer holds while it is at its database.

    A fork waits for it, and closes files: the child of a process with an open file of SQLite
    believes that it has its parent's locks.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._held = False

    def before_fork(self) -> None:
        self._held = self.lock.acquire(timeout=_FORK_WAITS)
        for writer in list(_writers):
            with suppress(Exception):
                writer._store.database.unpin()

    def after_in_parent(self) -> None:
        if self._held:
            self.lock.release()

    def after_in_child(self) -> None:
        self.lock = threading.Lock()
        for writer in list(_writers):
            writer._reset()


_turn: Final = _Turn()


@contextmanager
def at_database() -> Iterator[None]:
    """Keep a fork waiting while this block is at a database."""
    with _turn.lock:
        yield


atexit.register(_close_all)
at_worker_end(_close_all)
at_fork(
    before=_turn.before_fork,
    after_in_parent=_turn.after_in_parent,
    after_in_child=_turn.after_in_child,
)
