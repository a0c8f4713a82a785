"""The fixture `langmeter_baseline`, in projects of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from langmeter import Meter, Snapshot
from langmeter.testing import ManualClock
from langmeter.testing.baselines import Baselines
from tests.support.simulated import calls, latencies

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """
    import random
    from uuid import uuid4
    from langmeter import Snapshot, _core
    from langmeter.testing import ManualClock

    def metered(scale):
        clock, rng = ManualClock(), random.Random(1)
        recorder = _core.Recorder(max_series=8, max_runs=64, clock=clock)
        for _ in range(100):
            run = uuid4()
            recorder.run_started(run, None, _core.KINDS.index("llm"), "chat", "openai", "gpt-4o")
            clock.advance(scale * rng.lognormvariate(0, 0.2))
            recorder.run_ended(run, _core.KINDS.index("llm"), 0)
        return Snapshot(recorder.snapshot())

    def test_speed(langmeter_baseline, request):
        scale = float(request.config.getini("scale"))
        langmeter_baseline.check(metered(scale), "checkout", ["latency.p50>+10%"])
"""
SETTINGS = """
    def pytest_addoption(parser):
        parser.addini("scale", "how slow it is", default="1")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that keeps a baseline."""
    pytester.makepyfile(PROJECT)
    pytester.makeconftest(SETTINGS)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run its tests with our plugin, without those that this environment happens to have."""
    others = ("asyncio", "pytest_cov", "benchmark", "hypothesispytest", "anyio", "langsmith_plugin")
    quiet = [word for name in others for word in ("-p", f"no:{name}")]
    return project.runpytest("-p", "langmeter.testing.pytest_plugin", *quiet, *arguments)


def test_a_baseline_is_written_kept_and_compared_with(project: pytest.Pytester) -> None:
    """Absent: the test fails with the remedy. Written: it passes, and fails when slower."""
    path = project.path / "langmeter-baselines" / "checkout.json"
    absent = run(project)
    absent.assert_outcomes(failed=1)
    absent.stdout.fnmatch_lines([f"E*there is no baseline {path}; *pytest --langmeter-update"])
    assert not path.exists()

    run(project, "--langmeter-update").assert_outcomes(passed=1)
    written = path.read_bytes()
    assert Snapshot.from_json(written).totals.calls == 100
    assert [found.name for found in path.parent.iterdir()] == ["checkout.json"]
    run(project).assert_outcomes(passed=1)
    run(project, "-o", "scale=0.5").assert_outcomes(passed=1)

    slower = run(project, "-o", "scale=1.5")
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(
        [
            "E*AssertionError: FAILED: 1 of 1 rule broken; *",
            "E*broken: latency.p50>+10% at openai/gpt-4o: *",
            "E*openai/gpt-4o*latency.p50*worse",
            f"E*compared with {path}; if this is how it is to be: pytest --langmeter-update",
        ]
    )
    # The traceback ends in the user's test, not in our rooms.
    assert "baselines.py" not in slower.stdout.str()
    assert path.read_bytes() == written

    run(project, "-o", "scale=1.5", "--langmeter-update").assert_outcomes(passed=1)
    assert path.read_bytes() != written
    run(project, "-o", "scale=1.5").assert_outcomes(passed=1)


def test_the_folder_is_a_setting_and_an_option(project: pytest.Pytester) -> None:
    """Both from the root of the project; the option wins."""
    for arguments, folder in (
        (["-o", "langmeter_baselines=kept/here"], "kept/here"),
        (["--langmeter-baselines", "elsewhere", "-o", "langmeter_baselines=kept"], "elsewhere"),
        (["--langmeter-baselines", str(project.path / "absolute")], "absolute"),
    ):
        run(project, "--langmeter-update", *arguments).assert_outcomes(passed=1)
        assert (project.path / folder / "checkout.json").is_file()
        run(project, *arguments).assert_outcomes(passed=1)
    assert not (project.path / "kept" / "checkout.json").exists()


