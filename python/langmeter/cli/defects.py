"""The command `langmeter defects`: which model fixes which defects."""

from __future__ import annotations

import argparse
import sys

from langmeter._base import output
from langmeter.cli.files import SOURCE, read_snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "defects",
        help="which model fixes which defects, and at what price, by a snapshot",
        description="Print how each model did at each type and severity of defect: share of "
        "defects fixed with its 99 % interval, cost of a fix, and which model is better; then how "
        "far attempts came. A model is called best only where its interval lies above that of each "
        "other model.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument("--json", action="store_true", help="the tables as JSON")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.analysis.fixes import defects

    report = defects(read_snapshot(options.source, options.parser))
    width = output.terminal_width(sys.stdout)
    output.show(report.to_json(indent=1) if options.json else report.text(width))
    return 0
