"""The command `langmeter prices`: what a model costs, and who says so."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from langmeter._base import output
from langmeter.cli.files import read_prices


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "prices",
        help="show a model's price and its source",
        description="Print a model's price and its source; exit code 1 when no price is known.",
    )
    command.add_argument(
        "model", metavar="MODEL", help="a name, or provider/name as reports show it"
    )
    command.add_argument(
        "--provider", default="", metavar="P", help="derived from MODEL where it can be"
    )
    command.add_argument("--deployment", default="", metavar="D", help="that has an own price")
    command.add_argument("--tier", default="", metavar="T", help="batch, flex, priority …")
    command.add_argument(
        "--at", type=_moment, metavar="ISO", help="a date or time, UTC; now if not"
    )
    command.add_argument("--prices", metavar="FILE", help="own prices, .toml or .json")
    command.add_argument("--json", action="store_true", help="the price as JSON")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if not options.model.strip():
        options.parser.error("MODEL must be the name of a model, e.g. openai/gpt-4o")
    book = read_prices(options)
    pairs = [(options.provider, options.model)]
    if "/" in options.model and not options.provider:
        # As the reports name it; but some models' own names begin with their maker's.
        pairs.insert(0, options.model.split("/", 1))
    more = {"deployment": options.deployment, "tier": options.tier, "at": options.at}
    answers = [book.explain(*pair, **more) for pair in pairs]
    priced = next((answer for answer in answers if answer.card is not None), None)
    answer = priced or answers[0]
    if options.json:
        output.show_json(answer.to_dict())
    else:
        output.show(str(answer))
    return 0 if priced else 1


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{error}; write e.g. 2026-10-14 or 2026-10-14T09:30"
        ) from None
