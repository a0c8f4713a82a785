"""Leases of a directory: of its processes, one judges each rule, and its alerts outlive it.

`alerts` holds the states as JSON, and a lock on one of its bytes for each rule, which the system
releases with the process that has it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet
from zlib import crc32

from langmeter._base.forks import at_fork
from langmeter.directory.files import locked, replaced
from langmeter.directory.options import DirectoryOptions
from langmeter.snapshot import Snapshot

_LOCKS: Final = "alerts.lock"
_STATES: Final = "alerts"
#: Seconds to wait for another process that writes states.
_TIMEOUT: Final = 1.0
#: `struct flock` of Linux with 64-bit offsets: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")


class DirectoryLeases:
    """Leases of the rules of one process.

    Args:
        options: of the directory.
    """

    def __init__(self, options: DirectoryOptions) -> None:
        self._path, self._mode = Path(options.path), options.mode
        self._descriptor: int | None = None
        self._saved: dict[str, list[dict[str, Any]]] = {}
        _all.add(self)

    def hold(self, titles: Iterable[str], now: float) -> dict[str, list[dict[str, Any]]]:
        """Take the rules that are free, by their titles, until this process ends.

        Returns the states of the alerts of those that this process holds. Raises OSError.
        """
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT
            self._descriptor = os.open(self._path / _LOCKS, flags, self._mode)
        held = [title for title in sorted(titles) if self._lock(self._descriptor, title)]
        states = self._states() if held else {}
        return {title: states.get(title, []) for title in held}

    def save(self, states: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write the states that have changed of rules that this process holds."""
        changed = {rule: state for rule, state in states.items() if self._saved.get(rule) != state}
        if not changed:
            return
        with locked(self._path, _TIMEOUT, self._mode) as mine:
            if mine:
                data = json.dumps({**self._states(), **changed}).encode()
                replaced(self._path / _STATES, data, self._mode)
                self._saved |= changed

    def release(self) -> None:
        """Give back what this process holds; a forked child does that before anything else."""
        if self._descriptor is not None:
            descriptor, self._descriptor, self._saved = self._descriptor, None, {}
            os.close(descriptor)

    def news(self, since: float, now: float) -> Iterator[tuple[float, float, Snapshot]]:
        """Yield nothing: who judges takes the differences of the whole directory."""
        return iter(())

    def _lock(self, descriptor: int, title: str) -> bool:
        if sys.platform != "linux":  # where there are no directories
            return False
        import fcntl

        # Of the open file, as `flock`, not of the process: closing another one releases nothing.
        lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, crc32(title.encode()), 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def _states(self) -> dict[str, list[dict[str, Any]]]:
        try:
            states = json.loads((self._path / _STATES).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return states if isinstance(states, dict) else {}


_all: Final[WeakSet[DirectoryLeases]] = WeakSet()


def _after_fork() -> None:
    for leases in list(_all):
        leases.release()


at_fork(after_in_child=_after_fork)
