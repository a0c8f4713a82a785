"""Write out what a command has to say; no closed pipe or full disk changes its exit code."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from langmeter._base.text import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser


def show(text: str, file: TextIO | None = None) -> None:
    """Print a text to standard output, or to `file`; a failure is reported, never raised.

    Nothing is said of a pipe whose reader has gone, as by other commands.
    """
    out = sys.stdout if file is None else file
    if out is None:  # Python was started with standard output closed
        return
    try:
        try:
            print(text, file=out, flush=True)
        except UnicodeEncodeError:
            encoding = out.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)
    except BrokenPipeError:
        _discard(out)
    except (OSError, ValueError) as error:
        complain(f"langmeter: cannot write the output: {reason(error)}")
        _discard(out)


def show_json(data: Any) -> None:
    """Print plain data to standard output as JSON, indented; a failure is as of `show`."""
    show(json_text(data))


def json_text(data: Any) -> str:
    """Return plain data as JSON, indented. Raises ValueError for nan, which JSON does not have."""
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)


def terminal_width(file: TextIO | None) -> int | None:
    """Return the columns of the terminal that a file is; None where it is not a terminal."""
    try:
        if file is None or not file.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns):
            return int(columns)
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError, AttributeError):  # closed, or an object that only writes
        return None


def flush() -> None:
    """Write out what standard output holds back, e.g. a help text of argparse; raises nothing."""
    out = sys.stdout
    try:
        if out is not None:
            out.flush()
    except (OSError, ValueError):
        _discard(out)


def complain(message: str) -> None:
    """Print a message to standard error, where that is still possible."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(message, file=sys.stderr, flush=True)


def check_file(option: str, file: str, parser: ArgumentParser) -> Path:
    """Return the absolute path of a file that is to be written when all work is done.

    Ends the program with exit code 2 if it could not be written.
    """
    path, name = Path(file).absolute(), printable(file)
    try:
        if path.is_dir():
            parser.error(f"{option} {name}: this is a directory; name a file")
        if not path.parent.is_dir():
            parser.error(f"{option} {name}: no such directory; make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            parser.error(f"{option} {name}: no permission to write it; name another file")
    except (OSError, ValueError) as error:
        parser.error(f"{option} {name}: {reason(error)}; name another file")
    return path


def write_file(path: Path, text: str) -> str | None:
    """Write a text file; returns what went wrong, None when nothing did."""
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        return f"cannot write {printable(str(path))}: {reason(error)}"
    return None


def reason(error: OSError | ValueError) -> str:
    """Describe why reading or writing failed, without the name of the file."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _discard(out: TextIO) -> None:
    # Python flushes once more when it ends, would fail again, say so, and exit with 120.
    with suppress(OSError, ValueError):
        void = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(void, out.fileno())
        finally:
            os.close(void)
