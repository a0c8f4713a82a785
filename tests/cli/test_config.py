"""`langmeter config`: what is in force, where it comes from, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langmeter import MeterConfig
from langmeter.cli import main as cli
from langmeter.config.schema import json_schema


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("langmeter.toml").write_text(
        'max_runs = 9\nprices = { "a/m" = { input = 1, output = 1 } }\n\n[[budgets]]\ncalls = 5\n'
    )
    Path("bad.toml").write_text('max_runs = 0\n"\\u001b[31m" = 3\n')


def test_each_setting_has_its_value_and_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each, a default too."""
    monkeypatch.setenv("LANGMETER_LABELS", "team,user")
    monkeypatch.setenv("LANGMETER_DEFECTS", "false")
    assert cli.main(["config"]) == 0
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["setting", "from", "value"]
    rows = {name: (origin, value) for name, origin, value in lines[2:]}
    assert rows["max_runs"] == ("langmeter.toml:1", "9")
    assert rows["labels"] == ("LANGMETER_LABELS", "team, user")
    assert rows["defects"] == ("LANGMETER_DEFECTS", "false")
    assert rows["max_series"] == ("default", "1024")
    assert rows["prices"] == ("langmeter.toml:2", "<PriceBook: 1 own price beside the catalogue>")
    assert rows["budgets"] == ("langmeter.toml:4", "<Budget '5 calls': 0 of 5 calls spent>")
    assert rows["alert_link"] == ("default", "none")
    assert [*rows] == [*MeterConfig.load().leaves()]


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers as numbers, with source and line apart."""
    assert cli.main(["config", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["max_runs"] == {"value": 9, "source": "langmeter.toml", "line": 1}
    assert settings["max_series"] == {"value": 1024, "source": "default", "line": None}
    assert settings["streams.collect"] == {"value": None, "source": "default", "line": None}
    assert settings["alert_link"]["value"] is None
    assert settings["directory"]["value"] is None


def test_check_reads_one_file_without_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong variable is not the file's fault."""
    monkeypatch.setenv("LANGMETER_MAX_RUNS", "none")
    assert cli.main(["config", "--check", "langmeter.toml"]) == 0
    assert cli.main(["config"]) == 1
    assert "LANGMETER_MAX_RUNS must be" in capsys.readouterr().err


def test_problems_are_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on a line of its own, on standard error; nothing in a file draws on the terminal."""
    assert cli.main(["config", "--check", "bad.toml"]) == 1
    output = capsys.readouterr()
    first, one, two = output.err.splitlines()
    assert first == "2 settings are refused:"
    assert one.startswith("  bad.toml:1: max_runs must be a whole number from 1 to 16,777,216, got")
    assert two.startswith('  bad.toml:2: unknown setting "\\u001b[31m" = 3; known are max_series')
    assert output.out == ""
    assert cli.main(["config", "--check", "none.toml"]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_problems_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """For an editor or a pipeline."""
    assert cli.main(["config", "--json", "--check", "bad.toml"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(each["key"], each["line"], each["value"]) for each in problems] == [
        ("max_runs", 1, "0"),
        ('"\\u001b[31m"', 2, "3"),
    ]
    assert problems[0]["allowed"] == "a whole number from 1 to 16,777,216"
    assert problems[0]["source"] == "bad.toml"


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is published."""
    assert cli.main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema(MeterConfig)


def test_commands_price_by_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """`langmeter prices` knows the own prices of the file; one that is refused is exit code 2."""
    assert cli.main(["prices", "a/m"]) == 0
    assert "own" in capsys.readouterr().out
    Path("langmeter.toml").write_text("max_runs = 0\nmax_series = 0\n")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["prices", "a/m"])
    assert "  langmeter.toml:2: max_series must be" in capsys.readouterr().err


def test_addresses_of_sinks_are_not_printed_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens are in their paths, and of apprise in the place of a host."""
    sinks = "slack://TOKEN/SECRET,https://user:SECRET@hooks.example/SECRET?key=SECRET,logging"
    monkeypatch.setenv("LANGMETER_SINKS", sinks)
    for arguments in (["config"], ["config", "--json"]):
        assert cli.main(arguments) == 0
        text = capsys.readouterr().out
        assert "SECRET" not in text
        assert "TOKEN" not in text
    assert cli.main(["config"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("sinks"))
    assert line.endswith("slack://…, https://hooks.example/…, logging")
