"""The command `langmeter run`: its options, and the meter that they describe."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli import run_program
from langmeter.cli.session import Session

if TYPE_CHECKING:
    from langmeter.budgets import Budget
    from langmeter.meter import Meter

_USAGE: Final = """langmeter run [-h] [--json FILE] [--labels KEY[,KEY]] [--prices FILE]
                     [--budget LIMIT] [--config FILE] (script.py | -m module) [args ...]"""
#: Options that are followed by a value.
_WITH_VALUE: Final = ("--json", "--labels", "--prices", "--budget", "--config")
#: What `--budget` takes of a scope by a name of its own; other keys are written `scope.KEY`.
_SCOPES: Final = ("provider", "model", "tag")


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the meter, as plain data: the workers of a program make the same meter of them.

    Attributes:
        labels: keys of a call's metadata.
        prices: absolute path of a file with own prices; None without.
        budgets: texts as `parse_budget` reads them.
        config: absolute path of a configuration file; None without.
    """

    labels: tuple[str, ...] = ()
    prices: str | None = None
    budgets: tuple[str, ...] = ()
    config: str | None = None

    def meter(self) -> Meter:
        """Return a new meter; raises OSError or ValueError for what cannot be read or is wrong."""
        from langmeter.config import Config
        from langmeter.meter import Meter
        from langmeter.prices import PriceBook

        return Meter(
            labels=self.labels,
            prices=None if self.prices is None else PriceBook(self.prices),
            budgets=[parse_budget(text) for text in self.budgets],
            config=Config.load(self.config),
        )


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        usage=_USAGE,
        allow_abbrev=False,
        help="run a Python script or module with every LangChain call metered",
        description="Run a Python script or module with every LangChain call metered, in its "
        "threads and in the processes that it forks or starts by multiprocessing; print the report "
        "to standard error when it ends, also by SIGTERM or SIGHUP.",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the snapshot to FILE")
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="KEY[,KEY]",
        help="also count by the values of these keys of a call's metadata, up to three",
    )
    parser.add_argument("--prices", metavar="FILE", help="own prices, .toml or .json")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="LIMIT",
        help='a limit: "usd=5,per=day,action=block", "tokens=1000000,model=gpt-4o*", '
        '"calls=100,scope.team=search"; each process has it for itself; may be repeated',
    )
    parser.add_argument("--config", metavar="FILE", help="settings, .toml")
    parser.set_defaults(parser=parser)


def program_starts(arguments: Sequence[str]) -> int:
    """Return where in `run …` the program begins: `-m`, `--`, or the first word without a dash."""
    place = 1
    while place < len(arguments):
        word = arguments[place]
        if word in _WITH_VALUE:
            place += 2
        elif word in ("-m", "--") or not word.startswith("-"):
            break
        else:
            place += 1
    return place


def run(program: list[str], options: argparse.Namespace) -> int:
    """Run the program; returns 0 after its last line. Its exceptions pass through."""
    parser: argparse.ArgumentParser = options.parser
    if program[:1] == ["--"]:
        del program[0]
    is_module = program[:1] == ["-m"]
    if is_module:
        del program[0]
    if not program:
        parser.error("name a script, or -m and a module")
    json = None if options.json is None else output.check_file("--json", options.json, parser)
    # Paths are made absolute now: the program may change its directory.
    settings = Settings(
        tuple(key.strip() for keys in options.labels for key in keys.split(",")),
        options.prices and str(Path(options.prices).absolute()),
        tuple(options.budget),
        options.config and str(Path(options.config).absolute()),
    )
    session = Session(json=json)
    try:
        session.begin(settings)
    except OSError as error:
        session.end()
        name = printable(error.filename or options.prices)
        parser.error(f"cannot read {name}: {output.reason(error)}")
    except ValueError as error:
        session.end()
        parser.error(printable(error))
    target, *arguments = program
    try:
        if is_module:
            run_program.run_module(target, arguments)
        else:
            run_program.run_script(target, arguments)
    except run_program.NotStarted:
        session.end()
        raise
    return 0


def parse_budget(text: str) -> Budget:
    """Read a budget as `--budget` takes it: `usd=5,per=day,action=block`.

    Keys are the arguments of `langmeter.Budget`; those of its scope are `provider`, `model`, `tag`
    and `scope.KEY`. Several values are separated by `|`. Raises ValueError.
    """
    from langmeter.budgets import Budget

    simple = [
        name
        for name in inspect.signature(Budget).parameters
        if name not in ("scope", "on_threshold")
    ]
    arguments: dict[str, Any] = {}
    scope: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise _no_budget(text, f"{part.strip()!r} must be KEY=VALUE")
        if key in arguments or key in scope:
            raise _no_budget(text, f"{key!r} must be given once")
        if key in _SCOPES:
            scope[key] = tuple(value.split("|"))
        elif key.startswith("scope.") and key != "scope.":
            scope[key.removeprefix("scope.")] = tuple(value.split("|"))
        elif key in simple:
            arguments[key] = _value(key, value)
        else:
            known = ", ".join([*simple, *_SCOPES, "scope.KEY"])
            raise _no_budget(text, f"{key!r} must be one of {known}")
    try:
        return Budget(scope=scope, **arguments)
    except ValueError as error:
        raise ValueError(f"--budget {text!r}: {error}") from None


def _value(key: str, value: str) -> Any:
    """Convert a value to the type that `Budget` takes; it refuses what does not convert."""
    try:
        if key in ("tokens", "calls"):
            return int(value)
        if key == "at":
            return tuple(map(float, value.split("|")))
    except ValueError:
        pass
    return value


def _no_budget(text: str, why: str) -> ValueError:
    return ValueError(f"--budget {text!r}: {why}; write e.g. usd=5,per=day,action=block")
