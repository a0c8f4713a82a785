"""Figures of a source as a table: plain rows, data frames, and files of JSON lines, CSV or Parquet.

A row is a model, a component, a label, a failure, or attempts at defects. `History.query` has the
same by time.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

from langmeter import sources
from langmeter._base.check import refusal
from langmeter._base.frames import frame
from langmeter._core import OUTCOMES, Distribution
from langmeter.snapshot import CallStats, DefectStats, Snapshot
from langmeter.snapshot.stats import SeriesCounts
from langmeter.sources import Source

Row: TypeAlias = "dict[str, Any]"

_TIMES: Final = ("started_at", "taken_at")
_NAMES: Final = (
    *("kind", "provider", "model", "name", "key", "value", "who", "how"),
    *("defect_type", "severity", "strategy", "language"),
)
_TOKENS: Final = ("input", "output", "cache_read", "cache_write", "reasoning", "estimated", "saved")
_DURATIONS: Final = (
    *("latency", "time_to_first_token", "inter_token_latency", "time_per_output_token"),
    "time_to_fix",
)
_FIGURES: Final = ("count", "mean", "p50", "p95", "p99", "max")
_COUNTS: Final = (
    *("calls", *OUTCOMES),
    *(f"{kind}_tokens" for kind in _TOKENS),
    *("unpriced_calls", "attempts", "defects", "closed", "fixed"),
)
#: Columns of every row; None where a figure is not of its kind, or has no data.
COLUMNS: Final = (
    *_TIMES,
    *_NAMES,
    *_COUNTS,
    "cost_usd",
    *(f"{duration}_{figure}" for duration in _DURATIONS for figure in _FIGURES),
)
SUFFIXES: Final = (".jsonl", ".csv", ".parquet")


def rows(source: Source) -> list[Row]:
    """Return a row for each series of a source: `COLUMNS` to their values.

    Durations are seconds, amounts US dollars as exact Decimals, times UTC.

    Raises:
        ConfigError: the source is unknown; the other errors are those of `langmeter.read`.
    """
    snapshot = sources.read(source)
    empty = dict.fromkeys(COLUMNS)
    times = {"started_at": snapshot.started_at, "taken_at": snapshot.taken_at}
    return [{**empty, **times, **names, **figures} for names, figures in _series(snapshot)]


def to_frame(source: Source, library: str | None = None) -> Any:
    """Return the rows as a data frame (of pyarrow a table); amounts are floats.

    Args:
        source: as of `langmeter.sources.open`.
        library: "pandas", "polars" or "pyarrow"; the first of them that is installed if None.

    Raises:
        ConfigError: the source or the library is unknown.
        ImportError: the library is not installed.
    """
    return frame(_columns(rows(source)), library)


def write(source: Source, path: str | os.PathLike[str]) -> None:
    """Write the rows to a file: JSON lines, CSV or Parquet, by its suffix.

    Amounts are exact decimal texts, in Parquet floats; times are ISO 8601, in Parquet timestamps.

    Args:
        source: as of `langmeter.sources.open`.
        path: `.jsonl`, `.csv` or `.parquet`; a file that is there is replaced.

    Raises:
        ConfigError: the source is unknown, or the suffix is another one.
        ImportError: Parquet is asked for, and pyarrow is not installed.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise refusal("path", f"a file of {', '.join(SUFFIXES)}", str(path))
    if path.suffix == ".parquet":
        _write_parquet(rows(source), path)
    else:
        form = csv_text if path.suffix == ".csv" else json_lines
        path.write_text(form(source), encoding="utf-8")


def json_lines(source: Source) -> str:
    """Return the rows as JSON, a line each; amounts are exact decimal texts."""
    lines = (json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) for row in rows(source))
    return "".join(f"{line}\n" for line in lines)


def plain_rows(source: Source) -> list[Row]:
    """Return the rows in values that JSON has, each with the columns that have one."""
    return [
        {name: value for name, value in _plain(row).items() if value is not None}
        for row in rows(source)
    ]


def csv_text(source: Source) -> str:
    """Return the rows as CSV with a header; what has no value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_plain, rows(source)))
    return text.getvalue()


def _series(snapshot: Snapshot) -> Iterator[tuple[Row, Row]]:
    """Yield names and figures of each series."""
    for (provider, model), stats in snapshot.models.items():
        yield {"kind": "model", "provider": provider, "model": model}, _calls(stats)
    for (kind, name), component in snapshot.components.items():
        yield {"kind": kind, "name": name}, _counts(component, component.latency)
    for (key, value), label in snapshot.labels.items():
        yield {"kind": "label", "key": key, "value": value}, _calls(label)
    for (defect_type, provider, model, severity), defect in snapshot.defects.items():
        names = {"provider": provider, "model": model, "severity": severity}
        yield {"kind": "defect", "defect_type": defect_type, **names}, _attempts(defect)
    for (strategy, language), tries in snapshot.defect_strategies.items():
        yield {"kind": "strategy", "strategy": strategy, "language": language}, _attempts(tries)
    for (who, how), count in snapshot.failures.items():
        yield {"kind": "error", "who": who, "how": how}, {"calls": count}


def _counts(stats: SeriesCounts, latency: Distribution) -> Row:
    return {"calls": stats.calls, **stats.outcomes, **_distribution("latency", latency)}


def _calls(stats: CallStats) -> Row:
    row = _counts(stats, stats.latency)
    row |= {f"{kind}_tokens": getattr(stats.tokens, kind) for kind in _TOKENS}
    row |= {"cost_usd": stats.cost, "unpriced_calls": stats.unpriced_calls}
    for name in ("time_to_first_token", "inter_token_latency", "time_per_output_token"):
        row |= _distribution(name, getattr(stats, name))
    return row


def _attempts(stats: DefectStats) -> Row:
    row = _calls(stats.calls)
    row |= {name: getattr(stats, name) for name in ("attempts", "defects", "closed", "fixed")}
    return row | _distribution("time_to_fix", stats.time_to_fix)


def _distribution(name: str, durations: Distribution) -> Row:
    if not durations.count:
        return {f"{name}_count": 0}
    quantiles = {f"{name}_p{q}": durations.quantile(q / 100) for q in (50, 95, 99)}
    ends = {f"{name}_mean": durations.mean, f"{name}_max": durations.max}
    return {f"{name}_count": durations.count, **ends, **quantiles}


def _plain(row: Row) -> Row:
    """Return a row in values that JSON has; amounts keep their digits as texts."""
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    return None if isinstance(value, float) and math.isnan(value) else value


def _columns(table: Iterable[Row]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in table:
        for name, value in row.items():
            columns[name].append(float(value) if isinstance(value, Decimal) else value)
    return columns


def _write_parquet(table: list[Row], path: Path) -> None:
    """Write Parquet whose columns have the same types whatever the rows are."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet needs pip install pyarrow") from error
    whole = {*_COUNTS, *(f"{duration}_count" for duration in _DURATIONS)}
    types = [
        pyarrow.timestamp("us", tz="UTC")
        if name in _TIMES
        else pyarrow.string()
        if name in _NAMES
        else pyarrow.int64()
        if name in whole
        else pyarrow.float64()
        for name in COLUMNS
    ]
    schema = pyarrow.schema(zip(COLUMNS, types, strict=True))
    parquet.write_table(pyarrow.table(_columns(table), schema=schema), path)
