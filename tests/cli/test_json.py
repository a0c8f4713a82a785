"""`--json` of every command: JSON on standard output, and nothing else there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from langmeter import Snapshot
from langmeter.cli import main as cli
from langmeter.cli.main import _COMMANDS
from tests.support.days import Day, write_history

#: Command line → its exit code, and a name of the object, or None for an array.
CASES: dict[str, tuple[int, str | None]] = {
    "advice FILE --json": (0, None),
    "prices openai/gpt-4o --json": (0, "bands"),
    "prices acme/none --json": (1, "bands"),
    "bottlenecks FILE --json": (0, "bottlenecks"),
    "compare FILE FILE --json": (0, "rows"),
    "defects FILE --json": (0, "funnel"),
    "history metrics.db --json": (0, None),
    "history import metrics.db FILE --json": (0, "added"),
    "alerts check --rule 'calls > 1' --history metrics.db --json": (0, None),
    "alerts export --rule 'calls > 1' --json": (0, "groups"),
    "fold meters --json": (0, "folded"),
    "report FILE --json": (0, "series"),
    "top FILE --json": (0, "rows"),
    "config --json": (0, "settings"),
    "dashboard --json": (0, "panels"),
}
#: Commands that write JSON to a file that is named, lines of JSON, or no figures.
OTHERS = {"demo", "export", "serve"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a history of ten minutes, and a directory of meters."""
    write_history(tmp_path / "metrics.db", Day(), range(600, 610), 3)
    (tmp_path / "meters").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", CASES)
def test_a_command_prints_json(
    command: str, file: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one array, or one object; infinity and nan, which JSON lacks, are not in it."""
    code, name = CASES[command]
    words = [file if word == "FILE" else word for word in shlex.split(command)]
    assert cli.main(words) == code

    def refuse(text: str) -> Any:
        raise AssertionError(text)

    data = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert isinstance(data, list) if name is None else name in data


def test_every_command_with_figures_has_it() -> None:
    """A new command is in the list above."""
    assert {command.split(" ", 1)[0] for command in CASES} | OTHERS == {*_COMMANDS}


def test_export_prints_lines_of_json(
    file: str, snapshot: Snapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line is a row, as of the CSV that it prints otherwise."""
    assert cli.main(["export", file, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(row["kind"] == "model" for row in rows) == len(snapshot.models)
