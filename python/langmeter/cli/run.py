"""The command `langmeter run`: its options, and the meter that they describe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from langmeter._base import output
from langmeter._base.text import printable, printable_lines
from langmeter.cli import run_program
from langmeter.cli.session import Session

if TYPE_CHECKING:
    from langmeter.meter import Meter

_USAGE: Final = """langmeter run [-h] [--json FILE] [--labels KEY[,KEY]] [--prices FILE]
                     [--budget LIMIT] [--config FILE] (script.py | -m module) [args ...]"""
#: Options that are followed by a value.
_WITH_VALUE: Final = ("--json", "--labels", "--prices", "--budget", "--config")


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of the meter, as plain data: the workers of a program make the same meter of them.

    Attributes:
        labels: keys of a call's metadata; empty for those of the configuration.
        prices: absolute path of a file with own prices; None for those of the configuration.
        budgets: texts as `parse_budget` reads them; empty for those of the configuration.
        config: absolute path of a configuration file; "" for none.
    """

    labels: tuple[str, ...] = ()
    prices: str | None = None
    budgets: tuple[str, ...] = ()
    config: str = ""

    def meter(self, directory: str | None) -> Meter:
        """Return a new meter, which counts into a file of a directory; in memory without one.

        Raises OSError or ValueError for what cannot be read or is wrong.
        """
        from langmeter.budgets import parse_budget
        from langmeter.config import MeterConfig
        from langmeter.meter import Meter
        from langmeter.prices import PriceBook

        config = MeterConfig.load(
            self.config,
            labels=self.labels or None,
            prices=None if self.prices is None else PriceBook(self.prices),
            budgets=[parse_budget(text) for text in self.budgets] or None,
            directory=directory or False,
        )
        return Meter(config=config)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        usage=_USAGE,
        allow_abbrev=False,
        help="run a Python script or module with every LangChain call metered",
        description="Run a Python script or module with every LangChain call metered, in its "
        "threads and in the processes that it forks or starts by multiprocessing; print the report "
        "to standard error when it ends, also by SIGTERM or another signal.",
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
        '"calls=100,scope.team=search"; on Linux one for all processes of the run; may be repeated',
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
    from langmeter.config import find_file

    # Paths are made absolute now: the program may change its directory.
    config = find_file(options.config, os.environ)
    settings = Settings(
        tuple(key.strip() for keys in options.labels for key in keys.split(",")),
        options.prices and str(Path(options.prices).absolute()),
        tuple(options.budget),
        "" if config is None else str(config.absolute()),
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
        parser.error(printable_lines(error))
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
