"""The command `langmeter fold`: adds the figures of ended processes in a directory together."""

from __future__ import annotations

import argparse

from langmeter._base import output
from langmeter._base.text import plural, printable

#: Seconds to wait for another process that folds.
_TIMEOUT = 10.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "fold",
        help="add the figures of ended processes in a directory together",
        description="Add the figures of processes that have ended to one file of the directory, "
        "and remove their files. Living processes do this themselves, every ten seconds; no figure "
        "is lost or counted twice.",
    )
    command.add_argument("directory", metavar="DIRECTORY", help="as of Meter(directory=…)")
    command.add_argument(
        "--history",
        metavar="URL",
        help="write to this history what processes that were killed had not; a living process that "
        "writes it does so each minute",
    )
    command.add_argument("--json", action="store_true", help="print what was done as JSON")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code: 1 where files were left alone or another process folds."""
    from langmeter.directory import fold
    from langmeter.directory.unwritten import unwritten
    from langmeter.errors import LangmeterError

    name, written = printable(options.directory), 0
    try:
        folding = fold(options.directory, timeout=_TIMEOUT)
        if options.history is not None and not folding.busy:
            from langmeter.history.recovery import recover_all

            written = recover_all(options.directory, options.history)
        waiting = len(unwritten(options.directory))
    except OSError as error:
        options.parser.error(f"cannot fold {name}: {output.reason(error)}")
    except (LangmeterError, ImportError) as error:
        options.parser.error(printable(error))
    if folding.busy:
        output.complain(f"langmeter fold: another process has been folding for {_TIMEOUT:g} s")
        return 1
    for why in folding.refused:
        output.complain(f"langmeter fold: left alone: {why}")
    if options.json:
        figures = {"folded": folding.folded, "in_use": folding.living, "refused": folding.refused}
        output.show_json({**figures, "written": written, "unwritten": waiting})
        return 1 if folding.refused else 0
    output.show(f"{name}: {plural(folding.folded, 'file')} folded, {folding.living:,} in use")
    if written:
        output.show(f"{plural(written, 'killed worker')} written to the history")
    if waiting:
        remedy = "a process that writes it adds them, or --history URL"
        output.show(f"{plural(waiting, 'killed worker')} not yet in their history: {remedy}")
    return 1 if folding.refused else 0
