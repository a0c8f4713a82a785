"""Rows that a killed process had not written to its history, kept until another does.

Before each row is appended, `PID-RANDOM.written` gets that row and what was counted up to its end:
whether the row is in the database, only that can tell. When the file of the dead is folded,
`PID-RANDOM.unwritten` gets the same row, and what came after it. Whoever writes the same history
appends both: a row is there once, however often it is appended.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from langmeter._base.log import log
from langmeter._base.text import plural
from langmeter.directory.files import arenas, locked, replaced
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot

WRITTEN: Final = ".written"
UNWRITTEN: Final = ".unwritten"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a history, of one process, and what follows it.

    Attributes:
        history: which history, as of `identity`.
        host, version, process, number: of the row; the one that follows has the next number.
        interval: seconds of the history's intervals.
        started, ended: of the row, Unix seconds.
        snapshot: figures of the row.
        rest: in `.written` what was counted up to its end; in `.unwritten` what came after it.
        died: when the process was last seen alive, Unix seconds; 0.0 in `.written`.
    """

    history: str
    host: str
    version: str
    process: str
    number: int
    interval: int
    started: int
    ended: int
    snapshot: Snapshot
    rest: Snapshot
    died: float = 0.0


def identity(url: str) -> str:
    """Return what two processes that write one history have in common, and no password."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def save(arena: Path, row: Row, mode: int, suffix: str = WRITTEN) -> None:
    """Write a row beside the file of its process; raises OSError."""
    parts = (row.snapshot.to_bytes(), row.rest.to_bytes())
    head = {name: getattr(row, name) for name in _HEAD}
    header = json.dumps({"format": _FORMAT, **head, "size": len(parts[0])}).encode()
    replaced(arena.with_suffix(suffix), header + b"\n" + b"".join(parts), mode)


_HEAD: Final = tuple(name for name in Row.__slots__ if name not in ("snapshot", "rest"))


def _load(path: Path) -> Row:
    """Inverse of `save`; raises OSError, or SourceError where the file is not ours."""
    head, _, data = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(head)
        if header.pop("format") > _FORMAT:
            raise SourceError(f"{path}: made by a newer langmeter; upgrade langmeter")
        size = header.pop("size")
        parts = (Snapshot.from_bytes(data[:size]), Snapshot.from_bytes(data[size:]))
        return Row(snapshot=parts[0], rest=parts[1], **header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path}: not a file of langmeter: {error}") from error


def leave(arena: Path, last: Snapshot, mode: int) -> None:
    """Leave what a dead process had not written, before its file goes; raises OSError.

    Args:
        arena: the file.
        last: what it has counted in all.
        mode: permission bits.
    """
    written = arena.with_suffix(WRITTEN)
    try:
        row = _load(written)
        rest = last - row.rest
    except FileNotFoundError:
        return
    except ValueError as error:
        log.warning("what a process had not written to its history is lost: %s", error)
        return
    values = {name: getattr(row, name) for name in (*_HEAD, "snapshot")}
    values["died"] = min(arena.stat().st_mtime + 1.0, time.time())
    save(arena, Row(**values, rest=rest), mode, UNWRITTEN)


def unwritten(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the files of what was left; raises OSError where the directory cannot be read."""
    return arenas(Path(directory), UNWRITTEN)


def recover(directory: Path, history: str, append: Callable[[Row], object], mode: int) -> int:
    """Append what dead processes had not written to a history; returns how many they were.

    Args:
        directory: where it was left.
        history: identity of the history.
        append: appends both rows in one transaction; what it raises leaves the file where it is.
        mode: permission bits of the lock.

    Raises:
        OSError: the directory cannot be read or written.
        SourceError: a file is damaged, or of a newer langmeter.
    """
    paths = unwritten(directory)
    if not paths:
        return 0
    recovered = 0
    with locked(directory, 0.0, mode) as mine:
        for path in paths if mine else ():
            with suppress(FileNotFoundError):  # another was first
                row = _load(path)
                if row.history == history:
                    append(row)
                    os.unlink(path)
                    recovered += 1
    if recovered:
        log.info("the history has what %s had not written", plural(recovered, "killed worker"))
    return recovered
