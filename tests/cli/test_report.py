"""`langmeter report`: the page that it writes, and its figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langmeter import Snapshot
from langmeter.cli import main as cli
from langmeter.report.html import report
from tests.support.days import Day, write_history
from tests.support.traffic import Traffic


def test_it_writes_the_page(
    file: str,
    snapshot: Snapshot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The page is `report.html` unless another file is named; one line says which."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", file]) == 0
    assert capsys.readouterr().out.startswith("report: report.html (")
    assert (tmp_path / "report.html").read_text("utf-8") == report(snapshot)
    assert cli.main(["report", file, "-o", "other.html", "--title", "Week 42"]) == 0
    assert (tmp_path / "other.html").read_text("utf-8") == report(snapshot, title="Week 42")


def test_the_first_of_two_is_the_base(file: str, snapshot: Snapshot, tmp_path: Path) -> None:
    """Two sources are in the order of `langmeter compare`."""
    now, page = tmp_path / "now.json", tmp_path / "page.html"
    other = Traffic(seed=2).everything(30).snapshot()
    now.write_text(other.to_json(), encoding="utf-8")
    assert cli.main(["report", file, str(now), "-o", str(page)]) == 0
    assert page.read_text("utf-8") == report(other, snapshot)


def test_json_has_the_figures_of_the_page(
    file: str,
    snapshot: Snapshot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is printed, or written to the file that is named; no page is written."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", file, "--json"]) == 0
    text = capsys.readouterr().out
    figures = json.loads(text)
    assert not (tmp_path / "report.html").exists()
    calls = {row["model"]: row["calls"] for row in figures["series"] if row["kind"] == "model"}
    assert calls == {model: stats.calls for (_, model), stats in snapshot.models.items()}
    assert figures["summary"][0]["part"] == "uncounted"
    assert figures["defects"]["attempts"] == sum(row.attempts for row in snapshot.defects.values())
    assert {*figures["charts"]} == {"latency", "first-token"}
    assert figures["comparison"] is None
    assert cli.main(["report", file, "--json", "-o", "figures.json"]) == 0
    assert capsys.readouterr().out.startswith("report: figures.json (")
    assert (tmp_path / "figures.json").read_text("utf-8") == text


def test_json_of_a_history_has_its_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chart has its moments and a value of each line for each; of two there is a comparison."""
    counted = write_history(tmp_path / "metrics.db", Day(), range(600, 660), 6)
    history = str(tmp_path / "metrics.db")
    assert cli.main(["report", history, history, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    calls = figures["charts"]["calls"]
    assert sum(calls["series"][0]) == counted.totals.calls
    assert len(calls["x"]) == len(calls["series"][0])
    assert figures["comparison"]["failed"] is False
