"""The command `langmeter top`: what a source does at present."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import sleep
from typing import TYPE_CHECKING

from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli.files import SOURCE, refusing

if TYPE_CHECKING:
    from langmeter.report.top import Figures


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "top",
        help="what goes on at present: calls, money and budgets, live",
        description="Show what a source does at present, as `top` shows processes: calls a second, "
        "calls in flight, errors, durations, tokens and US dollars an hour by model, what is used "
        "of its tightest budget and the time to the limit, providers that are not ready, and open "
        "alerts. Keys choose the order, q ends it. Where the output is not a terminal, one reading "
        "is printed.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument("--once", action="store_true", help="print one reading, and end")
    command.add_argument("--json", action="store_true", help="print one reading as JSON, and end")
    command.add_argument(
        "--line",
        action="store_true",
        help="print one line for each reading, for status bars; with --once, one line",
    )
    command.add_argument(
        "--by",
        default="provider,model",
        metavar="NAMES",
        help="rows by provider, model, or the keys of a label, with commas (provider,model)",
    )
    command.add_argument(
        "--sort",
        default="cost",
        metavar="BY",
        help="cost, calls, flight, errors, latency, ttft, tokens, budget or name (cost)",
    )
    command.add_argument(
        "--interval", default="2s", metavar="T", help="time between two readings (2s)"
    )
    command.add_argument(
        "--window", default="1m", metavar="T", help="time that the figures are of (1m)"
    )
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter._base.spans import seconds_of
    from langmeter.report.recent import Reader
    from langmeter.report.top import figures

    parser: argparse.ArgumentParser = options.parser
    names = tuple(name.strip() for name in options.by.split(","))
    with refusing(options.source, parser):
        interval = seconds_of("--interval", options.interval)
        reader = Reader(options.source, seconds_of("--window", options.window))

    def read() -> Figures:
        return figures(reader.read(), names, options.sort)

    with refusing(options.source, parser):
        first = read()
    if options.line:
        return _lines(options, first, read, interval)
    if options.json:
        output.show_json(first.to_dict())
        return 0
    width = output.terminal_width(sys.stdout)
    if options.once or width is None:
        from langmeter.report.top import text

        output.show(text(first, width))
        return 0
    return _live(options, read, interval)


def _live(options: argparse.Namespace, read: Callable[[], Figures], interval: float) -> int:
    from langmeter.errors import SourceError

    try:
        from langmeter.report.top.screen import show

        failures = (OSError, ValueError, SourceError)
        show(options.source, read, interval=interval, sort=options.sort, failures=failures)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        output.complain("langmeter top needs rich: pip install 'langmeter[top]', or pass --once")
        return 2
    return 0


def _lines(
    options: argparse.Namespace, first: Figures, read: Callable[[], Figures], interval: float
) -> int:
    from langmeter.errors import SourceError
    from langmeter.report.top import line

    output.show(line(first))
    while not options.once:
        sleep(interval)
        try:
            text = line(read())
        except (OSError, ValueError, SourceError) as error:
            text = f"cannot be read: {printable(error)}"
        output.show(text)
    return 0
