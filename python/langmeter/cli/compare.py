"""The command `langmeter compare`: two snapshots in, a table and an exit code out."""

from __future__ import annotations

import argparse
import sys

from langmeter._base import output
from langmeter.cli.files import SOURCE, read_snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="what got worse between two snapshots; exit code 1 when something did",
        description="Compare two snapshots: what got worse, by how much, and with which "
        "confidence. Exit code 1 when a rule is broken or, where none is given, when anything got "
        "significantly worse; 0 otherwise; 2 for bad input, e.g. a rule about a model that neither "
        "snapshot has.",
    )
    parser.add_argument("base", metavar="BASE", help=f"to compare with: {SOURCE}")
    parser.add_argument("now", metavar="NOW", help="to judge: the same")
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="RULE",
        help='what must not happen: "latency.p95>+10%%", "cost.per_call>+5%%", '
        '"error_rate[openai/gpt-4o]>+1pp"; may be repeated',
    )
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        metavar="P",
        help="probability of a false alarm, over all comparisons together (0.05)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a rule with too few calls or without data is broken, too",
    )
    parser.add_argument("--all", action="store_true", help="also show what did not change")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.set_defaults(parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code: 1 when something got worse."""
    from langmeter.analysis.regression import compare

    base, now = (read_snapshot(file, options.parser) for file in (options.base, options.now))
    try:
        comparison = compare(base, now, options.fail_on, level=options.level, strict=options.strict)
    except ValueError as error:
        options.parser.error(str(error))
    if options.json:
        output.show_json(comparison.to_dict())
    else:
        width = output.terminal_width(sys.stdout)
        output.show(comparison.text(everything=options.all, width=width))
    return 1 if comparison.failed else 0
