"""The command `langmeter export`: figures as a table, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli.files import SOURCE, read_snapshot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "export",
        help="write figures as CSV, JSON lines or Parquet",
        description="Write a row for each model, component, label and failure of a snapshot, and "
        "for attempts at defects. Durations are seconds, amounts US dollars. Figures by time are "
        "what `langmeter history --csv` prints.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a file of .csv, .jsonl or .parquet (which needs pyarrow); else CSV is printed",
    )
    command.add_argument("--json", action="store_true", help="print JSON lines rather than CSV")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.exporters.rows import csv_text, json_lines, write

    parser: argparse.ArgumentParser = options.parser
    snapshot = read_snapshot(options.source, parser)
    if options.output is None:
        text = (json_lines if options.json else csv_text)(snapshot)
        output.show(text.rstrip("\n"))
        return 0
    try:
        write(snapshot, Path(options.output))
    except OSError as error:
        parser.error(f"cannot write {printable(options.output)}: {output.reason(error)}")
    except (ValueError, ImportError) as error:
        parser.error(printable(error))
    return 0
