"""Recorders that count into files, and processes that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from langmeter import _core
from langmeter.directory.files import new_arena

LLM, OK = _core.KINDS.index("llm"), _core.OUTCOMES.index("ok")


def recorder_in(directory: Path) -> _core.Recorder:
    """A recorder that counts into a file of a directory."""
    recorder = _core.Recorder()
    recorder.attach(new_arena(directory), 0o600)
    return recorder


def call(recorder: _core.Recorder, model: str = "gpt-4o") -> None:
    """Count one call of a model."""
    run = uuid4()
    recorder.run_started(run, None, LLM, "chat", "openai", model)
    recorder.run_ended(run, LLM, OK, "openai", model, (10, 5, 15))


def forked(work: Callable[[], object]) -> int:
    """Run a function in a child, which ends with it; returns its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def killed(child: int) -> None:
    """Kill a child, as the kernel does where memory is short."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
