"""The command `langmeter`: run a program with a meter, the demo, and questions to a snapshot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import langmeter
from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli import compare, run

if TYPE_CHECKING:
    from datetime import datetime

    from langmeter.prices import PriceBook
    from langmeter.snapshot import Snapshot

#: Most calls of the demo, and most of them at a time.
_MOST: Final = 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; `argv` without the program's name, by default from `sys.argv`.

    Returns the exit code. Exceptions of a program under `langmeter run` pass through.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # argparse would read a program's options as its own: what follows the program is set apart.
    program: list[str] = []
    if arguments[:1] == ["run"]:
        start = run.program_starts(arguments)
        arguments, program = arguments[:start], arguments[start:]
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit:
        output.flush()
        raise
    if options.command == "run":
        return run.run(program, options)
    try:
        return _answer(options, parser)
    except KeyboardInterrupt:
        return 130


def _answer(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if options.command == "demo":
        return _demo(options)
    if options.command == "advice":
        return _advice(options)
    if options.command == "bottlenecks":
        return _bottlenecks(options)
    if options.command == "prices":
        return _prices(options)
    if options.command == "compare":
        return compare.run(options, lambda file: _snapshot(file, options.parser))
    parser.print_help(sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="langmeter", description="The meter for LangChain.")
    parser.add_argument("--version", action="version", version=f"langmeter {langmeter.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run.add(commands)
    demo = commands.add_parser(
        "demo", help="meter a real pipeline against a simulated service on loopback"
    )
    demo.add_argument("--calls", type=_positive, metavar="N", help="how many calls")
    demo.add_argument("--concurrency", type=_positive, metavar="C", help="how many at a time")
    demo.add_argument("--json", metavar="FILE", help="also write the snapshot to FILE")
    demo.set_defaults(parser=demo)
    _add_money(commands)
    _add_bottlenecks(commands)
    compare.add(commands)
    return parser


def _add_money(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    advice = commands.add_parser(
        "advice",
        help="what a snapshot says about spending less",
        description="Print what a snapshot says about spending less: each finding with its "
        "figures and the USD it would have saved on that very traffic, the greatest first.",
    )
    advice.add_argument("file", metavar="FILE", help="a snapshot, as JSON")
    advice.add_argument(
        "--alternative",
        action="append",
        default=[],
        metavar="PROVIDER/MODEL",
        help="also compare every model with this one; may be repeated",
    )
    prices = commands.add_parser(
        "prices",
        help="what a model costs, and who says so",
        description="Print what a model costs, and who says so; exit code 1 when nobody does.",
    )
    prices.add_argument(
        "model", metavar="MODEL", help="a name, or provider/name as reports show it"
    )
    prices.add_argument(
        "--provider", default="", metavar="P", help="derived from MODEL where it can be"
    )
    prices.add_argument("--deployment", default="", metavar="D", help="that has an own price")
    prices.add_argument("--tier", default="", metavar="T", help="batch, flex, priority …")
    prices.add_argument("--at", type=_moment, metavar="ISO", help="a date or time, UTC; now if not")
    for command in (advice, prices):
        command.add_argument("--prices", metavar="FILE", help="own prices, .toml or .json")
        command.set_defaults(parser=command)


def _add_bottlenecks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "bottlenecks",
        help="where the time of a pipeline goes, by a snapshot",
        description="Print where the time of the pipelines in a snapshot went: own time and share "
        "of the critical path of each chain, tool, retriever and model, and what it would give to "
        "make it twice as fast.",
    )
    command.add_argument("file", metavar="FILE", help="a snapshot, as JSON")
    command.add_argument("--json", action="store_true", help="the table as JSON")
    command.set_defaults(parser=command)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(_MOST)) else 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1 to {_MOST:,}")
    return number


def _moment(text: str) -> datetime:
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{error}; write e.g. 2026-10-14 or 2026-10-14T09:30"
        ) from None


def _demo(options: argparse.Namespace) -> int:
    from langmeter.demo import run_demo

    if options.json is not None:
        output.check_file("--json", options.json, options.parser)
    chosen = {name: getattr(options, name) for name in ("calls", "concurrency", "json")}
    return run_demo(**{name: value for name, value in chosen.items() if value is not None})


def _advice(options: argparse.Namespace) -> int:
    from langmeter.analysis import advise, text

    parser: argparse.ArgumentParser = options.parser
    snapshot = _snapshot(options.file, parser)
    book = _book(options)
    try:
        findings = advise(snapshot, prices=book, alternatives=options.alternative)
    except ValueError as error:
        parser.error(str(error))
    output.show(text(findings))
    return 0


def _bottlenecks(options: argparse.Namespace) -> int:
    from langmeter.analysis.bottlenecks import text, to_json

    snapshot = _snapshot(options.file, options.parser)
    width = output.terminal_width(sys.stdout)
    output.show(to_json(snapshot, indent=1) if options.json else text(snapshot, width))
    return 0


def _snapshot(file: str, parser: argparse.ArgumentParser) -> Snapshot:
    """Read a snapshot that `langmeter run --json` or `Snapshot.to_json` wrote."""
    from langmeter.snapshot import Snapshot

    try:
        return Snapshot.from_json(Path(file).read_bytes())
    except OSError as error:
        parser.error(f"cannot read {printable(file)}: {output.reason(error)}")
    except ValueError as error:
        parser.error(f"{printable(file)}: {error}")


def _prices(options: argparse.Namespace) -> int:
    if not options.model.strip():
        options.parser.error("MODEL must be the name of a model, e.g. openai/gpt-4o")
    book = _book(options)
    asked = [(options.provider, options.model)]
    if "/" in options.model and not options.provider:
        # As the reports name it; but some models' own names begin with their maker's.
        asked.insert(0, options.model.split("/", 1))
    more = {"deployment": options.deployment, "tier": options.tier, "at": options.at}
    answers = [book.explain(*names, **more) for names in asked]
    found = next((answer for answer in answers if answer.card is not None), None)
    output.show(str(found or answers[0]))
    return 0 if found else 1


def _book(options: argparse.Namespace) -> PriceBook:
    from langmeter.prices import PriceBook

    parser: argparse.ArgumentParser = options.parser
    try:
        return PriceBook(options.prices)
    except OSError as error:
        parser.error(f"cannot read {printable(options.prices)}: {output.reason(error)}")
    except ValueError as error:
        parser.error(printable(error))
