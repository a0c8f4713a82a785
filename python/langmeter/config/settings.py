"""One frozen configuration: from keywords, the environment, a TOML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from langmeter._base.check import real_number, whole_number
from langmeter._core import ManualClock
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of a recorder.

    Attributes:
        max_series: label sets with figures of their own, 1 to 1,000,000.
        max_runs: runs in flight, 1 to 16,777,216.
        max_run_age: seconds after which a run without an end counts as abandoned, 0.001 to a year.
        significant_digits: precision of the distributions, 2 or 3.
        clock: a clock moved by hand, for tests; None for the real one.

    Raises:
        ConfigError: a value is of the wrong type or outside its range.
    """

    max_series: int = 1024
    max_runs: int = 65_536
    max_run_age: float = 3600.0
    significant_digits: int = 3
    clock: ManualClock | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in RANGES:
            object.__setattr__(self, name, _checked(name, getattr(self, name), name))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Config:
        """Merge the sources; the first that names a setting wins.

        Keywords, then `LANGMETER_MAX_RUNS` and its like in `environ` (default: `os.environ`, read
        now), then the TOML file `path` or `LANGMETER_CONFIG`, then the defaults. In the file the
        settings stand at the top, in `[langmeter]`, or in `[tool.langmeter]` of a pyproject.toml.

        Raises:
            ConfigError: a setting is unknown, of the wrong type or outside its range, or the file
                cannot be read.
        """
        environ = os.environ if environ is None else environ
        path = path or environ.get("LANGMETER_CONFIG") or None
        merged = {} if path is None else _from_toml(Path(path))
        for name in RANGES:
            text = environ.get(variable := f"LANGMETER_{name.upper()}", "").strip()
            if text:
                merged[name] = _checked(name, _number(text), variable)
        for name, value in settings.items():
            if name not in _NAMES:
                raise _unknown(name, "keyword")
            merged[name] = value
        return cls(**merged)

    @classmethod
    def chosen(cls, config: Config | None, settings: Mapping[str, Any]) -> Config:
        """`config` itself, or without one what the keywords make; TypeError when given both."""
        if config is None:
            return cls.load(**settings)
        if not isinstance(config, Config):
            raise TypeError(
                f"config = {config!r}: must be a langmeter.Config; or give its settings"
            )
        if settings:
            raise TypeError(f"give either config or {', '.join(settings)}, not both")
        return config

    def recorder_settings(self) -> dict[str, Any]:
        """Keywords for `_core.Recorder`."""
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(f.name for f in fields(Config))


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked(name: str, value: object, source: str) -> int | float:
    low, high = RANGES[name]
    remedy = _REMEDIES[name]
    if isinstance(low, int):
        return whole_number(source, value, low, int(high), remedy=remedy)
    return real_number(source, value, low, high, remedy=remedy)


def _unknown(name: str, source: str) -> ConfigError:
    near = get_close_matches(name, _NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(RANGES)}"
    return ConfigError(f"{source} {name!r} is no setting of langmeter; {hint}")


def _from_toml(path: Path) -> dict[str, Any]:
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
            raise _unknown(name, f"{str(path)!r}: key")
        _checked(name, value, f"{str(path)!r}: {name}")
    return data
