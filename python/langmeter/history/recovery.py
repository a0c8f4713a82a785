"""Rows of the history that a killed process had not written: noted by it, written by another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from langmeter._base.log import log
from langmeter.directory.options import DirectoryOptions
from langmeter.directory.unwritten import Row, identity, recover, save
from langmeter.history.options import HistoryOptions
from langmeter.history.schema import INTERVAL, location
from langmeter.history.store import Span, Store, counted, interval_of
from langmeter.snapshot import Snapshot

#: What one row has in the directory and in the database.
_BOTH: Final = ("host", "version", "process", "number", "started", "ended", "snapshot")


class Recovery:
    """Rows that a writer leaves in the directory, and takes from it.

    Args:
        directory: the directory.
        history: where it writes.
        arena: gives the file of this process; None while it counts in memory.
    """

    def __init__(
        self,
        directory: DirectoryOptions,
        history: HistoryOptions,
        arena: Callable[[], Path | None],
    ) -> None:
        self._path, self._mode = Path(directory.path), directory.mode
        self._interval = history.interval
        self._history = identity_of(history.url)
        self._arena = arena
        self._reported = False

    def note(self, row: Span, until: Snapshot) -> None:
        """Note a row before it is appended, and what was counted up to its end."""
        arena = self._arena()
        if arena is None:
            return
        values = {name: getattr(row, name) for name in _BOTH}
        noted = Row(history=self._history, interval=self._interval, rest=until, **values)
        try:
            save(arena, noted, self._mode)
        except OSError as error:
            self._failed(error)

    def recover(self, store: Store) -> None:
        """Append what processes that were killed have not."""
        try:
            recover(self._path, self._history, lambda row: _append(store, row), self._mode)
        except Exception as error:  # also whatever the driver of the database raises
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            reason = str(error).splitlines()[0]
            log.warning("what killed processes had not written stays unwritten: %s", reason)


def identity_of(url: str | os.PathLike[str]) -> str:
    """Return the identity of a history, whatever the password."""
    return identity(location(url).set(password=None).render_as_string())


def recover_all(directory: str | os.PathLike[str], url: str | os.PathLike[str]) -> int:
    """Append what processes that were killed have not; returns how many they were.

    Raises:
        OSError: the directory cannot be read or written.
        SourceError: a file is damaged, or the schema of the history is newer.
    """
    store = Store(url)
    return recover(Path(directory), identity_of(url), lambda row: _append(store, row), 0o600)


def _append(store: Store, row: Row) -> None:
    """Append a row and what follows it, in one transaction."""
    values = {name: getattr(row, name) for name in _BOTH}
    spans = [Span(level=INTERVAL, **values)] if row.number else []
    rest = counted(row.rest)
    if rest is not None:
        started, ended = interval_of(rest, row.interval, row.died)
        values |= {"number": row.number + 1, "started": started, "ended": ended, "snapshot": rest}
        spans.append(Span(level=INTERVAL, **values))
    store.append(spans)
