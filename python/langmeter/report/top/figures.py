"""Figures of a reading, as `langmeter top` shows them: by model, provider or label, and in all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from langmeter._base.check import refusal
from langmeter._base.text import printable
from langmeter.analysis.limits import Forecast, forecasts, tightest
from langmeter.report.recent import Reading
from langmeter.snapshot import CallStats, Snapshot
from langmeter.snapshot.state import AlertState, CircuitState, DecisionState

#: Window of the rates that a recorder keeps itself, seconds.
_WINDOW: Final = 60
#: Decisions that are shown, the last ones.
_DECISIONS: Final = 5
_MODEL: Final = ("provider", "model")


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one model, provider or value of a label; nan where there are none.

    Attributes:
        name: what they are of; its parts joined by "/".
        calls_per_second: calls that ended.
        in_flight: calls that have begun and not ended; None by labels, which are not counted so.
        errors: calls that failed.
        error_share: part of them among those that ended ok or failed.
        p50, p95: durations of calls, seconds.
        ttft: median of the time to first token, seconds.
        tokens_per_second: tokens in and out.
        usd_per_hour: what calls cost, by the hour; nan while no call was priced.
        budget: the budget that covers all calls of the row and reaches its limit first; None where
            none does.
    """

    name: str
    calls_per_second: float
    in_flight: int | None
    errors: int
    error_share: float
    p50: float
    p95: float
    ttft: float
    tokens_per_second: float
    usd_per_hour: float
    budget: Forecast | None

    @property
    def budget_used(self) -> float:
        """Part of the limit of `budget` that is used; nan without one."""
        return math.nan if self.budget is None else self.budget.share


