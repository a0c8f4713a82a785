"""The command `langmeter`: reads the arguments, and hands them to the module of their command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import langmeter
from langmeter._base import output
from langmeter.cli import (
    advice,
    alerts,
    bottlenecks,
    compare,
    config,
    dashboard,
    defects,
    demo,
    export,
    fold,
    history,
    prices,
    report,
    run,
    serve,
    top,
)

#: Commands that answer a question, in the order of the help.
_COMMANDS: Final = {
    "demo": demo,
    "advice": advice,
    "prices": prices,
    "bottlenecks": bottlenecks,
    "compare": compare,
    "defects": defects,
    "history": history,
    "alerts": alerts,
    "export": export,
    "fold": fold,
    "report": report,
    "serve": serve,
    "top": top,
    "config": config,
    "dashboard": dashboard,
}


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
        if options.command in _COMMANDS:
            code: int = _COMMANDS[options.command].run(options)
            return code
        parser.print_help(sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="langmeter", description="The meter for LangChain.")
    parser.add_argument("--version", action="version", version=f"langmeter {langmeter.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in (run, *_COMMANDS.values()):
        command.add(commands)
    return parser
