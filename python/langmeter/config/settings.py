"""Settings of a recorder: one frozen configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from langmeter._core import ManualClock
from langmeter.config.origins import (
    RANGES,
    checked,
    from_environment,
    from_toml,
    unknown_setting,
)


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
            object.__setattr__(self, name, checked(name, getattr(self, name), name))

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
        merged = {} if path is None else from_toml(Path(path), _NAMES)
        merged |= from_environment(environ)
        for name in settings:
            if name not in _NAMES:
                raise unknown_setting(name, "keyword", _NAMES)
        return cls(**{**merged, **settings})

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
