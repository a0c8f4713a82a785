"""The native module in another interpreter of the process."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langmeter import _core

pytestmark = pytest.mark.process

PROGRAM = """
import sys
sys.path.insert(0, {path!r})
try:
    from uuid import uuid4
    from langmeter import _core
    recorder, run = _core.Recorder(max_series=8, max_runs=8), uuid4()
    recorder.run_started(run, None, _core.KINDS.index("llm"), "Chat", "openai", "gpt-4o")
    recorder.run_ended(run, _core.KINDS.index("llm"), _core.OUTCOMES.index("ok"))
    outcome = [s.kind for s in recorder.snapshot().series()]
except BaseException as exc:
    outcome = exc
with open({out!r}, "w") as file:
    file.write(repr(outcome))
"""


def outcome_in_another(out: Path, *, shares_the_gil: bool) -> str:
    """What the program says in an interpreter that shares the GIL or has one of its own."""
    interpreters: Any
    if sys.version_info >= (3, 13):
        interpreters = importlib.import_module("_interpreters")
        interpreter = interpreters.create("legacy" if shares_the_gil else "isolated")
    else:
        interpreters = importlib.import_module("_xxsubinterpreters")
        interpreter = interpreters.create(isolated=not shares_the_gil)
    assert _core.__file__ is not None
    path = Path(_core.__file__).parents[1]
    interpreters.run_string(interpreter, PROGRAM.format(path=str(path), out=str(out)))
    interpreters.destroy(interpreter)
    return out.read_text()


def test_an_interpreter_that_shares_the_gil_has_recorders_of_its_own(tmp_path: Path) -> None:
    """A recorder made in a subinterpreter counts there, and not in the main one."""
    assert outcome_in_another(tmp_path / "out", shares_the_gil=True) == "['llm', 'model']"
    assert _core.Recorder().is_empty


@pytest.mark.skipif(sys.version_info < (3, 12), reason="every interpreter shares the GIL there")
def test_an_interpreter_with_a_gil_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    """The import raises ImportError, and the main interpreter goes on."""
    outcome = outcome_in_another(tmp_path / "out", shares_the_gil=False)
    assert outcome.startswith("ImportError(")
    assert "does not support loading in subinterpreters" in outcome
    assert _core.Recorder().is_empty


LATER = """
import asyncio
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool
from langmeter import Budget, Meter

class Failing(FakeListChatModel):
    def _generate(self, *args, **kwargs):
        raise ValueError("always")

def broken() -> ToolMessage:
    "Always fails."
    return ToolMessage("failed", status="error", tool_call_id="1")

meter = Meter(budgets=[Budget(calls=100)])
config = {"callbacks": [meter]}
Failing(responses=["."]).with_fallbacks([FakeListChatModel(responses=["."])]).invoke("hi", config)
asyncio.run(FakeListChatModel(responses=["."]).ainvoke("hi", config))
StructuredTool.from_function(broken).invoke({}, config)
snapshot = meter.snapshot()
totals = snapshot.totals
print(totals.calls, totals.recovered, snapshot.components["tool", "broken"].errors, flush=True)
"""


def test_one_that_came_first_leaves_nothing_to_the_main_interpreter(tmp_path: Path) -> None:
    """Afterwards parents by context, tasks and errors of tools are read as ever there."""
    first = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from {__name__} import LATER, outcome_in_another
print(outcome_in_another(Path({str(tmp_path / "out")!r}), shares_the_gil=True), flush=True)
exec(LATER)
"""
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", first],
        check=False,
        capture_output=True,
        text=True,
    )
    expected = "['llm', 'model']\n3 1 1\n"
    assert (process.stdout, process.returncode) == (expected, 0), process.stderr
