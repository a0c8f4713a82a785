"""Where settings come from besides keywords: the environment and a TOML file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from langmeter._base.check import real_number, whole_number
from langmeter.errors import ConfigError

#: Lowest and highest value of each setting, both allowed.
RANGES: dict[str, tuple[float, float]] = {
    "max_series": (1, 1_000_000),
    "max_runs": (1, 16_777_216),
    "max_run_age": (0.001, 31_536_000.0),
    "significant_digits": (2, 3),
}

#: What to do about a value outside its range.
_REMEDIES = {
    "max_series": "it caps the label sets (models and components); what is over goes to `other`",
    "max_runs": "it caps the runs in flight; the oldest is reaped as `abandoned`",
    "max_run_age": "it is the age in seconds at which a run without an end is `abandoned`",
    "significant_digits": "2 costs 27 KB a histogram and errs by 1 %, 3 costs 188 KB and 0.1 %",
}


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def checked(name: str, value: object, source: str) -> int | float:
    """Return a value in the range of its setting; the ConfigError for another names `source`."""
    low, high = RANGES[name]
    remedy = _REMEDIES[name]
    if isinstance(low, int):
        return whole_number(source, value, low, int(high), remedy=remedy)
    return real_number(source, value, low, high, remedy=remedy)


def unknown_setting(name: str, source: str, names: Collection[str]) -> ConfigError:
    """Return the error about a name that is not in `names`."""
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(RANGES)}"
    return ConfigError(f"unknown setting {name!r} in {source}; {hint}")


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that are variables, `LANGMETER_MAX_RUNS` for one; raises ConfigError."""
    settings = {}
    for name in RANGES:
        text = environ.get(variable := f"LANGMETER_{name.upper()}", "").strip()
        if text:
            settings[name] = checked(name, _number(text), variable)
    return settings


def from_toml(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the settings in a file; raises ConfigError. `names` are those to suggest."""
    import tomllib  # 5 ms, and only for those who have a file

    try:
        data: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"cannot read the configuration {str(path)!r}: {exc}; "
            "name a TOML file, or unset LANGMETER_CONFIG"
        ) from exc
    if path.name == "pyproject.toml":
        data = data.get("tool", {}).get("langmeter", {})
    else:
        data = data.get("langmeter", data)
    if not isinstance(data, dict):
        raise ConfigError(f"{str(path)!r}: langmeter = {data!r}: must be a table of settings")
    for name, value in data.items():
        if name not in RANGES:
            raise unknown_setting(name, f"{str(path)!r}: key", names)
        checked(name, value, f"{str(path)!r}: {name}")
    return data
