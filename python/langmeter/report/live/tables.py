"""Tables of the live page: figures by model, provider, label and defect type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    format_usd,
    label_name,
    plural,
    short_name,
)
from langmeter.analysis.fixes import defect_name
from langmeter.analysis.metrics import model_name
from langmeter.report.html.lines import value_text
from langmeter.report.states import ROWS, Cell, Table
from langmeter.snapshot import CallStats, DefectStats, Distribution, ModelStats, Snapshot

#: Tables whose rows have times to the first token, which are not counted by label.
_STREAMED: Final = ("models", "providers")
#: Rows of the table of models.
MODELS: Final = 200

#: Calls, errors and tokens of a row by the minute; None where they are not known.
Pace: TypeAlias = "Callable[[CallStats], tuple[float, float, float] | None]"


def last_minute(stats: CallStats) -> tuple[float, float, float] | None:
    """Return the pace of a row by its window of a minute."""
    rate = stats.rates.get(60)
    if rate is None:
        return None
    return 60 * rate.requests, 60 * rate.errors, 60 * rate.tokens


def mean_of(seconds: float) -> Pace:
    """Return the function for the mean pace of rows that were counted in so many seconds."""
    minutes = max(seconds / 60, 1 / 60)

    def pace(stats: CallStats) -> tuple[float, float, float]:
        return stats.calls / minutes, stats.errors / minutes, stats.tokens.total / minutes

    return pace


def by_what(snapshot: Snapshot, recent: Snapshot, pace: Pace) -> Iterator[Table]:
    """Yield the tables by model, provider, and each label, and that of defects.

    Args:
        snapshot: all figures.
        recent: those of about the last minute; empty where they are not known.
        pace: of a row.
    """
    models = {short_name(model_name(key)): stats for key, stats in snapshot.models.items()}
    yield _calls("models", "By model", "model", models, pace, most=MODELS)
    providers = {short_name(key) or "unknown": s for key, s in snapshot.by("provider").items()}
    yield _calls("providers", "By provider", "provider", providers, pace)
    labels: dict[tuple[str, ...], dict[str, CallStats]] = {}
    for pairs, stats in snapshot.label_rows.items():
        keys = tuple(key for key, _ in pairs)
        name = label_name(*pairs) if len(keys) > 1 else short_name(pairs[0][1]) or "(none)"
        labels.setdefault(keys, {})[name] = stats
    for number, (keys, rows) in enumerate(sorted(labels.items()), 1):
        label = short_name(", ".join(keys))
        yield _calls(f"label-{number}", f"By {label}", label, rows, pace)
    yield _defects(snapshot, recent)


def _calls(
    name: str,
    title: str,
    noun: str,
    rows: Mapping[str, CallStats],
    pace: Pace,
    most: int = ROWS,
) -> Table:
    paces = {row: pace(stats) for row, stats in rows.items()}
    whole = sum(each[0] for each in paces.values() if each is not None) or 1.0
    # By what changes least: a row that moves each second cannot be read.
    ordered = sorted(rows.items(), key=lambda row: (-row[1].calls, row[0]))
    with_models = any(isinstance(stats, ModelStats) for stats in rows.values())
    is_streamed = name in _STREAMED
    cells: list[list[Cell]] = []
    for row, stats in ordered[:most]:
        now = paces[row]
        cells.append(
            [
                row,
                round(now[0] / whole, 4) if now else 0.0,
                *_paces(now),
                *([format_count(stats.in_flight)] if isinstance(stats, ModelStats) else []),
                *_sums(stats),
                *(
                    [format_duration(stats.time_to_first_token.quantile(0.5))]
                    if is_streamed
                    else []
                ),
            ]
        )
    more = len(rows) - most
    return Table(
        name,
        title,
        f"Calls, errors and tokens by the minute, then all that was counted, by {noun}.",
        (
            *(noun, "share of calls", "calls/min", "errors/min", "tokens/min"),
            *(["in flight"] if with_models or name == "models" else []),
            *("calls", "failed", "cost", "p50", "p95"),
            *(["TTFT p50"] if is_streamed else []),
        ),
        cells,
        "No call has ended.",
        f"… and {plural(more, f'more {noun}')}." if more > 0 else "",
        "live",
    )


def _paces(now: tuple[float, float, float] | None) -> Iterable[Cell]:
    if now is None:
        return NOTHING, NOTHING, NOTHING
    calls, errors, tokens = (value_text(value, "count") for value in now)
    return calls, (errors, "bad") if now[1] else errors, tokens


def _sums(stats: CallStats) -> Iterable[Cell]:
    failed, cost, latency = 1 - stats.success_rate, stats.cost, stats.latency
    at_least = "≥ " if cost is not None and stats.unpriced_calls else ""
    return (
        format_count(stats.calls),
        f"{failed:.1%}" if failed == failed else NOTHING,
        at_least + format_usd(cost),
        *(_duration(latency, q) for q in (0.5, 0.95)),
    )


def _duration(times: Distribution, q: float) -> str:
    return format_duration(times.quantile(q))


def _defects(snapshot: Snapshot, recent: Snapshot) -> Table:
    rows = _by_type(snapshot)
    newly = {name: stats.attempts for name, stats in _by_type(recent).items()}
    cells: list[list[Cell]] = []
    for name, stats in sorted(rows.items(), key=lambda row: (-row[1].attempts, row[0]))[:ROWS]:
        rate = stats.success_rate
        cells.append(
            [
                name,
                round(rate, 4) if rate == rate else 0.0,
                f"{rate:.1%}" if rate == rate else NOTHING,
                f"{stats.fixed:,} of {stats.closed:,}",
                format_count(newly.get(name, 0)),
                format_count(stats.attempts),
                format_count(stats.calls.calls),
                format_usd(stats.cost),
                format_usd(stats.cost_per_fixed),
            ]
        )
    return Table(
        "defects",
        "By defect type",
        "Share of the defects with a verdict that were fixed, by all models; attempts of the last "
        "minute and since the begin.",
        (
            *("defect", "share fixed", "fixed", "defects", "new attempts", "attempts"),
            *("calls", "cost", "a fix"),
        ),
        cells,
        "No attempt at a defect has ended.",
        class_="live",
    )


def _by_type(snapshot: Snapshot) -> dict[str, DefectStats]:
    groups: dict[str, list[DefectStats]] = {}
    for (defect_type, _, _, severity), stats in snapshot.defects.items():
        groups.setdefault(short_name(defect_name(defect_type, severity)), []).append(stats)
    return {name: DefectStats.merged(rows, name) for name, rows in groups.items()}
