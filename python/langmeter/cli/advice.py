"""The command `langmeter advice`: what a snapshot says about spending less."""

from __future__ import annotations

import argparse

from langmeter._base import output
from langmeter.cli.files import SOURCE, read_prices, read_snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "advice",
        help="what a snapshot says about spending less",
        description="Print what a snapshot says about spending less: each finding with its "
        "figures and the USD it would have saved on that very traffic, the greatest first.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument(
        "--alternative",
        action="append",
        default=[],
        metavar="PROVIDER/MODEL",
        help="also compare every model with this one; may be repeated",
    )
    command.add_argument("--prices", metavar="FILE", help="own prices, .toml or .json")
    command.add_argument("--json", action="store_true", help="one array of findings as JSON")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.analysis import advise, text

    parser: argparse.ArgumentParser = options.parser
    snapshot = read_snapshot(options.source, parser)
    book = read_prices(options)
    try:
        findings = advise(snapshot, prices=book, alternatives=options.alternative)
    except ValueError as error:
        parser.error(str(error))
    if options.json:
        output.show_json([finding.to_dict() for finding in findings])
    else:
        output.show(text(findings))
    return 0
