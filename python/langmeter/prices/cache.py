"""Keep the price table in the user's cache folder: only a machine's first process builds it.

A file is used when it belongs to this user, only this user may write to it, its name fits this
version of genai-prices, byte for byte, and its checksum is right; otherwise it is written again. A
folder that cannot be written to costs the time of building the table, and nothing else.

`LANGMETER_CACHE` names another folder (an absolute path); when it is empty no file is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from pathlib import Path
from time import time
from typing import Final

from langmeter._base.log import logger

from . import table
from .table import Table

_log: Final = logger("langmeter.prices")

#: Grows when the form of the file changes.
_SCHEMA: Final = 1
#: Files kept: one for each version of genai-prices that was used lately.
_MAX_FILES: Final = 4
_MAX_SIZE: Final = 1 << 26
_HOUR: Final = 3600.0


def folder() -> Path | None:
    """Return the folder for the file; None when no file is to be kept."""
    chosen = os.environ.get("LANGMETER_CACHE")
    if chosen is not None:
        path = Path(chosen)
        return path if path.is_absolute() else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else "~/.cache"
    path = Path(os.path.expanduser(base))
    return path / "langmeter" if path.is_absolute() else None


def file_name(data: Path, version: str) -> str:
    """Return the name of the file for these bytes of genai-prices' data. Raises OSError."""
    with data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{version} {_SCHEMA}".encode())
    return f"prices-{digest.hexdigest()[:32]}.jsonl"


def read(path: Path) -> Table | None:
    """Return the table in a file; None when there is none, or none that can be trusted."""
    try:
        data = _bytes(path)
        if data is None:
            return None
        head, _, body = data.partition(b"\n")
        header = json.loads(head)
        if header["schema"] != _SCHEMA or header["sha256"] != hashlib.sha256(body).hexdigest():
            raise ValueError("its checksum is wrong")
        return table.from_text(header["source"], body)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever may be in there
        _log.debug("%s is not used: %s", path, error)
        return None


def _bytes(path: Path) -> bytes | None:
    # No link is followed, and opening a pipe does not wait for its other end.
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | more)) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MAX_SIZE:
            raise ValueError("it is not a file of prices")
        if sys.platform != "win32" and (about.st_uid != os.geteuid() or about.st_mode & 0o022):
            raise ValueError("another user may have written it")
        return file.read()


def write(path: Path, prices: Table) -> None:
    """Put a table into a file, whole or not at all; what fails is only logged."""
    body = table.to_text(prices)
    if body is None:
        return
    header = {
        "schema": _SCHEMA,
        "source": prices.source,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    part = path.with_name(f".{path.stem}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(json.dumps(header).encode() + b"\n" + body)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _tidy(path)
    except OSError as error:
        _log.debug("the price table is not kept in %s: %s", path, error)


def _tidy(path: Path) -> None:
    """Remove the files of versions that were not used lately, and what was never finished."""
    for part in path.parent.glob(".prices-*.tmp"):
        if part.stat().st_mtime < time() - _HOUR:
            part.unlink(missing_ok=True)
    files = sorted(path.parent.glob("prices-*.jsonl"), key=lambda f: f.stat().st_mtime)
    for file in files[:-_MAX_FILES]:
        file.unlink(missing_ok=True)
