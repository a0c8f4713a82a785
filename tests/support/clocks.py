"""A clock that a test sets while programs run with it: libfaketime, Debian's package.

`make target/tools/faketime` unpacks it; a test that wants it is skipped where it is not there. It
serves programs such as Valkey. Not Python: its `time.sleep` fails beside a clock that goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.pages import ROOT

_PLACES = (ROOT / "target/tools/faketime", Path("/"))


def library() -> str:
    """Return the path of libfaketime; skips the test where it is not there."""
    for place in _PLACES:
        for path in place.glob("usr/lib/*/faketime/libfaketimeMT.so.1"):
            return str(path)
    pytest.skip("libfaketime is not there: make target/tools/faketime")


class Offset:
    """A file with the seconds by which a clock is ahead."""

    def __init__(self, path: Path, seconds: float = 0.0) -> None:
        self.path = path
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Set the clock; negative for behind."""
        new = self.path.with_suffix(".new")
        new.write_text(f"{seconds:+.3f}\n", encoding="ascii")
        os.replace(new, self.path)


def environment(offset: Offset) -> dict[str, str]:
    """Return the environment of a program with such a clock; the time that passes stays."""
    return {
        "LD_PRELOAD": library(),
        "FAKETIME_TIMESTAMP_FILE": str(offset.path),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
