"""Reading a directory: what all its processes have counted, the dead among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from langmeter import _core
from langmeter._base.log import log
from langmeter._base.text import printable
from langmeter.directory.files import UNTOUCHED, arenas, has_counted, read_retired, stamp
from langmeter.directory.notes import read_notes
from langmeter.directory.options import require_linux
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot

#: Readings that are tried while files come and go in between.
_TRIES: Final = 50


class Directory:
    """A source that reads the files of a directory: nothing is written, and no process waits.

    Args:
        path: the directory.
        warn: called with a message for each file that is left out; by default it is logged, once
            for each file.

    Raises:
        ConfigError: the system is not Linux.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, warn: Callable[[str], object] | None = None
    ) -> None:
        require_linux(path)
        self.path = Path(path)
        self._warn = warn
        self._warned: set[Path] = set()

    def snapshot(self) -> Snapshot:
        """Return the sum of all processes up to now.

        Each figure of a process that counts on is read for itself: an event may be in one and not
        yet in another. No figure falls from one reading to the next.

        Raises:
            OSError: the directory cannot be read.
            SourceError: no meter counts into the directory, the file of the dead is damaged, or
                files were folded in between all the time.
        """
        retired, parts, _ = self._read(None, one_by_one=False)
        return sum(parts, retired)

    def others(self, own: Path | None) -> tuple[Snapshot, int]:
        """Return the sum of all processes but one, and how many of them have counted anything.

        Args:
            own: the file of that one; None where it has none.

        Raises:
            OSError, SourceError: as of `snapshot`.
        """
        retired, parts, processes = self._read(own, one_by_one=True)
        return sum(parts, retired), processes + sum(map(has_counted, parts))

    def _read(self, own: Path | None, *, one_by_one: bool) -> tuple[Snapshot, list[Snapshot], int]:
        for _ in range(_TRIES):
            before = stamp(self.path)
            retired = read_retired(self.path)
            paths = [
                path
                for path in arenas(self.path)
                if path.name not in retired.folded and path != own
            ]
            batches = [[path] for path in paths] if one_by_one else [paths]
            results = [_core.read_files(batch) for batch in batches]
            failures = [failure for _, failed in results for failure in failed]
            if not paths and own is None and before == UNTOUCHED:
                raise SourceError(f"{printable(self.path)}: no meter counts into this directory")
            if any(is_gone for _, is_gone, _ in failures) or stamp(self.path) != before:
                continue
            for path, _, why in failures:
                self._leave_out(path, why)
            parts = [Snapshot(native) for native, _ in results]
            return retired.snapshot + read_notes(paths), parts, retired.processes
        raise SourceError(f"{printable(self.path)}: changes faster than it can be read; try again")

    def _leave_out(self, path: Path, why: str) -> None:
        if path in self._warned:
            return
        self._warned.add(path)
        if self._warn is None:
            log.warning("left out: %s", why)
        else:
            self._warn(why)
