"""Differences of snapshots: an observer that takes what was counted since its last look."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from time import time
from weakref import WeakMethod

from langmeter._base import periodic
from langmeter._base.log import log
from langmeter._base.observer import ObservedRecorder, RecorderObserver
from langmeter.directory.reading import Directory
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import State

__all__ = ["DifferenceObserver", "DirectoryObserver"]


class DifferenceObserver(RecorderObserver[ObservedRecorder]):
    """Takes what was counted since it last looked; each observer has its own previous snapshot.

    Every `seconds` it calls `due`, in the thread of all periodic tasks, which hands the work to
    another thread; that calls `take()`. Until then `due` is not called again: a slow thread gets
    longer differences, and loses nothing.

    Args:
        recorder: what is observed; held weakly.
        seconds: between two calls of `due`, 0.001 to 86,400.
        snapshot: a bound method that takes snapshots; its object is held weakly.
        due: called when it is time for a difference; returns False where it could not hand it on.
        begin: called when the observer starts, in each process.
        aligned: whether `due` is called when a whole number of `seconds` has passed of the day in
            UTC, and not of the observer's own time.
        tasks: whose thread calls `due`.
    """

    def __init__(
        self,
        recorder: ObservedRecorder,
        seconds: float,
        snapshot: Callable[[], Snapshot],
        due: Callable[[], bool],
        *,
        begin: Callable[[], object] | None = None,
        aligned: bool = False,
        tasks: periodic.PeriodicTasks = periodic.shared,
    ) -> None:
        super().__init__(recorder, seconds, tasks)
        self._snapshot = WeakMethod(snapshot)
        self._due = due
        self._begin = begin
        self._aligned = aligned
        self._previous = Snapshot()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Make a new lock: another thread may have held it when the process forked."""
        self._lock = threading.Lock()
        self._waiting = False

    def start(self) -> None:
        """Begin, unless begun; in a forked child, go on."""
        if self._begin is not None:
            self._begin()
        super().start()

    def _first(self) -> float:
        return self._seconds - time() % self._seconds if self._aligned else self._seconds

    def take(self) -> Snapshot | None:
        """Return what was counted since the last call; None where the recorder has gone.

        After a fork, the first difference of the child is all that the child counted.
        """
        self._waiting = False
        with self._lock:
            snapshot = self._snapshot()
            if snapshot is None:
                return None
            now = snapshot()
            difference, self._previous = now - self._previous, now
            return difference

    @property
    def taken(self) -> Snapshot:
        """The snapshot up to which differences were taken."""
        return self._previous

    @property
    def state(self) -> State:
        """The state as of the last difference."""
        return self.taken.state

    def _observe(self, recorder: ObservedRecorder) -> None:
        if not self._waiting:
            self._waiting = True  # before: the other thread may be at once
            if not self._due():
                self._waiting = False


class DirectoryObserver(DifferenceObserver):
    """Takes what all processes of a directory counted since it last looked.

    The first difference is what this process has counted by then: what others counted before was
    judged by one of them.

    Args:
        directory: the directory.
        recorder, seconds, snapshot, due: as of `DifferenceObserver`.
    """

    def __init__(
        self,
        directory: Directory,
        recorder: ObservedRecorder,
        seconds: float,
        snapshot: Callable[[], Snapshot],
        due: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self._is_reported = False
        super().__init__(recorder, seconds, snapshot, due)

    def reset_after_fork(self) -> None:
        """Begin anew: the child has another file."""
        super().reset_after_fork()
        self._total: Snapshot | None = None
        self._is_first = True

    def take(self) -> Snapshot | None:
        """Return what was counted since the last call; None where the recorder has gone.

        Where the directory cannot be read, which is logged once, that is nothing; the next
        difference then has what was counted meanwhile.
        """
        self._waiting = False
        with self._lock:
            snapshot = self._snapshot()
            if snapshot is None:
                return None
            difference = snapshot() if self._is_first else Snapshot()
            try:
                total = self._directory.snapshot()
            except (OSError, SourceError) as error:
                if not self._is_reported:
                    self._is_reported = True
                    log.warning("alerts are not judged: %s", error)
                return Snapshot()
            if self._total is not None:
                with suppress(ValueError):  # it was emptied meanwhile: begin from what there is
                    difference = total - self._total
            self._total, self._is_first, self._is_reported = total, False, False
            return difference

    def skip(self) -> None:
        """Go on from now: another process has judged what came before."""
        with self._lock:
            self._is_first = False
            with suppress(OSError, SourceError):
                self._total = self._directory.snapshot()

    @property
    def state(self) -> State:
        """The state of all processes as of the last difference."""
        return State() if self._total is None else self._total.state
