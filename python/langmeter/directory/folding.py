"""Folding: the figures of processes that have ended go into one file, each exactly once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Final, NamedTuple

from langmeter import _core
from langmeter.directory.files import (
    UNFINISHED,
    Retired,
    arenas,
    has_counted,
    locked,
    read_retired,
    write_retired,
)
from langmeter.directory.notes import NOTES, read_notes
from langmeter.directory.unwritten import WRITTEN, leave
from langmeter.snapshot import Snapshot

#: Seconds after which a file that its maker did not finish is removed.
_UNFINISHED_FOR: Final = 60.0


class Folding(NamedTuple):
    """The result of a folding.

    Attributes:
        folded: files of ended processes whose figures were added to those of the retired.
        living: processes that go on.
        refused: what is wrong with each file that was left alone.
        busy: another process folds at this moment; nothing was done.
    """

    folded: int
    living: int
    refused: tuple[str, ...]
    busy: bool


def fold(path: str | os.PathLike[str], *, timeout: float = 0.0, mode: int = 0o600) -> Folding:
    """Add the figures of processes that have ended to those of the retired, and remove their files.

    A process has ended when the lock on its file is free: the system releases it, however the
    process ends. Its calls in flight become abandoned ones. A crash at any point loses no figure
    and counts none twice: the retired are replaced as a whole, with the names of the folded files.

    Args:
        path: the directory.
        timeout: seconds to wait for another process that folds.
        mode: permission bits of the file of the retired.

    Raises:
        ConfigError: the system is not Linux.
        OSError: the directory cannot be read or written.
        SourceError: the file of the retired is damaged or of a newer langmeter.
    """
    directory = Path(path)
    with locked(directory, timeout, mode) as mine:
        if not mine:
            return Folding(0, 0, (), busy=True)
        return _fold(directory, mode)


def _fold(directory: Path, mode: int) -> Folding:
    retired = read_retired(directory)
    dead, living = [], 0
    for path in arenas(directory):
        if path.name in retired.folded:
            _remove_all(path)  # a crash came between the two
        elif _is_held(path):
            living += 1
        else:
            dead.append(path)
    for path in arenas(directory, UNFINISHED):
        with suppress(OSError):
            if not _is_held(path) and time() - path.stat().st_mtime > _UNFINISHED_FOR:
                _remove(path)
    total, processes = retired.snapshot, retired.processes
    folded: list[Path] = []
    refused: list[str] = []
    for path in dead:
        native, failures = _core.read_files([path], dead=True)
        if failures:
            refused += [why for _, _, why in failures]
            continue
        snapshot = Snapshot(native)
        total += snapshot + read_notes([path])
        leave(path, snapshot, mode)
        processes += has_counted(snapshot)
        folded.append(path)
    if folded:
        names = frozenset(path.name for path in folded)
        write_retired(directory, Retired(total, names, processes), mode)
        for path in folded:
            _remove_all(path)
    return Folding(len(folded), living, tuple(refused), busy=False)


def _is_held(path: Path) -> bool:
    """Whether a process has the lock; one of a file that has just gone is not asked for again."""
    try:
        return _core.is_held(path)
    except FileNotFoundError:
        return True


def _remove_all(arena: Path) -> None:
    """Remove the file of a process that was folded, after those that belong to it."""
    for suffix in (NOTES, WRITTEN):
        _remove(arena.with_suffix(suffix))
    _remove(arena)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
