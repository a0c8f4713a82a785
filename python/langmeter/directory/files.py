"""Files of a directory: their names, the lock, and what the dead have left.

`PID-RANDOM.arena` belongs to a living process, which holds its lock, or to a dead one; other files
with its name belong to the same process. `retired`
holds the sum of the dead that were folded, and the names of their files. `lock` is held by whoever
folds.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, NamedTuple

from langmeter.directory.options import require_linux
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot

ARENA: Final = ".arena"
#: A file that is being made; its maker renames it.
UNFINISHED: Final = ".new"
_RETIRED: Final = "retired"
_LOCK: Final = "lock"
#: Version of the file of the retired.
_FORMAT: Final = 1
_PAUSE: Final = 0.005
#: Stamp of a directory in which none was folded.
UNTOUCHED: Final = (0, 0, 0)


def new_arena(directory: Path) -> Path:
    """Return the name of a file for this process."""
    return directory / f"{os.getpid()}-{secrets.token_hex(6)}{ARENA}"


def arenas(directory: Path, suffix: str = ARENA) -> list[Path]:
    """Return the files of processes, by name; raises OSError where the directory cannot be read."""
    with os.scandir(directory) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.name.endswith(suffix))


class Retired(NamedTuple):
    """The dead that were folded.

    Attributes:
        snapshot: their sum.
        folded: names of their files that may still be there: they are counted already.
        processes: how many of them had counted anything.
    """

    snapshot: Snapshot
    folded: frozenset[str]
    processes: int


NOTHING: Final = Retired(Snapshot(), frozenset(), 0)


def read_retired(directory: Path) -> Retired:
    """Return what the dead have left; raises OSError, or SourceError where the file is not ours."""
    path = directory / _RETIRED
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return NOTHING
    head, _, rest = data.partition(b"\n")
    try:
        header = json.loads(head)
        if header["format"] > _FORMAT:
            raise SourceError(f"{path}: made by a newer langmeter; upgrade langmeter")
        folded, processes = frozenset(header["folded"]), int(header["processes"])
        return Retired(Snapshot.from_bytes(rest), folded, processes)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: not a file of langmeter: {error}") from error


def write_retired(directory: Path, retired: Retired, mode: int) -> None:
    """Replace the file of the dead as a whole."""
    folded, processes = sorted(retired.folded), retired.processes
    header = json.dumps({"format": _FORMAT, "folded": folded, "processes": processes})
    data = header.encode() + b"\n" + retired.snapshot.to_bytes()
    replaced(directory / _RETIRED, data, mode, sync=True)


def replaced(path: Path, data: bytes, mode: int, *, sync: bool = False) -> None:
    """Replace a file as a whole; with `sync` it outlives the machine."""
    new = path.with_name(f"{path.name}{UNFINISHED}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(new, path)


def has_counted(snapshot: Snapshot) -> bool:
    """Whether a process has counted anything."""
    native = snapshot._native
    return bool(native.dropped or native.in_flight or native.series())


def stamp(directory: Path) -> tuple[int, int, int]:
    """Return what changes whenever the dead are folded."""
    try:
        status = os.stat(directory / _RETIRED)
    except FileNotFoundError:
        return UNTOUCHED
    return (status.st_ino, status.st_mtime_ns, status.st_size)


@contextmanager
def locked(directory: Path, timeout: float, mode: int) -> Iterator[bool]:
    """Hold the lock of a directory; gives False where another has held it for `timeout` seconds.

    The end of a process releases it, however that comes.

    Raises:
        ConfigError: the system is not Linux.
        OSError: the directory cannot be written.
    """
    require_linux(directory)
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, mode)
    try:
        deadline = monotonic() + timeout
        while True:
            with suppress(BlockingIOError):
                _lock(descriptor)
                yield True
                return
            if monotonic() >= deadline:
                break
            sleep(_PAUSE)
        yield False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock of a file; raises BlockingIOError where another process has it."""
    if sys.platform != "win32":  # there is no `fcntl`, and no directory
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
