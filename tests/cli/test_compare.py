"""`langmeter compare`: what it prints, how it exits, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from langmeter.cli import main as cli
from tests.support.simulated import calls, latencies


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Snapshots: base, one like it, a slow one and one of few calls."""
    folder = tmp_path_factory.mktemp("snapshots")
    made = {
        "base": calls(latencies(200, seed=1)),
        "same": calls(latencies(200, seed=2)),
        "slow": calls(latencies(200, seed=3, scale=1.4)),
        "few": calls(latencies(5, seed=4)),
    }
    for name, snapshot in made.items():
        (folder / name).write_text(snapshot.to_json(indent=1), encoding="utf-8")
    return {name: str(folder / name) for name in made}


@pytest.mark.parametrize(
    ("now", "arguments", "code", "shown"),
    [
        ("same", [], 0, "ok: "),
        ("slow", [], 1, "FAILED: "),
        ("slow", ["--fail-on", "latency.p50>+10%"], 1, "broken: latency.p50>+10% at openai/gpt-4o"),
        ("slow", ["--fail-on", "latency.p50>+90%"], 0, "ok: 0 of 1 rule broken; "),
        ("slow", ["--fail-on", "latency.p50>+90%", "--fail-on", "latency.ks>+5pp"], 1, "1 of 2"),
        ("few", ["--fail-on", "latency.p95>+10%"], 0, "too few: latency.p95>+10%"),
        ("few", ["--fail-on", "latency.p95>+10%", "--strict"], 1, "200 and 5 calls, a test needs"),
        ("slow", ["--level", "1e-30"], 0, "(level 1e-30)"),
        ("same", ["--all"], 0, "latency.p95"),
    ],
)
def test_the_exit_code_says_whether_something_got_worse(
    files: dict[str, str],
    now: str,
    arguments: list[str],
    code: int,
    shown: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """1 when it did, 0 when not; the table says what."""
    assert cli.main(["compare", files["base"], files[now], *arguments]) == code
    assert shown in capsys.readouterr().out


def test_json_is_the_comparison_as_data(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same exit code, and every row."""
    assert cli.main(["compare", "--json", files["base"], files["slow"]]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["failed"] is True
    assert {"latency.p50", "error_rate", "cost.per_call"} <= {row["metric"] for row in data["rows"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{base}"], "required: NOW"),
        (["{base}", "none.json"], "cannot read none.json: No such file or directory"),
        (["setup.py", "{base}"], "cannot read setup.py"),
        (["{base}", "{foreign}"], "{foreign}: not a langmeter snapshot"),
        (["{base}", "{same}", "--fail-on", "speed>+10%"], "no metric 'speed'; there are latency"),
        (["{base}", "{same}", "--fail-on", "latency.p95"], "invalid rule"),
        (["{base}", "{same}", "--level", "5"], "level must be between 0 and 1"),
        (["{base}", "{same}", "--level", "x"], "argument --level: invalid float value: 'x'"),
        (["{base}", "{same}", "--strict"], "strict is about rules"),
    ],
)
def test_bad_input_is_exit_code_2(
    files: dict[str, str],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear line under the usage, never a traceback."""
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    known = {**files, "foreign": str(foreign)}
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *(argument.format(**known) for argument in arguments)])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert message.format(**known) in output.err
    assert output.out == ""


def test_help_shows_how_a_rule_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Percent signs included."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "--help"])
    assert ended.value.code == 0
    assert '"latency.p95>+10%"' in capsys.readouterr().out


@pytest.mark.process
def test_the_command_needs_neither_langchain_nor_the_price_catalogue(files: dict[str, str]) -> None:
    """Comparing figures takes figures."""
    script = (
        "import sys; from langmeter.cli.main import main; main(sys.argv[1:])\n"
        "print(sorted({'langchain_core', 'genai_prices', 'scipy'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, "compare", files["base"], files["same"]]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"
