"""The main job for real: LangChain, the OpenAI client, the simulated service, the meter."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from langmeter import Meter, Snapshot, demo
from langmeter.demo import WAYS, plan, run_demo
from langmeter.testing.simulator import Truth

pytestmark = pytest.mark.process


class Terminal(io.StringIO):
    """A stream that rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


def small(**more: Any) -> tuple[int, str]:
    """Exit code and output of a small fast run."""
    out = more.pop("out", None) or io.StringIO()
    code = run_demo(**{"calls": 40, "concurrency": 8, "speed": 20.0, "file": out, **more})
    return code, out.getvalue()


def spent(path: Path) -> dict[str, tuple[int, int, int, int]]:
    """Tokens of the models that answered, from a snapshot's file."""
    models = Snapshot.from_json(path.read_text("utf-8")).models
    return {
        model: (row.tokens.input, row.tokens.output, row.tokens.cache_read, row.tokens.reasoning)
        for (_, model), row in models.items()
        if row.outcomes["ok"]
    }


def test_plan() -> None:
    """All ways are used alike; who gives up comes after the first quarter, never in `invoke`."""
    calls = plan(400, seed=1)
    assert calls == plan(400, seed=1) != plan(400, seed=2)
    assert Counter(call.way for call in calls) == dict.fromkeys(WAYS, 100)
    assert len({call.question["question"] for call in calls}) == 400
    givers_up = [call for call in calls if call.gives_up]
    assert {call.pipeline for call in givers_up} == {"wait", "glance"}
    assert {call.way for call in givers_up} == {"stream", "astream", "ainvoke"}
    assert min(call.number for call in givers_up) > 100


def test_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the meter counted is what the service sent; the same seed gives the same tokens."""
    monkeypatch.setattr(demo, "GIVES_UP", 4)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    code, text = small(json=str(first))
    assert code == 0, text
    assert "langmeter counted exactly that" in text
    snapshot = Snapshot.from_json(first.read_text("utf-8"))
    sent = re.search(r"sent ([\d,]+) tokens in (\d+) completed calls", text)
    assert sent is not None
    tokens = snapshot.totals.tokens
    assert tokens.total - tokens.estimated == int(sent[1].replace(",", ""))
    assert snapshot.totals.outcomes["ok"] == int(sent[2])
    assert snapshot.totals.streamed > 0
    assert re.search(r"[1-9]\d* clients gave up", text)
    assert snapshot.in_flight == 0
    assert {("tool", "glossary"), ("chain", "answer"), ("llm", "ChatOpenAI")} <= set(
        snapshot.components
    )
    assert str(snapshot).splitlines()[0] in text
    assert small(json=str(second), concurrency=3)[0] == 0
    assert spent(first) == spent(second)


def test_live_table() -> None:
    """On a terminal a table of models and the progress are shown while the job runs."""
    code, text = small(out=Terminal(), speed=5.0)
    assert code == 0, text
    before_report = text.partition("40 calls in")[0]
    assert re.search(r"\d+ of 40 calls done, \d+ in flight", before_report)
    assert "gpt-4o-mini" in before_report


def test_lines_without_terminal() -> None:
    """Elsewhere progress is a line now and then, without control codes."""
    code, text = small(calls=16, concurrency=2, speed=1.0)
    assert code == 0, text
    assert re.search(r"^  \d+ of 16 calls done, \d+ in flight, [\d,]+ tokens$", text, re.M)
    assert "\x1b" not in text


def test_what_asyncio_finds() -> None:
    """Of what asyncio reports as never retrieved only the end of an iteration is passed over."""
    loop = Mock()
    demo._unless_langchain_left_it(loop, {"exception": StopAsyncIteration()})
    assert not loop.mock_calls
    context = {"exception": KeyError("lost")}
    demo._unless_langchain_left_it(loop, context)
    loop.default_exception_handler.assert_called_once_with(context)


def test_mismatch_is_told() -> None:
    """Every figure that the meter does not share with the service is named, and the job fails."""
    row = {"calls": 1, "input": 1000, "output": 5, "cache_read": 6, "reasoning": 7}
    truth = Truth.from_dict({"m-1": {"ok": row, "broken": {"calls": 3}}})
    out = io.StringIO()
    assert not demo._check(Meter().snapshot(), truth, 2, out)
    wrong = re.findall(r"WRONG: (.*)", out.getvalue())
    assert wrong == [
        "m-1: completed calls: sent 1, counted 0",
        "m-1: tokens: sent 1,005, counted 0",
        "m-1: cached tokens: sent 6, counted 0",
        "m-1: reasoning tokens: sent 7, counted 0",
        "failed calls: 3, counted 0",
        "clients that gave up: 2, counted 0",
    ]


def test_mismatch_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed check is exit code 1."""
    monkeypatch.setattr(demo, "_differences", lambda *_: iter(["one token"]))
    code, text = small(calls=4)
    assert code == 1
    assert "WRONG: one token" in text


def test_report_is_the_last_line(tmp_path: Path) -> None:
    """The report is written, and the last line says where it is."""
    path = tmp_path / "demo.html"
    code, text = small(calls=4, report=str(path))
    assert code == 0, text
    assert text.splitlines()[-1] == f"Report: {path}"
    assert "<h1>langmeter demo</h1>" in path.read_text("utf-8")


def test_report_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that cannot be written is named, with exit code 1."""
    assert small(calls=4, report=str(tmp_path))[0] == 1
    assert f"cannot write {tmp_path}: Is a directory" in capsys.readouterr().err


def test_file_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be written is named, after the report, with exit code 1."""
    code, text = small(calls=4, json=str(tmp_path))
    assert code == 1
    assert "Check:" in text
    assert f"cannot write {tmp_path}: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["langchain_openai", "rich", "uvicorn"])
def test_missing_package(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the packages of the demo the message says how to get them."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run_demo() == 2
    error = capsys.readouterr().err
    assert error == f"langmeter demo needs {package}: pip install 'langmeter[demo]'\n"


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"concurrency": 0}])
def test_nothing_to_do(wrong: dict[str, Any]) -> None:
    """No calls, or none at a time, is a ValueError."""
    with pytest.raises(ValueError, match="must be positive"):
        run_demo(**wrong)


def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C ends the job with the report so far and its file, cleanly and with exit code 130."""
    path = tmp_path / "so-far.json"
    program = (
        "import sys; from langmeter.demo import run_demo;"
        f"sys.exit(run_demo(5000, 16, {str(path)!r}, speed=2))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        assert job.stdout is not None
        for line in job.stdout:
            if re.match(r"  [1-9]\d* of 5000 calls done", line):
                break
        job.send_signal(signal.SIGINT)
        text, error = job.communicate(timeout=60)
    assert job.returncode == 130, error
    assert error == ""
    assert "Interrupted: this is the report so far" in text
    assert "Check:" not in text
    assert Snapshot.from_json(path.read_text("utf-8")).totals.outcomes["ok"] > 0
