"""The command `langmeter config`: the settings in force, and where each of them comes from."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langmeter._base import output
from langmeter._base.text import (
    printable,
    printable_lines,
    render_table,
    without_password,
    without_path,
)

if TYPE_CHECKING:
    from langmeter.config import MeterConfig
    from langmeter.errors import ConfigError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "config",
        help="print the settings in force, and where each comes from",
        description="Print the settings of a meter that is made here without keywords, and where "
        "each of them comes from: an environment variable, a line of a file, or the defaults. Exit "
        "code 1 when settings are refused: each is named with what it must be and what helps.",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--check", metavar="FILE", help="read FILE alone, without the environment")
    what.add_argument(
        "--schema", action="store_true", help="print the JSON schema of a file, for editors"
    )
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.config import MeterConfig
    from langmeter.errors import ConfigError

    if options.schema:
        from langmeter.config.schema import json_schema

        output.show(json.dumps(json_schema(MeterConfig), indent=2))
        return 0
    environ = os.environ if options.check is None else {}
    try:
        config = MeterConfig.load(options.check, environ=environ)
    except ConfigError as error:
        _show_problems(error, as_json=options.json)
        return 1
    if options.json:
        output.show_json(_as_json(config))
    else:
        output.show("\n".join(_lines(config)))
    return 0


def _lines(config: MeterConfig) -> Iterator[str]:
    """Yield a table of the settings; their values last, because they can be long."""
    rows = [
        (name, printable(config.origin(name) or "default"), printable(_text(_shown(name, value))))
        for name, value in config.leaves().items()
    ]
    return render_table(("setting", "from", "value"), rows, left=3)


def _show_problems(error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        output.show_json({"problems": [each._asdict() for each in error.problems]})
    else:
        output.complain(printable_lines(error))


def _as_json(config: MeterConfig) -> dict[str, Any]:
    settings = {}
    for name, value in config.leaves().items():
        origin = config.origin(name)
        settings[name] = {
            "value": _json_value(_shown(name, value)),
            "source": "default" if origin is None else origin.source,
            "line": None if origin is None else origin.line,
        }
    return {"settings": settings}


def _shown(name: str, value: object) -> object:
    """Return a setting without what is secret in the addresses of sinks."""
    if not name.startswith("sinks"):
        return value
    if isinstance(value, tuple):
        return tuple(_shown(name, each) for each in value)
    return without_path(value) if isinstance(value, str) else value


def _json_value(value: object) -> bool | int | float | str | None:
    if _is_empty(value):
        return None
    return value if isinstance(value, bool | int | float) else _text(value)


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | tuple | dict) and not value)


def _text(value: object) -> str:
    """Return a value in words, which are never empty."""
    if _is_empty(value):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return without_password(value if isinstance(value, str) and value.strip() else repr(value))
