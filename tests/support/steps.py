"""Processes that are killed before any call of a C function, of the system or of ours.

What is done between two of them leaves nothing outside of the process.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.support.arenas import forked

__all__ = ["is_killed_at", "steps_of"]


def steps_of(work: Callable[[], object]) -> int:
    """Do some work in a child; return how many C functions it calls."""
    reading_end, writing_end = os.pipe()
    os.waitpid(forked(lambda: os.write(writing_end, struct.pack("<Q", _watched(work, -1)))), 0)
    os.close(writing_end)
    with os.fdopen(reading_end, "rb") as pipe:
        return int(struct.unpack("<Q", pipe.read())[0])


def is_killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do some work in a child that is killed before a step; False where it ended earlier."""
    _, status = os.waitpid(forked(lambda: _watched(work, step)), 0)
    return os.WIFSIGNALED(status)


def _watched(work: Callable[[], object], step: int) -> int:
    steps = 0

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal steps
        if event == "c_call":
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1

    sys.setprofile(hook)
    try:
        work()
    finally:
        sys.setprofile(None)
    return steps
