"""Meters that write a history."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from langmeter.history import History

NOW = 1_800_000_000


def count(url: str) -> int:
    return History(url).snapshot().totals.calls


def run(program: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )
