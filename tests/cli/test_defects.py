"""`langmeter defects`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langmeter.analysis import defects
from langmeter.cli import main as cli
from tests.support.attempts import tried

SNAPSHOT = tried([("large", 90, 100), ("small", 40, 100)])


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A snapshot of two models as a file."""
    path = tmp_path / "snapshot.json"
    path.write_text(SNAPSHOT.to_json(), encoding="utf-8")
    return str(path)


def test_it_prints_which_model_fixes_which_defects(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model with the greatest rate comes first, and is best."""
    assert cli.main(["defects", file]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("fixes: 200 attempts, 130 of 200 defects fixed (")
    assert any(
        line.startswith("leak/high: acme/large 100 90 of 100 90.0% 79.6% to 95.4%")
        for line in lines
    )
    assert sum("best, frontier" in line for line in lines) <= 1
    assert "asked 200 100.0%" in lines


def test_it_prints_the_same_figures_as_json(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is that of the report."""
    assert cli.main(["defects", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == defects(SNAPSHOT).to_dict()


def test_what_is_not_a_snapshot_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input is one line and exit code 2."""
    path = tmp_path / "no.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["defects", str(path)])
    assert exit_code.value.code == 2
    assert "langmeter defects: error:" in capsys.readouterr().err


def test_compare_judges_success_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`langmeter compare` fails where a model fixes fewer of the same defects."""
    files = []
    for fixed in (45, 20):
        files.append(str(tmp_path / f"{fixed}.json"))
        Path(files[-1]).write_text(tried([("large", fixed, 50)]).to_json(), encoding="utf-8")
    assert cli.main(["compare", *files]) == 1
    assert "success_rate" in capsys.readouterr().out
    assert cli.main(["compare", *reversed(files), "--fail-on", "success_rate<-5pp"]) == 0
