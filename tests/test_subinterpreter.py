"""The native module in an interpreter of its own."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from langmeter import _core

PROGRAM = """
import sys
sys.path.insert(0, {path!r})
from uuid import uuid4
from langmeter import _core
recorder, run = _core.Recorder(max_series=8, max_runs=8), uuid4()
recorder.run_started(run, None, _core.KINDS.index("llm"), "Chat", "openai", "gpt-4o")
recorder.run_ended(run, _core.KINDS.index("llm"), _core.OUTCOMES.index("ok"))
assert [s.kind for s in recorder.snapshot().series()] == ["llm", "model"]
open({done!r}, "w").close()
"""


def test_a_subinterpreter_has_recorders_of_its_own(tmp_path: Path) -> None:
    """A recorder made in a subinterpreter counts there, and the main one is none the worse."""
    try:
        interpreters = importlib.import_module("_xxsubinterpreters")
    except ImportError:
        interpreters = pytest.importorskip("_interpreters")
    assert _core.__file__ is not None
    path, done = Path(_core.__file__).parents[1], tmp_path / "done"
    interpreter = interpreters.create()
    interpreters.run_string(interpreter, PROGRAM.format(path=str(path), done=str(done)))
    interpreters.destroy(interpreter)
    assert done.exists()
    assert _core.Recorder().is_empty
