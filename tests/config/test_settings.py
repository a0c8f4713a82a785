"""Settings and where they come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from langmeter import ConfigError, MeterConfig
from langmeter.testing import ManualClock


def test_defaults_are_those_of_the_issue() -> None:
    """1,024 label sets, 65,536 runs, an hour, three digits."""
    config = MeterConfig()
    assert (config.max_series, config.max_runs) == (1024, 65_536)
    assert (config.max_run_age, config.significant_digits) == (3600.0, 3)


def test_a_config_is_frozen_and_hashable() -> None:
    """A config never changes, and equal ones are one key; the clock is not part of that."""
    config = MeterConfig(max_runs=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_runs = 8  # type: ignore[misc]
    assert {config: 1}[MeterConfig(max_runs=7, clock=ManualClock())] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_series", 0),
        ("max_series", 1_000_001),
        ("max_runs", 0),
        ("max_runs", 1.5),
        ("max_runs", True),
        ("max_run_age", 10**400),
        ("max_run_age", 0),
        ("max_run_age", float("nan")),
        ("max_run_age", float("inf")),
        ("max_run_age", "soon"),
        ("significant_digits", 1),
        ("significant_digits", 4),
        ("significant_digits", None),
    ],
)
def test_a_bad_value_is_named_with_its_range(name: str, value: object) -> None:
    """The message names the setting, the value and the lowest and highest allowed."""
    with pytest.raises(ConfigError, match=rf"{name} must be a.* number from .* to ") as caught:
        MeterConfig(**{name: value})  # type: ignore[arg-type]
    assert repr(value)[:150] in str(caught.value)


def test_an_unknown_keyword_gets_a_suggestion() -> None:
    """A typing error is told apart from a setting, with the likely name."""
    with pytest.raises(ConfigError, match="did you mean 'max_runs'"):
        MeterConfig.load(max_run=3)
    with pytest.raises(ConfigError, match="known are max_series"):
        MeterConfig.load(zzz=3)


def test_the_environment_is_read_when_a_config_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """`LANGMETER_*` counts at the moment of the call; an empty variable is none."""
    monkeypatch.setenv("LANGMETER_MAX_RUN_AGE", "0.5")
    monkeypatch.setenv("LANGMETER_MAX_RUNS", " ")
    assert MeterConfig.load() == MeterConfig(max_run_age=0.5)
    monkeypatch.setenv("LANGMETER_MAX_RUN_AGE", "7")
    assert MeterConfig.load().max_run_age == 7.0


def test_a_bad_variable_is_named() -> None:
    """The message names the variable, not only the setting."""
    with pytest.raises(ConfigError, match=r"LANGMETER_MAX_RUNS must be .* got 'many'"):
        MeterConfig.load(environ={"LANGMETER_MAX_RUNS": "many"})


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.toml", "max_runs = 9\nmax_series = 3\n"),
        ("a.toml", "[langmeter]\nmax_runs = 9\nmax_series = 3\n"),
        ("pyproject.toml", "[project]\nname='x'\n[tool.langmeter]\nmax_runs = 9\nmax_series = 3\n"),
    ],
)
def test_keywords_win_over_environment_over_file(tmp_path: Path, file: str, text: str) -> None:
    """Each source fills only what those before it left open."""
    path = tmp_path / file
    path.write_text(text)
    environ = {"LANGMETER_CONFIG": str(path), "LANGMETER_MAX_SERIES": "4"}
    assert MeterConfig.load(environ=environ) == MeterConfig(max_runs=9, max_series=4)
    assert MeterConfig.load(path, environ={}, max_runs=2) == MeterConfig(max_runs=2, max_series=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_runs =", "settings.toml:1: cannot be read as TOML"),
        ("max_rnus = 3", "did you mean 'max_runs'"),
        ("max_runs = 0", "max_runs must be"),
        ("langmeter = 3", "must be a table"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file and what is wrong in it."""
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        MeterConfig.load(path)
    assert "settings.toml" in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A file that was asked for must be there."""
    with pytest.raises(ConfigError, match="the configuration must be the path of a TOML file"):
        MeterConfig.load(tmp_path / "none.toml")
