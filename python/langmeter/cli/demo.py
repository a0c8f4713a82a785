"""The command `langmeter demo`: a real pipeline against a simulated service."""

from __future__ import annotations

import argparse
from typing import Final

from langmeter._base import output

#: Most calls of the demo, and most of them at a time.
_MOST: Final = 1_000_000


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "demo", help="meter a real pipeline against a simulated service on loopback"
    )
    command.add_argument("--calls", type=_positive, metavar="N", help="how many calls")
    command.add_argument("--concurrency", type=_positive, metavar="C", help="how many at a time")
    command.add_argument("--json", metavar="FILE", help="also write the snapshot to FILE")
    command.add_argument("--report", metavar="FILE", help="also write an HTML report to FILE")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.demo import run_demo

    for name in ("json", "report"):
        if (file := getattr(options, name)) is not None:
            output.check_file(f"--{name}", file, options.parser)
    names = ("calls", "concurrency", "json", "report")
    chosen = {name: getattr(options, name) for name in names}
    return run_demo(**{name: value for name, value in chosen.items() if value is not None})


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(_MOST)) else 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1 to {_MOST:,}")
    return number
