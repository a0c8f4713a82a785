"""The command `langmeter history`: figures by time, and files of snapshots into a history."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from langmeter._base import output
from langmeter._base.text import (
    format_count,
    format_duration,
    format_usd,
    plural,
    printable,
    render_table,
    short_name,
)
from langmeter.cli.files import read_snapshot

if TYPE_CHECKING:
    from langmeter.history import Rows

_USAGE: Final = """langmeter history [-h] [--metric METRIC] [--by NAME] [--since T] [--until T]
                         [--step LENGTH] [--json | --csv] URL
       langmeter history import URL FILE [FILE ...]"""
#: Metric that is shown unless another is named: what people ask of a history first.
_METRIC: Final = "cost"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "history",
        usage=_USAGE,
        help="figures of a history, by time",
        description="Print a figure by time and by what it is of, from the history that meters "
        "write (Meter(history=URL)). `import` adds files of snapshots to it, each once.",
    )
    command.add_argument(
        "words",
        nargs="+",
        metavar="URL",
        help="path of an SQLite file, or a URL: postgresql://user@host/database",
    )
    command.add_argument(
        "--metric",
        default=_METRIC,
        help=f"{_METRIC} (the default), calls, error_rate, latency.p95, tokens …; "
        "latency.p95[openai/*] is of these models alone",
    )
    command.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="NAME",
        help="provider, model, a label, component, host or version; may be repeated",
    )
    command.add_argument("--since", metavar="T", help="7d (ago), or 2026-10-14T09:30, UTC")
    command.add_argument("--until", metavar="T", help="the same; now if not given")
    command.add_argument(
        "--step", metavar="LENGTH", help="length of a row: 1m, 1h, 1d; one row if not given"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="one array of rows as JSON; of import, what was added"
    )
    form.add_argument("--csv", action="store_true", help="rows as CSV, with a header")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    parser: argparse.ArgumentParser = options.parser
    words: list[str] = options.words
    try:
        if words[0] == "import":
            return _import(words[1:], options)
        if len(words) > 1:
            parser.error(f"one URL is expected, got {printable(' '.join(words))}")
        _show(options)
    except (OSError, ImportError) as error:
        parser.error(printable(error))
    return 0


def _import(words: Sequence[str], options: argparse.Namespace) -> int:
    """Add files of snapshots to a history."""
    parser: argparse.ArgumentParser = options.parser
    if len(words) < 2:
        parser.error("import needs the URL of a history and a file at least")
    from langmeter.history.importing import add_snapshot

    url, *files = words
    added = 0
    for file in files:
        snapshot = read_snapshot(file, parser)
        try:
            added += add_snapshot(url, snapshot)
        except Exception as error:  # whatever the driver of the database raises
            parser.error(f"{printable(file)}: {printable(str(error).splitlines()[0])}")
    known = len(files) - added
    if options.json:
        output.show_json({"added": added, "known": known})
        return 0
    there = f"; {known:,} had nothing new" if known else ""
    output.show(f"{plural(added, 'snapshot')} added{there}")
    return 0


def _show(options: argparse.Namespace) -> None:
    from langmeter.analysis.metrics import reference
    from langmeter.errors import SourceError
    from langmeter.history import History

    chosen = {name: getattr(options, name) for name in ("by", "since", "until", "step")}
    try:
        rows = History(options.words[0]).query(options.metric, **chosen)
    except (SourceError, ValueError) as error:
        options.parser.error(printable(error))
    names = tuple(dict.fromkeys(options.by))
    if options.json:
        output.show_json(_plain(rows))
    elif options.csv:
        output.show(_csv(rows, names))
    else:
        unit = reference(options.metric)[0].unit
        header = ("start (UTC)", "to", *names, options.metric, "count")
        cells = [
            (
                f"{row.start:%Y-%m-%d %H:%M}",
                f"{row.end:%H:%M}" if (row.end - row.start).days < 1 else f"{row.end:%m-%d %H:%M}",
                *(short_name(row.labels[name] or "(none)") for name in names),
                _figure(row.value, unit),
                f"{row.count:,}",
            )
            for row in rows
        ]
        width = output.terminal_width(sys.stdout)
        output.show("\n".join(render_table(header, cells, width)) if cells else "no data")


def _plain(rows: Rows) -> list[dict[str, object]]:
    return [
        {
            "start": row.start.isoformat(),
            "end": row.end.isoformat(),
            "labels": dict(row.labels),
            "value": row.value,
            "count": row.count,
        }
        for row in rows
    ]


def _csv(rows: Rows, names: Sequence[str]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["start", "end", *names, "value", "count"])
    for row in rows:
        times = row.start.isoformat(), row.end.isoformat()
        lines.writerow([*times, *(row.labels[name] for name in names), row.value, row.count])
    return text.getvalue().rstrip("\n")


def _figure(value: float, unit: str) -> str:
    from decimal import Decimal

    if unit == "s":
        return format_duration(value)
    if unit == "USD":
        return format_usd(Decimal(repr(value)))
    if unit == "share":
        return f"{100 * value:.2f} %"
    return format_count(round(value)) if value == round(value) else f"{value:,.2f}"
