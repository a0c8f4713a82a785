"""`langmeter report`: the page that it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from langmeter.cli import main as cli
from langmeter.report.html import report
from tests.support.traffic import Traffic

SNAPSHOT = Traffic().everything(20).snapshot()


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A snapshot as a file."""
    path = tmp_path / "snapshot.json"
    path.write_text(SNAPSHOT.to_json(), encoding="utf-8")
    return str(path)


def test_it_writes_the_page(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is `report.html` unless another file is named; one line says which."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", file]) == 0
    assert capsys.readouterr().out.startswith("report: report.html (")
    assert (tmp_path / "report.html").read_text("utf-8") == report(SNAPSHOT)
    assert cli.main(["report", file, "-o", "other.html", "--title", "Week 42"]) == 0
    assert (tmp_path / "other.html").read_text("utf-8") == report(SNAPSHOT, title="Week 42")


def test_the_first_of_two_is_the_base(file: str, tmp_path: Path) -> None:
    """Two sources are in the order of `langmeter compare`."""
    now, page = tmp_path / "now.json", tmp_path / "page.html"
    other = Traffic(seed=2).everything(30).snapshot()
    now.write_text(other.to_json(), encoding="utf-8")
    assert cli.main(["report", file, str(now), "-o", str(page)]) == 0
    assert page.read_text("utf-8") == report(other, SNAPSHOT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE", "FILE", "FILE"], "SOURCE must be one or two sources, got 3; name two at most"),
        (["missing.json"], "cannot read missing.json: No such file or directory"),
        (["missing.json", "FILE"], "cannot read missing.json: No such file or directory"),
        (["FILE", "--since", "1d"], "only a history keeps spans"),
        (["FILE", "-o", "no/where.html"], "no such directory; make it first"),
        (["FILE", "--prices", "missing.toml"], "cannot read missing.toml"),
    ],
)
def test_bad_input_is_refused(
    arguments: list[str],
    message: str,
    file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input is one line and exit code 2; no page is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["report", *(file if word == "FILE" else word for word in arguments)])
    assert exit_code.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
