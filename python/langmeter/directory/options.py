"""Settings of a directory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from langmeter._base.check import refusal
from langmeter._base.options import Rule, check_options, ruled, whole

#: Permission bits of a file that only its user reads and writes.
PRIVATE: Final = 0o600


def _path(name: str, path: object) -> object:
    if isinstance(path, str | os.PathLike) and os.fspath(path):
        return path
    raise refusal(name, "the path of a directory", path, 'write "/run/langmeter"')


_PATH: Final = ruled(Rule(_path, {"type": "string", "minLength": 1}))


def require_linux(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError on other systems: they lack the locks and mappings that files need."""
    if sys.platform != "linux":
        remedy = "export by OTLP (langmeter.exporters.otlp), or write a history"
        raise refusal("directory", f"left out on {sys.platform}", os.fspath(path), remedy)


@dataclass(frozen=True, kw_only=True)
class DirectoryOptions:
    """Where processes count into files, and who may read these.

    Attributes:
        path: a directory on this machine, best in memory (`/run`, `/dev/shm`); made if missing. Not
            one of a network file system: locks and mappings do not hold there.
        mode: permission bits of the files, 0o400 to 0o777; 384 (0o600) for the user alone.

    Raises:
        ConfigError: values are of the wrong type or out of range, or the system is not Linux.
    """

    path: str | os.PathLike[str] = field(default="", metadata=_PATH)
    mode: int = field(default=PRIVATE, metadata=whole(0o400, 0o777, "write 384 for 0o600"))

    def __post_init__(self) -> None:
        check_options(self)
        _path("path", self.path)  # a file may leave it out
        require_linux(self.path)


def _directory(name: str, directory: object) -> DirectoryOptions | None:
    if directory is None or directory is False:
        return None
    if isinstance(directory, DirectoryOptions):
        return directory
    if isinstance(directory, str | os.PathLike) and os.fspath(directory):
        return DirectoryOptions(path=directory)
    allowed = "the path of a directory, a DirectoryOptions (a table in a file), or False"
    raise refusal(name, allowed, directory, 'write "/run/langmeter"')


def _of_file(name: str, directory: object, folder: Path) -> DirectoryOptions | None:
    options = _directory(name, directory)
    return None if options is None else replace(options, path=str(folder / options.path))


#: Rule of the option `directory`.
DIRECTORY: Final = ruled(
    Rule(
        _directory,
        {"anyOf": [{"type": "string", "minLength": 1}, {"const": False}]},
        _of_file,
        table=DirectoryOptions,
        variable="dir",
    )
)
