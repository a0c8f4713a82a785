"""The command `langmeter bottlenecks`: where the time of pipelines went."""

from __future__ import annotations

import argparse
import sys

from langmeter._base import output
from langmeter.cli.files import SOURCE, read_snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "bottlenecks",
        help="where the time of a pipeline goes, by a snapshot",
        description="Print where the time of the pipelines in a snapshot went: own time and share "
        "of the critical path of each chain, tool, retriever and model, and what it would give to "
        "make it twice as fast.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument("--json", action="store_true", help="the table as JSON")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.analysis.bottlenecks import text, to_json

    snapshot = read_snapshot(options.source, options.parser)
    width = output.terminal_width(sys.stdout)
    output.show(to_json(snapshot, indent=1) if options.json else text(snapshot, width))
    return 0
