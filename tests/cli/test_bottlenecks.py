"""`langmeter bottlenecks`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from langmeter import Snapshot, _core
from langmeter.analysis.bottlenecks import text, to_dict
from langmeter.cli import main as cli
from langmeter.testing import ManualClock

CHAIN, TOOL, LLM = map(_core.KINDS.index, ("chain", "tool", "llm"))


@pytest.fixture
def snapshot() -> Snapshot:
    """Five pipelines of a second: 300 ms in a tool, 600 ms in a model after it."""
    clock = ManualClock()
    recorder = _core.Recorder(clock=clock)
    for number in range(0, 50, 10):
        root, tool, llm = (UUID(int=number + 2 + place) for place in range(3))
        recorder.run_started(root, None, CHAIN, "pipeline")
        clock.advance(0.1)
        recorder.run_started(tool, root, TOOL, "search")
        clock.advance(0.3)
        recorder.run_ended(tool, TOOL, 0)
        recorder.run_started(llm, root, LLM, "chat", "acme", "large")
        clock.advance(0.6)
        recorder.run_ended(llm, LLM, 0)
        recorder.run_ended(root, CHAIN, 0)
    return Snapshot(recorder.snapshot())


@pytest.fixture
def file(snapshot: Snapshot, tmp_path: Path) -> str:
    """The snapshot as a file."""
    path = tmp_path / "snapshot.json"
    path.write_text(snapshot.to_json(), encoding="utf-8")
    return str(path)


def test_it_prints_where_the_time_went(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The greatest part first: 60 % in the model, of which twice as fast saves the half."""
    assert cli.main(["bottlenecks", file]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("where the time went: 5 pipelines, 5.00 s in all, 1.00 s each\n")
    model, tool, chain = (" ".join(line.split()) for line in shown.splitlines()[4:7])
    assert model.startswith("model acme/large 5 600 ms 600 ms 3.00 s ")
    assert model.endswith(" 60.0% 30.0% 300 ms")
    assert tool.startswith("tool search 5 300 ms 300 ms 1.50 s ")
    assert tool.endswith(" 30.0% 15.0% 150 ms")
    assert chain.startswith("chain pipeline 5 1.00 s 1.00 s 500 ms ")
    assert chain.endswith(" 10.0% 5.0% 50.0 ms")


def test_it_prints_the_same_figures_as_json(
    file: str, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json the output is one JSON document, and lossless."""
    assert cli.main(["bottlenecks", "--json", file]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == to_dict(snapshot)
    assert [one["name"] for one in shown["bottlenecks"]] == ["acme/large", "search", "pipeline"]


def test_two_processes_add_up(snapshot: Snapshot) -> None:
    """Merged snapshots hold the sums: twice the pipelines, the same shares."""
    both = text(snapshot + snapshot)
    assert both.startswith("where the time went: 10 pipelines, 10.0 s in all, 1.00 s each\n")
    assert "     60.0%     30.0%   300 ms\n" in both
    assert text(snapshot + snapshot - snapshot) == text(snapshot)


def test_a_snapshot_without_pipelines_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to tell, and that is told."""
    path = tmp_path / "empty.json"
    path.write_text(Snapshot().to_json(), encoding="utf-8")
    assert cli.main(["bottlenecks", str(path)]) == 0
    assert "no pipeline has ended" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read"), (b"{}", "not a langmeter snapshot"), (b"\x00?", "")],
)
def test_what_is_no_snapshot_is_refused_by_name(
    content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the file is named."""
    path = tmp_path / "what.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bottlenecks", str(path)])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert str(path) in shown
