"""Figures of a reading as plain text: tables, and one line for status bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from langmeter._base.text import (
    NOTHING,
    format_amount,
    format_count,
    format_duration,
    format_rate,
    format_usd,
    format_used,
    plural,
    render_table,
    short_name,
)
from langmeter.analysis.limits import Forecast
from langmeter.report.top.figures import Figures, Row

#: Rows of the table, and of each of the others.
_ROWS: Final = 40
_SHORT: Final = 10
#: Columns after the name, with their sort order.
COLUMNS: Final = (
    *(("calls/s", "calls"), ("in flight", "flight"), ("errors", "errors")),
    *(("p50", ""), ("p95", "latency"), ("TTFT", "ttft"), ("tokens/s", "tokens"), ("USD/h", "cost")),
    *(("budget", "budget"), ("limit in", "")),
)
#: Those of them that are left out where nothing has a budget.
_OF_BUDGETS: Final = 2
BUDGETS: Final = ("budget", "used", "limit", "share", "reserved", "resets in", "at limit in")


def text(shown: Figures, width: int | None = None) -> str:
    """Return the figures as tables; one that is wider than `width` columns is divided."""
    names = columns(shown)
    rows = [cells(row) for row in shown.rows[:_ROWS]]
    if len(shown.rows) > _ROWS:
        rows.append((f"… and {len(shown.rows) - _ROWS:,} more", *[""] * len(COLUMNS)))
    if len(rows) != 1:
        rows.append(cells(shown.total))
    header = (heading(shown), *(name for name, _ in names))
    rows = [row[: len(header)] for row in rows]
    blocks = [[title(shown)], list(render_table(header, rows, width))]
    if shown.budgets:
        lines = [budget_cells(row) for row in shown.budgets[:_SHORT]]
        blocks.append(list(render_table(BUDGETS, lines, width)))
    if notes := [text for _, text in state_lines(shown)]:
        blocks.append(notes)
    return "\n\n".join("\n".join(block) for block in blocks)


def line(shown: Figures) -> str:
    """Return the most important figures as one line, for the status bars of terminals."""
    total = shown.total
    parts = [f"{_rate(total.calls_per_second)} calls/s", f"{total.in_flight or 0:,} in flight"]
    if not math.isnan(total.error_share):
        parts.append(f"{total.error_share:.1%} errors")
    if not math.isnan(total.p95):
        parts.append(f"p95 {format_duration(total.p95)}")
    parts.append(f"{_rate(total.tokens_per_second)} tokens/s")
    if not math.isnan(total.usd_per_hour):
        parts.append(f"{usd(total.usd_per_hour)}/h")
    if shown.budgets:
        first = shown.budgets[0]
        when = f", {_when(first)}" if first.reached_in is not None else ""
        parts.append(f"{short_name(first.budget.name)}: {format_used(first.share)}{when}")
    if broken := sum(each.state != "ready" for each in shown.circuits):
        parts.append(f"{plural(broken, 'provider')} not ready")
    if firing := sum(each.status == "firing" for each in shown.alerts):
        parts.append(plural(firing, "alert"))
    return " | ".join(parts)


def heading(shown: Figures) -> str:
    """Return what the names of rows are: `model`, `provider`, `team/model`."""
    return "model" if shown.by == ("provider", "model") else "/".join(shown.by)


def columns(shown: Figures) -> tuple[tuple[str, str], ...]:
    """Return `COLUMNS`, without those of budgets where there is no budget."""
    return COLUMNS if shown.budgets else COLUMNS[:-_OF_BUDGETS]


def title(shown: Figures, now: datetime | None = None) -> str:
    """Return the moment that the figures are of, how old they are, and how long they took."""
    if shown.at is None:
        return "nothing metered so far"
    now = now or datetime.now(UTC)
    age = (now - shown.at).total_seconds()
    old = f" ({format_duration(age)} ago)" if age >= 100 else ""
    span = f"the last {format_duration(shown.seconds)}"
    if shown.is_whole:
        span = f"all time, {format_duration(shown.seconds)}; rates of the last minute"
    return f"{shown.at:%Y-%m-%d %H:%M:%S} UTC{old}, figures of {span}"


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row under its name and `COLUMNS`."""
    share = NOTHING if math.isnan(row.error_share) else f"{row.error_share:.1%}"
    return (
        short_name(row.name),
        _rate(row.calls_per_second),
        NOTHING if row.in_flight is None else format_count(row.in_flight),
        share,
        *(format_duration(seconds) for seconds in (row.p50, row.p95, row.ttft)),
        _rate(row.tokens_per_second),
        usd(row.usd_per_hour),
        NOTHING if row.budget is None else format_used(row.budget.share),
        NOTHING if row.budget is None else row.budget.text(),
    )


def budget_cells(row: Forecast) -> tuple[str, ...]:
    """Return the cells of a budget under `BUDGETS`."""
    budget = row.budget
    used, limit, reserved = map(format_amount, (budget.used, budget.limit, budget.reserved))
    resets = NOTHING if row.resets_in is None else format_duration(max(row.resets_in, 0.0))
    name = short_name(budget.name)
    return name, used, limit, format_used(row.share), reserved, resets, row.text()


def state_lines(shown: Figures) -> Iterator[tuple[str, str]]:
    """Yield lines about providers, decisions, alerts and streams, each after its importance.

    That is "bad" for what needs a person, else "".
    """
    for alert in shown.alerts[:_SHORT]:
        of = f" of {short_name(alert.group)}" if alert.group else ""
        kind, status = "bad" if alert.status == "firing" else "", short_name(alert.status)
        since = f"{status} since {alert.since:%Y-%m-%d %H:%M:%S} UTC"
        yield kind, f"alert {short_name(alert.name)}{of}: {since}, {alert.value:.4g}"
    for circuit in shown.circuits[:_SHORT]:
        until = f" until {circuit.until:%H:%M:%S} UTC" if circuit.until else ""
        kind = "" if circuit.state == "ready" else "bad"
        yield kind, f"provider {short_name(circuit.provider)}: {short_name(circuit.state)}{until}"
    for decision in shown.decisions:
        attempt = f", attempt {decision.attempt}" if decision.attempt > 1 else ""
        obstacles = f" ({short_name(decision.obstacles)})" if decision.obstacles else ""
        chosen = f"chosen {short_name(decision.provider)}: {short_name(decision.why)}"
        yield "", f"{chosen}{attempt}{obstacles}"
    if shown.streams:
        stalled = f", {shown.stalled:,} of them stalled" if shown.stalled else ""
        yield "bad" if stalled else "", f"{plural(shown.streams, 'stream')} in flight{stalled}"


def sparkline(values: Sequence[float]) -> str:
    """Return values as a row of bars, the greatest as the highest; nan leaves a gap."""
    bars = "▁▂▃▄▅▆▇█"
    most = max((value for value in values if not math.isnan(value)), default=0.0)
    if most <= 0:
        return "".join(" " if math.isnan(value) else bars[0] for value in values)
    last = len(bars) - 1
    return "".join(
        " " if math.isnan(value) else bars[round(last * max(value, 0.0) / most)] for value in values
    )


def usd(value: float) -> str:
    """Format US dollars of a float; `-` for nan."""
    return NOTHING if math.isnan(value) else format_usd(Decimal(f"{value:.9f}"))


def _when(row: Forecast) -> str:
    return "used up" if row.seconds == 0 else f"{row.text()} to its limit"


def _rate(per_second: float) -> str:
    return format_rate(per_second)
