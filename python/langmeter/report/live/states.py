"""State on the live page: alerts, budgets, circuits, streams, and what needs a look."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    format_usd,
    plural,
    printable,
    short_name,
)
from langmeter.analysis.metrics import model_name
from langmeter.report.live.past import Past
from langmeter.report.live.tables import ROWS, Cell, Table
from langmeter.snapshot import BudgetState, Snapshot
from langmeter.snapshot.table import IGNORED

#: Share of a budget from which on, and share of failed calls from which on, they need a look.
_NEARLY_USED: Final = 0.8
_MANY_ERRORS: Final = 0.05
#: Times to a limit that need a look.
_SOON: Final = timedelta(hours=1)
#: Decisions that are shown.
_DECISIONS: Final = 10


class Budget(NamedTuple):
    """A budget, and when it is used up at the pace of the last minute.

    Attributes:
        state: where it stands.
        ends: None where it is not used up before it begins anew, or nothing is spent.
    """

    state: BudgetState
    ends: datetime | None


def budgets(snapshot: Snapshot, past: Past, now: datetime) -> list[Budget]:
    """Return the budgets, by the share of each that is used."""
    before = {
        (origin.origin, each.name, each.unit, each.per): each.used
        for origin in past.before.state.origins
        for each in origin.budgets
    }
    rows = []
    for origin in snapshot.state.origins:
        for each in origin.budgets:
            earlier = before.get((origin.origin, each.name, each.unit, each.per))
            rows.append(Budget(each, _end(each, earlier, past.seconds, now)))
    return sorted(rows, key=lambda row: -_share(row.state))


def _end(
    budget: BudgetState, earlier: Decimal | int | None, seconds: float, now: datetime
) -> datetime | None:
    if budget.used >= budget.limit:
        return now
    if earlier is None or budget.used <= earlier or not seconds:
        return None
    pace = float(budget.used - earlier) / seconds
    left = float(budget.limit - budget.used) / pace
    if left > timedelta.max.total_seconds() / 2:
        return None
    try:
        ends = now + timedelta(seconds=left)
    except OverflowError:
        return None
    return ends if budget.resets is None or ends < budget.resets else None


def _share(budget: BudgetState) -> float:
    return float(budget.used / budget.limit) if budget.limit else 1.0


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
        [_budget(row, now) for row in budgets(snapshot, past, now)[:ROWS]],
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


def _budget(row: Budget, now: datetime) -> list[Cell]:
    budget, share = row.state, _share(row.state)
    left: Cell = "not at this pace"
    if row.ends is not None:
        left = ("used up" if row.ends <= now else _in(row.ends, now), "bad")
    return [
        budget.name,
        round(share, 4),
        f"{share:.1%}",
        *(_amount(n, budget.unit) for n in (budget.used, budget.reserved, budget.limit)),
        left,
        NOTHING if budget.resets is None else f"in {_in(budget.resets, now)}",
    ]


def sentences(snapshot: Snapshot, past: Past, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Yield what needs a look: good or bad, a sentence, and the part that has more."""
    state = snapshot.state
    for each in state.alerts:
        if each.status == "firing":
            group = f" of {short_name(each.group)}" if each.group else ""
            text = f"Firing: {short_name(each.name)}{group}, since {_time(each.since, now)} UTC."
            yield "bad", text, "alerts"
    for row in budgets(snapshot, past, now):
        budget = row.state
        if row.ends is not None and row.ends <= now:
            yield "bad", f"The budget {budget.name} is used up.", "budgets"
        elif row.ends is not None and row.ends - now < _SOON:
            text = f"The budget {budget.name} reaches its limit in {_in(row.ends, now)}"
            yield "bad", f"{text} at the pace of the last minute.", "budgets"
        elif _share(budget) >= _NEARLY_USED:
            yield "bad", f"{_share(budget):.0%} of the budget {budget.name} are used.", "budgets"
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


def _amount(amount: Decimal | int, unit: str) -> str:
    if unit == "usd":
        return format_usd(Decimal(amount))
    return f"{format_count(int(amount))} {unit}"


def _in(moment: datetime, now: datetime) -> str:
    return format_duration(max((moment - now).total_seconds(), 0.0))


def _time(moment: datetime, now: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"