@pytest.mark.process
def test_the_plugin_loads_nothing_before_a_test_asks() -> None:
    """Every pytest of every project where langmeter is installed pays for it."""
    script = (
        "import sys, langmeter.testing.pytest_plugin\n"
        "heavy = {'langchain_core', 'genai_prices', 'langmeter.snapshot', 'langmeter.analysis'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


def test_the_entry_point_has_the_name_of_its_module() -> None:
    """So that `-p` with its name and the entry point are one plugin, registered once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    (entry,) = project["project"]["entry-points"]["pytest11"].items()
    assert entry == ("langmeter.testing.pytest_plugin", "langmeter.testing.pytest_plugin")
    # Loaded before coverage begins, it would hide what importing langmeter executes.
    assert (
        "-p no:langmeter.testing.pytest_plugin"
        in project["tool"]["pytest"]["ini_options"]["addopts"]
    )


# --- the fixture's value -------------------------------------------------------------------------

BASE = calls(latencies(100, seed=1))


@pytest.fixture
def kept(tmp_path: Path) -> Baselines:
    """A folder with the baseline `one`."""
    Baselines(tmp_path / "kept", update=True).check(BASE, "one")
    return Baselines(tmp_path / "kept")


def test_a_check_gives_the_comparison(kept: Baselines) -> None:
    """For those who want to say more about it than that it did not fail."""
    found = kept.check(calls(latencies(100, seed=2)), "one", "latency.p50>+10%", level=0.01)
    assert (found.failed, found.level, len(found.rulings)) == (False, 0.01, 1)


def test_without_rules_a_check_fails_on_everything_significant(kept: Baselines) -> None:
    """As the command does."""
    with pytest.raises(AssertionError, match=r"(?s)^FAILED: .*latency\.p50.*worse"):
        kept.check(calls(latencies(100, seed=2, scale=2)), "one")


def test_strict_checks_fail_where_too_little_is_known(kept: Baselines) -> None:
    """Otherwise it is said in the comparison only."""
    few = calls(latencies(3))
    assert "too few" in str(kept.check(few, "one", ["latency.p95>+10%"]))
    with pytest.raises(AssertionError, match=r"too few: latency\.p95"):
        kept.check(few, "one", ["latency.p95>+10%"], strict=True)


def test_a_meter_is_asked_for_its_snapshot(kept: Baselines) -> None:
    """One that metered nothing is a mistake of the test, and becomes no baseline."""
    meter = Meter(clock=ManualClock())
    for baselines in (kept, Baselines(kept.folder, update=True)):
        with pytest.raises(AssertionError, match=r"nothing was metered for 'one'; pass the meter"):
            baselines.check(meter, "one")
    assert kept.check(BASE, "one").rows


def test_a_rule_that_is_none_is_said_also_while_updating(kept: Baselines) -> None:
    """And nothing is written."""
    with pytest.raises(ValueError, match="no metric 'speed'"):
        Baselines(kept.folder, update=True).check(BASE, "two", ["speed>+10%"])
    assert not (kept.folder / "two.json").exists()


@pytest.mark.parametrize("name", ["", "../one", "a/b", "a b", ".hidden", "one\n"])
def test_a_name_is_no_path(kept: Baselines, name: str) -> None:
    """It names a file in the folder."""
    with pytest.raises(ValueError, match=r"invalid name of a baseline: .*; use letters"):
        kept.check(BASE, name)


def test_what_is_no_baseline_is_said_with_the_remedy(kept: Baselines) -> None:
    """Damaged, of a newer format, or no file at all."""
    path = kept.folder / "one.json"
    for content, message in (
        (b"{", "not a langmeter snapshot"),
        (json.dumps({"format": 99}).encode(), "snapshot of format 99"),
    ):
        path.write_bytes(content)
        with pytest.raises(AssertionError, match=rf"{message}.*: pytest --langmeter-update"):
            kept.check(BASE, "one")
    path.unlink()
    path.mkdir()
    with pytest.raises(AssertionError, match=r"cannot read .*: Is a directory; .* anew: pytest"):
        kept.check(BASE, "one")
