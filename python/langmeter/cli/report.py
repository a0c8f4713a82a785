"""The command `langmeter report`: figures as a page for people."""

from __future__ import annotations

import argparse

from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli.files import SOURCE, read_prices, read_snapshot, refusing

_FILE = "report.html"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "report",
        usage="langmeter report [-h] [-o FILE] [--json] [--since T] [--until T]\n"
        "                        [--prices FILE] [--title TEXT] [BASE] SOURCE",
        help="figures as one HTML page, which needs no network",
        description="Write a page about a source: money, percentiles, time to first token, where "
        "the time goes, failures, defects and advice, each figure with what it means and what to "
        "do; of a history also lines by time. With two sources, the second is compared with the "
        "first.",
    )
    command.add_argument(
        "sources", nargs="+", metavar="SOURCE", help=f"{SOURCE}; of two, the first is the base"
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", help=f"the page ({_FILE}), or with --json its figures"
    )
    command.add_argument(
        "--json", action="store_true", help="print the figures of the page as JSON instead"
    )
    command.add_argument(
        "--since", metavar="T", help="of a history: 7d (ago), or 2026-10-14T09:30, UTC"
    )
    command.add_argument("--until", metavar="T", help="the same; now if not given")
    command.add_argument(
        "--prices", metavar="FILE", help="own prices of the advice, .toml or .json"
    )
    command.add_argument("--title", default="langmeter report", metavar="TEXT", help="its heading")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.report import html

    parser: argparse.ArgumentParser = options.parser
    *bases, source = options.sources
    if len(bases) > 1:
        parser.error(f"SOURCE must be one or two sources, got {len(bases) + 1}; name two at most")
    file = options.output or (None if options.json else _FILE)
    path = None if file is None else output.check_file("--output", file, parser)
    base = read_snapshot(bases[0], parser) if bases else None
    chosen = {
        "since": options.since,
        "until": options.until,
        "prices": read_prices(options),
    }
    with refusing(source, parser):
        if options.json:
            text = output.json_text(html.figures(source, base, **chosen)) + "\n"
        else:
            text = html.report(source, base, title=options.title, **chosen)
    if path is None:
        output.show(text.rstrip("\n"))
        return 0
    failure = output.write_file(path, text)
    if failure is not None:
        parser.error(failure)
    output.show(f"report: {printable(file)} ({len(text.encode()) / 1000:.0f} kB)")
    return 0
