"""The command `langmeter`: run a program with a meter on, the demo, and questions about money."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import langmeter
from langmeter import _compare, _program

if TYPE_CHECKING:
    from datetime import datetime

    from langmeter import Meter
    from langmeter.prices import PriceBook
    from langmeter.snapshot import Snapshot

_RUN_USAGE = "langmeter run [-h] [--json FILE] (script.py | -m module) [args ...]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; `argv` without the program's name, by default from `sys.argv`.

    Returns the exit code. Whatever a program under `langmeter run` raises goes on its way.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # argparse would take a program's options for its own: what follows the program is set apart.
    program: list[str] = []
    if arguments[:1] == ["run"]:
        start = _program_starts(arguments)
        arguments, program = arguments[:start], arguments[start:]
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "demo":
        return _demo(options)
    if options.command == "advice":
        return _advice(options)
    if options.command == "bottlenecks":
        return _bottlenecks(options)
    if options.command == "prices":
        return _prices(options)
    if options.command == "compare":
        return _compare.run(options, lambda file: _snapshot(file, options.parser))
    if options.command == "run":
        return _run(program, options.json, options.parser)
    parser.print_help(sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="langmeter", description="The meter for LangChain.")
    parser.add_argument("--version", action="version", version=f"langmeter {langmeter.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        usage=_RUN_USAGE,
        help="run a Python script or module with every LangChain call metered",
        description="Run a Python script or module with every LangChain call of the process "
        "metered, threads included; print the report to standard error when it ends.",
    )
    run.add_argument("--json", metavar="FILE", help="also write the snapshot to FILE")
    run.set_defaults(parser=run)
    demo = commands.add_parser(
        "demo", help="meter a real pipeline against a simulated service on loopback"
    )
    demo.add_argument("--calls", type=_positive, metavar="N", help="how many calls")
    demo.add_argument("--concurrency", type=_positive, metavar="C", help="how many at a time")
    demo.add_argument("--json", metavar="FILE", help="also write the snapshot to FILE")
    demo.set_defaults(parser=demo)
    _add_money(commands)
    _add_bottlenecks(commands)
    _compare.add(commands)
    return parser


def _add_money(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    advice = commands.add_parser(
        "advice",
        help="what a snapshot says about spending less",
        description="Print what a snapshot says about spending less: each finding with its "
        "figures and the USD it would have saved on that very traffic, the greatest first.",
    )
    advice.add_argument("file", metavar="FILE", help="a snapshot: JSON, or the bytes of to_bytes()")
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
        "--provider", default="", metavar="P", help="told from MODEL where it can be"
    )
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
    command.add_argument(
        "file", metavar="FILE", help="a snapshot: JSON, or the bytes of to_bytes()"
    )
    command.add_argument("--json", action="store_true", help="the table as JSON")
    command.set_defaults(parser=command)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 1 or more")
    return int(text)


def _moment(text: str) -> datetime:
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{error}; write e.g. 2026-10-14 or 2026-10-14T09:30"
        ) from None


def _program_starts(arguments: Sequence[str]) -> int:
    """Where in `run …` the program begins: `-m`, `--`, or the first word that is no option."""
    place = 1
    while place < len(arguments):
        word = arguments[place]
        if word == "--json":
            place += 2
        elif word in ("-m", "--") or not word.startswith("-"):
            break
        else:
            place += 1
    return place


def _demo(options: argparse.Namespace) -> int:
    from langmeter.demo import run_demo

    _check_file(options.json, options.parser)
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
    print(text(findings))
    return 0


def _bottlenecks(options: argparse.Namespace) -> int:
    from langmeter.analysis.bottlenecks import text, to_json

    snapshot = _snapshot(options.file, options.parser)
    print(to_json(snapshot, indent=1) if options.json else text(snapshot))
    return 0


def _snapshot(file: str, parser: argparse.ArgumentParser) -> Snapshot:
    """A snapshot in any form that langmeter writes."""
    from langmeter.snapshot import Snapshot

    try:
        data = Path(file).read_bytes()
        is_json = data.lstrip().startswith(b"{")
        return Snapshot.from_json(data) if is_json else Snapshot.from_bytes(data)
    except OSError as error:
        parser.error(f"cannot read {file}: {error.strerror}")
    except ValueError as error:
        parser.error(f"{file}: {error}")


def _prices(options: argparse.Namespace) -> int:
    book = _book(options)
    asked = [(options.provider, options.model)]
    if "/" in options.model and not options.provider:
        # As the reports name it; but some models' own names begin with their maker's.
        asked.insert(0, options.model.split("/", 1))
    answers = [book.explain(*names, tier=options.tier, at=options.at) for names in asked]
    found = next((answer for answer in answers if answer.card is not None), None)
    print(found or answers[0])
    return 0 if found else 1


def _book(options: argparse.Namespace) -> PriceBook:
    from langmeter.prices import PriceBook

    parser: argparse.ArgumentParser = options.parser
    try:
        return PriceBook(options.prices)
    except OSError as error:
        parser.error(f"cannot read {options.prices}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))


def _run(program: list[str], json: str | None, parser: argparse.ArgumentParser) -> int:
    if program[:1] == ["--"]:
        del program[0]
    is_module = program[:1] == ["-m"]
    if is_module:
        del program[0]
    if not program:
        parser.error("name a script, or -m and a module")
    _check_file(json, parser)
    meter = langmeter.install()
    # Registered before the program's own exit handlers and therefore run after them, and after its
    # threads; also after an exception, sys.exit() or Ctrl-C.
    atexit.register(_report, meter, json, os.getpid())
    target, *arguments = program
    try:
        if is_module:
            _program.run_module(target, arguments)
        else:
            _program.run_script(target, arguments)
    except _program.NotStarted:
        atexit.unregister(_report)
        raise
    return 0


def _check_file(json: str | None, parser: argparse.ArgumentParser) -> None:
    """Refuse now what could not be written when all the work is done."""
    if json is None:
        return
    path = Path(json).absolute()
    if path.is_dir():
        parser.error(f"--json {json}: this is a directory; name a file")
    if not path.parent.is_dir():
        parser.error(f"--json {json}: no such directory; make it first")


def _report(meter: Meter, json: str | None, pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child: the report is the parent's
    from langmeter.report.terminal import report

    snapshot = meter.snapshot()
    sys.stdout.flush()
    print(f"\n{report(snapshot)}", file=sys.stderr)
    if json is not None:
        try:
            Path(json).write_text(snapshot.to_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"langmeter run: cannot write {json}: {error.strerror}", file=sys.stderr)