#: Name of a sort order → figure of a row; all but names have the greatest first.
SORTS: Final[dict[str, str]] = {
    "cost": "usd_per_hour",
    "calls": "calls_per_second",
    "flight": "in_flight",
    "errors": "error_share",
    "latency": "p95",
    "ttft": "ttft",
    "tokens": "tokens_per_second",
    "budget": "budget_used",
    "name": "name",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that one reading shows.

    Attributes:
        at: moment of the snapshot, UTC; None for an empty one.
        seconds: how long the figures are of.
        is_whole: whether that is all time, because nothing earlier is known.
        by: names that rows are by.
        rows: in the order of `SORTS`.
        total: over all models.
        budgets: the first to reach its limit first.
        circuits, decisions, alerts: as of the snapshot's state; decisions the last first.
        streams, stalled: streams in flight that have sent something, and those that stopped.
    """

    at: datetime | None
    seconds: float
    is_whole: bool
    by: tuple[str, ...]
    rows: tuple[Row, ...]
    total: Row
    budgets: tuple[Forecast, ...]
    circuits: tuple[CircuitState, ...]
    decisions: tuple[DecisionState, ...]
    alerts: tuple[AlertState, ...]
    streams: int
    stalled: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; None stands for figures that are not known."""
        return {
            "at": self.at and self.at.isoformat(),
            "seconds": self.seconds,
            "is_whole": self.is_whole,
            "by": list(self.by),
            "rows": [_row_to_dict(row) for row in self.rows],
            "total": _row_to_dict(self.total),
            "budgets": [row.to_dict() for row in self.budgets],
            "circuits": [_plain(each) for each in self.circuits],
            "decisions": [_plain(each) for each in self.decisions],
            "alerts": [_plain(each) for each in self.alerts],
            "streams": self.streams,
            "stalled": self.stalled,
        }


def figures(reading: Reading, by: Sequence[str] = _MODEL, sort: str = "cost") -> Figures:
    """Return the figures of a reading.

    Args:
        reading: what was read.
        by: names that `Snapshot.by` takes: provider, model, or the keys of a label.
        sort: one of `SORTS`.

    Raises:
        ConfigError: `by` or `sort` is not one of these.
    """
    if sort not in SORTS:
        raise refusal("sort", f"one of {', '.join(SORTS)}", sort)
    whole, recent = _groups(reading.snapshot, by), _groups(reading.recent, by)
    in_flight = _in_flight(reading.snapshot, by)
    budgets = forecasts(reading.snapshot, reading.before)
    # Of each scope the first one is the tightest; many processes have the same scopes.
    firsts: dict[Any, Forecast] = {}
    for each in budgets:
        firsts.setdefault(each.budget.scope, each)
    empty = Snapshot().totals
    rows = [
        _row(
            "/".join(map(printable, filter(None, key))) or "(none)",
            stats,
            recent.get(key, empty),
            reading,
            None if in_flight is None else in_flight.get(key, 0),
            tightest(firsts.values(), dict(zip(by, key, strict=True))),
        )
        for key, stats in whole.items()
    ]
    state, snapshot = reading.snapshot.state, reading.snapshot
    budget = tightest(firsts.values(), {})
    recently = reading.recent.totals
    total = _row("total", snapshot.totals, recently, reading, snapshot.in_flight, budget)
    alerts = sorted(state.alerts, key=lambda each: (each.status != "firing", each.since))
    return Figures(
        reading.at,
        reading.seconds,
        reading.is_whole,
        tuple(by),
        in_order(rows, sort),
        total,
        tuple(budgets),
        tuple(sorted(state.circuits, key=lambda each: each.state == "ready")),
        tuple(reversed(state.decisions[-_DECISIONS:])),
        tuple(alerts),
        len(state.streams),
        sum(each.stalled for each in state.streams),
    )


def in_order(rows: Iterable[Row], sort: str) -> tuple[Row, ...]:
    """Return rows in the order of one of `SORTS`; those without its figure come last."""

    def key(row: Row) -> tuple[float, float, str]:
        value = getattr(row, SORTS[sort])
        if isinstance(value, str):
            return 0.0, 0.0, row.name
        is_missing = value is None or math.isnan(value)
        return (
            (math.inf, -row.calls_per_second, row.name) if is_missing else (-value, 0.0, row.name)
        )

    return tuple(sorted(rows, key=key))


def _groups(snapshot: Snapshot, by: Sequence[str]) -> Mapping[tuple[str, ...], CallStats]:
    groups: Mapping[Any, CallStats] = snapshot.by(*by)
    return {(key,) if isinstance(key, str) else key: stats for key, stats in groups.items()}


def _in_flight(snapshot: Snapshot, by: Sequence[str]) -> dict[tuple[str, ...], int] | None:
    """Return the calls in flight by provider and model; None by labels."""
    if not set(by) <= set(_MODEL):
        return None
    counts: dict[tuple[str, ...], int] = {}
    for names, stats in snapshot.models.items():
        key = tuple(names[_MODEL.index(name)] for name in by)
        counts[key] = counts.get(key, 0) + stats.in_flight
    return counts


def _row(
    name: str,
    whole: CallStats,
    stats: CallStats,
    reading: Reading,
    in_flight: int | None,
    budget: Forecast | None,
) -> Row:
    calls, tokens, cost = _rates(stats, reading)
    return Row(
        name,
        calls,
        in_flight,
        stats.errors,
        1 - stats.success_rate,
        stats.latency.quantile(0.5),
        stats.latency.quantile(0.95),
        stats.time_to_first_token.quantile(0.5),
        tokens,
        math.nan if whole.cost is None else cost,
        budget,
    )


def _rates(stats: CallStats, reading: Reading) -> tuple[float, float, float]:
    """Return calls and tokens a second, and US dollars an hour."""
    cost, tokens = float(stats.cost or 0), stats.tokens.total
    minute = stats.rates.get(_WINDOW) if reading.is_whole else None
    if minute is not None:
        # The recorder counts calls and tokens of its last minute, but not what they cost.
        usd = cost / tokens if tokens else 0.0
        return minute.requests, minute.tokens, 3600 * minute.tokens * usd
    if not reading.seconds:
        return 0.0, 0.0, 0.0
    return stats.calls / reading.seconds, tokens / reading.seconds, 3600 * cost / reading.seconds


def _row_to_dict(row: Row) -> dict[str, Any]:
    forecast = row.budget
    return {
        **_plain(row, "budget"),
        "budget": forecast and forecast.budget.name,
        "budget_used": _json(row.budget_used),
        "seconds_to_limit": forecast and forecast.reached_in,
        "resets_first": forecast and forecast.resets_first,
    }


def _plain(value: Any, *without: str) -> dict[str, Any]:
    names = [each.name for each in fields(value) if each.name not in without]
    return {name: _json(getattr(value, name)) for name in names}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int | str) else f"{value:f}"
