"""State on the live page: alerts, budgets, circuits, streams, and what needs a look."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    plural,
    printable,
    short_name,
)
from langmeter.analysis.limits import Forecast, amount_text, forecasts
from langmeter.analysis.metrics import model_name
from langmeter.report.live.past import Past
from langmeter.report.live.tables import ROWS, Cell, Table
from langmeter.snapshot import Snapshot
from langmeter.snapshot.table import IGNORED

#: Share of a budget from which on, and share of failed calls from which on, they need a look.
_NEARLY_USED: Final = 0.8
_MANY_ERRORS: Final = 0.05
#: Seconds to a limit that need a look.
_SOON: Final = 3600.0
#: Decisions that are shown.
_DECISIONS: Final = 10


def tables(snapshot: Snapshot, past: Past, now: datetime) -> Iterator[Table]:
    """Yield the tables of alerts, budgets, circuits, decisions and streams."""
    state = snapshot.state
    alerts = sorted(state.alerts, key=lambda each: (each.status != "firing", each.since))
    yield Table(
        "alerts",
        "Open alerts",
        "Rules that are broken: firing, or pending until they have been for as long as they say.",
        ("alert", "of", "status", "severity", "since (UTC)", "figure"),
        [
            [
                short_name(each.name),
                short_name(each.group) or "all",
                (each.status, "bad" if each.status == "firing" else ""),
                short_name(each.severity),
                _time(each.since, now),
                f"{each.value:.4g}",
            ]
            for each in alerts[:ROWS]
        ],
        "No alert is open.",
        class_="words",
    )
    yield Table(
        "budgets",
        "Budgets",
        "What is used and reserved of each limit; the time to the limit is by the pace of the last "
        "minute.",
        (
            *("budget", "share used", "share", "used", "reserved", "limit"),
            *("time to limit", "begins anew"),
        ),
        [_budget(row) for row in forecasts(snapshot, past.reading.before)[:ROWS]],
        "No budget is set.",
        class_="live",
    )
    yield Table(
        "circuits",
        "Circuits",
        "Whether each provider of a ProviderManager is called, and if not, why.",
        ("provider", "policy", "state", "until (UTC)"),
        [
            [
                short_name(each.provider),
                short_name(each.policy),
                (each.state, "good" if each.state == "ready" else "bad"),
                NOTHING if each.until is None else _time(each.until, now),
            ]
            for each in state.circuits[:ROWS]
        ],
        "No ProviderManager is metered.",
        class_="words",
    )
    if state.decisions:
        yield Table(
            "decisions",
            "Last decisions",
            "Which provider the last calls went to, and which ones could not take them.",
            ("provider", "policy", "why", "try", "could not"),
            [
                [
                    short_name(each.provider) or NOTHING,
                    *(short_name(each.policy), short_name(each.why), format_count(each.attempt)),
                    printable(each.obstacles) or NOTHING,
                ]
                for each in reversed(state.decisions[-_DECISIONS:])
            ],
            class_="words",
        )
    streams = sorted(state.streams, key=lambda each: (not each.stalled, each.last_token))
    yield Table(
        "streams",
        "Streams in flight",
        "Streams that have sent something, those that stall first, then the longest silence.",
        ("model", "status", "running for", "silent for", "pieces"),
        [
            [
                short_name(model_name((each.provider, each.model))),
                ("stalled", "bad") if each.stalled else "flows",
                format_duration(max((now - each.started).total_seconds(), 0.0)),
                format_duration(max((now - each.last_token).total_seconds(), 0.0)),
                format_count(each.token_events),
            ]
            for each in streams[:ROWS]
        ],
        "No stream is in flight.",
        f"… and {plural(len(streams) - ROWS, 'more stream')}." if len(streams) > ROWS else "",
        class_="live",
    )


def _budget(row: Forecast) -> list[Cell]:
    budget = row.budget
    unit = "" if budget.unit == "usd" else f" {budget.unit}"
    amounts = (budget.used, budget.reserved, budget.limit)
    return [
        budget.name,
        round(row.share, 4),
        f"{row.share:.1%}",
        *(amount_text(amount, budget.unit) + unit for amount in amounts),
        (row.text(), "" if row.reached_in is None else "bad"),
        NOTHING if row.resets_in is None else f"in {format_duration(max(row.resets_in, 0.0))}",
    ]


def sentences(snapshot: Snapshot, past: Past, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Yield what needs a look: good or bad, a sentence, and the part that has more."""
    state = snapshot.state
    for each in state.alerts:
        if each.status == "firing":
            group = f" of {short_name(each.group)}" if each.group else ""
            text = f"Firing: {short_name(each.name)}{group}, since {_time(each.since, now)} UTC."
            yield "bad", text, "alerts"
    for row in forecasts(snapshot, past.reading.before):
        name = row.budget.name
        if row.seconds == 0:
            yield "bad", f"The budget {name} is used up.", "budgets"
        elif row.reached_in is not None and row.reached_in < _SOON:
            text = f"The budget {name} reaches its limit in {row.text()} at the present pace."
            yield "bad", text, "budgets"
        elif row.share >= _NEARLY_USED:
            yield "bad", f"{row.share:.0%} of the budget {name} are used.", "budgets"
    for circuit in state.circuits:
        if circuit.state != "ready":
            text = f"{short_name(circuit.provider)} is not ready: {circuit.state}."
            yield "bad", text, "circuits"
    if stalled := sum(each.stalled for each in state.streams):
        yield "bad", f"{plural(stalled, 'stream')} stalled.", "streams"
    rate = snapshot.rates.get(60)
    if rate is not None and rate.errors and rate.errors / rate.requests >= _MANY_ERRORS:
        share = rate.errors / rate.requests
        yield "bad", f"{share:.0%} of the calls of the last minute failed.", "models"
    if snapshot.totals.unpriced_calls:
        models = plural(len(snapshot.unpriced), "model")
        text = f"The cost is a lower bound: {models} without a price."
        yield "bad", text, "models"
    if lost := sum(n for name, n in snapshot.dropped.items() if name not in IGNORED):
        yield "bad", f"{plural(lost, 'event')} could not be counted.", "models"


def _time(moment: datetime, now: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"
