"""Upkeep of a directory: a file to count into, room ahead of need, files of the dead."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final
from weakref import WeakMethod

from langmeter import _core
from langmeter._base import periodic
from langmeter._base.log import log
from langmeter._base.observer import RecorderObserver
from langmeter.directory.files import new_arena
from langmeter.directory.folding import fold
from langmeter.directory.notes import write_notes
from langmeter.directory.options import DirectoryOptions
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import State

#: Seconds between two looks at the room that is left.
SECONDS: Final = 1.0
#: Looks between two foldings.
_FOLD_EVERY: Final = 10
#: What is counted where figures are in memory only.
_UNAVAILABLE: Final = "directory_unavailable"


def attach(recorder: _core.Recorder, options: DirectoryOptions) -> bool:
    """Let a recorder that has counted nothing count into a file; False where it stays in memory.

    That is logged and counted: no failure of a directory reaches a call.
    """
    directory = Path(options.path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        recorder.attach(new_arena(directory), options.mode)
    except OSError as error:
        recorder.dropped(_UNAVAILABLE)
        log.warning(
            "%s: %s; this process counts in memory, where others do not see it",
            directory,
            error.strerror or error,
        )
        return False
    return True


class Keeper(RecorderObserver[_core.Recorder]):
    """Looks after the file of a recorder, its notes, and the files of the dead.

    Args:
        recorder: one that counts into a file of the directory.
        options: of the directory.
        notes: bound method that returns the notes of this process; its object is held weakly.
    """

    def __init__(
        self,
        recorder: _core.Recorder,
        options: DirectoryOptions,
        notes: Callable[[], Snapshot],
        tasks: periodic.PeriodicTasks = periodic.shared,
    ) -> None:
        super().__init__(recorder, SECONDS, tasks)
        self._options = options
        self._notes = WeakMethod(notes)
        self._written: tuple[Path, Snapshot] | None = None
        self._looks = 0
        self._said: set[str] = set()

    def _observe(self, recorder: _core.Recorder) -> None:
        if not recorder.grow_file():
            self._say(recorder, "has no room left; new models and components are in memory only")
        if recorder.file is not None:
            try:
                self._write_notes(recorder.file)
            except OSError as error:
                self._say(None, f"gets no state of this process: {error}")
        if self._looks % _FOLD_EVERY == 0:
            try:
                for why in fold(self._options.path, mode=self._options.mode).refused:
                    self._say(None, f"left alone: {why}")
            except (OSError, SourceError) as error:
                self._say(recorder, f"cannot be folded: {error}")
        self._looks += 1

    def _write_notes(self, arena: Path) -> None:
        # The time of the file is the last at which its process lived.
        os.utime(arena)
        if (take := self._notes()) is None:
            return
        notes = take()
        current = (arena, _undated(notes))
        if current != self._written:
            write_notes(arena, notes, self._options.mode)
            self._written = current

    def _say(self, recorder: _core.Recorder | None, what: str) -> None:
        """Log a message once, and count it."""
        if what in self._said or len(self._said) > _MOST:
            return
        self._said.add(what)
        if recorder is not None:
            recorder.dropped(_UNAVAILABLE)
        log.warning("%s %s", self._options.path, what)


def _undated(notes: Snapshot) -> Snapshot:
    """Return the notes as if they had been taken at one moment."""
    origins = (replace(each, taken_at_unix_nano=0) for each in notes.state.origins)
    return Snapshot(notes._native, State(tuple(origins)))


_MOST: Final = 16
