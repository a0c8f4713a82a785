"""Notes of a process beside its file: what is in no cell of it, written anew when it changes.

`PID-RANDOM.state` is a snapshot without series: anomalies, names of labels, and `snapshot.state`,
which ends with its process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from langmeter import _core
from langmeter.directory.files import replaced
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import State

NOTES: Final = ".state"


def notes_of(arena: Path) -> Path:
    """Return the name of the notes that belong to a file."""
    return arena.with_suffix(NOTES)


def notes(changes: Sequence[Any], labels: Sequence[str], state: State) -> Snapshot:
    """Return the notes of a process: its anomalies, the names of its labels, its state."""
    native = _core.Snapshot.from_parts(
        [],
        in_flight=0,
        peak=0,
        anomalies=changes,
        started_at=0,
        taken_at=0,
        dropped={},
        origin=None,
        labels=labels,
    )
    return Snapshot(native, state)


def write_notes(arena: Path, taken: Snapshot, mode: int) -> None:
    """Replace the notes of a process; raises OSError."""
    replaced(notes_of(arena), taken.to_bytes(), mode)


def read_notes(arenas: Iterable[Path]) -> Snapshot:
    """Return the sum of the notes of processes; of those that have ended, without the state.

    Notes that are missing or damaged are left out: they hold no counts.
    """
    total = Snapshot()
    for arena in arenas:
        with suppress(OSError, ValueError):
            read = Snapshot.from_bytes(notes_of(arena).read_bytes())
            if read.state and not _core.is_held(arena):
                read = Snapshot(read._native)
            total += read
    return total
