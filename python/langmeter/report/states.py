"""State of processes on the pages: tables of alerts, budgets, circuits and streams, and sentences.

The report and the live page have the same ones: the first as of its snapshot, the other as of now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final, TypeAlias

from langmeter._base.text import (
    NOTHING,
    format_amount,
    format_count,
    format_duration,
    format_used,
    plural,
    printable,
    short_name,
)
from langmeter.analysis.limits import Forecast
from langmeter.analysis.metrics import model_name
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import State
from langmeter.snapshot.table import IGNORED

#: Rows of a table, and decisions that are shown.
ROWS: Final = 100
_DECISIONS: Final = 10
#: Share of a budget from which on, and seconds to its limit up to which, it deserves a look.
_NEARLY_USED: Final = 0.8
_SOON: Final = 3600.0
#: Sentences of one kind.
_SENTENCES: Final = 5

#: A text, a text with a class (good, bad), or the share that a bar fills.
Cell: TypeAlias = "str | float | tuple[str, str]"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page.

    Attributes:
        name: its name on the page.
        title: what it is about.
        means: what its figures mean.
        header: names of its columns.
        rows: its cells; the first of a row is the name of the row.
        empty: what stands below it where it has no row.
        note: what stands below it otherwise.
        class_: of the element.
        action: what to do about it; "" where that is plain.
    """

    name: str
    title: str
    means: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    empty: str = "None."
    note: str = ""
    class_: str | None = field(default=None)
    action: str = ""


def tables(state: State, budgets: Sequence[Forecast], now: datetime) -> Iterator[Table]:
    """Yield the tables of alerts, budgets, circuits, decisions and streams.

    Args:
        state: of a snapshot.
        budgets: forecasts of its budgets.
        now: moment that durations of streams are up to.
    """
    alerts = sorted(state.alerts, key=lambda each: (each.status != "firing", each.since, each.name))
    yield Table(
        "alerts",
        "Open alerts",
        "Rules that are broken: firing, or pending until they have been for as long as they say. "
        "The figure is in the unit of the rule: seconds, US dollars, counts, shares of 1.",
        ("alert", "of", "status", "severity", "since (UTC)", "figure"),
        [
            [
                short_name(each.name),
                short_name(each.group) or "all",
                (short_name(each.status), "bad" if each.status == "firing" else ""),
                short_name(each.severity),
                _time(each.since),
                f"{each.value:.4g}",
            ]
            for each in alerts[:ROWS]
        ],
        "No alert is open.",
        _more(len(alerts), "alert"),
        "words figured",
        "Begin with those that fire, the oldest first.",
    )
    several = len({each.origin for each in state.origins if each.budgets}) > 1
    yield Table(
        "budgets",
        "Budgets",
        "What each budget has used of its limit; what calls in flight have reserved comes on top. "
        "“Limit in” is the time until the limit is reached at the present rate.",
        (
            *("budget", "of the limit", "share", "used", "reserved", "limit"),
            *("limit in", "resets (UTC)"),
        ),
        [_budget(row, several) for row in budgets[:ROWS]],
        "No budget is set.",
        _more(len(budgets), "budget"),
        "live",
        _next(budgets),
    )
    circuits = sorted(state.circuits, key=lambda each: each.state == "ready")
    yield Table(
        "circuits",
        "Circuits",
        "Whether each provider of a ProviderManager is called; if not, why, and until when.",
        ("provider", "policy", "state", "until (UTC)"),
        [
            [
                short_name(each.provider),
                short_name(each.policy),
                (short_name(each.state), "good" if each.state == "ready" else "bad"),
                NOTHING if each.until is None else _time(each.until),
            ]
            for each in circuits[:ROWS]
        ],
        "No ProviderManager is metered.",
        _more(len(circuits), "provider"),
        "words",
        "A provider that is not ready gets no calls; the reason is its state.",
    )
    if state.decisions:
        yield Table(
            "decisions",
            "Last decisions",
            "Which provider the last calls went to, and which ones could not take them; the latest "
            "first.",
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
            action="Where one provider could not take most of the calls, look at its limits.",
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
        _more(len(streams), "stream"),
        "live",
        "A stream that stalls can be given up: see stall_after and resume.",
    )


def _budget(row: Forecast, several: bool) -> list[Cell]:
    budget = row.budget
    unit = "" if budget.unit == "usd" else f" {budget.unit}"
    amounts = (budget.used, budget.reserved, budget.limit)
    return [
        short_name(budget.name) + (f" ({short_name(row.origin)})" if several else ""),
        round(row.share, 4),
        format_used(row.share, 1),
        *(format_amount(amount) + unit for amount in amounts),
        (row.text(), "bad" if row.reached_in is not None and _is_pressing(row) else ""),
        NOTHING if budget.resets is None else _time(budget.resets),
    ]


def _is_pressing(row: Forecast) -> bool:
    """Return whether a budget is nearly used, or will be soon."""
    reached_in = row.reached_in
    return row.share >= _NEARLY_USED or (reached_in is not None and reached_in < _SOON)


def _next(budgets: Sequence[Forecast]) -> str:
    """Return what to do about the budget that reaches its limit first."""
    if not budgets:
        return ""
    first, name = budgets[0], short_name(budgets[0].budget.name)
    if first.seconds == 0:
        return f"“{name}” is used up: raise it, or wait until it resets; see Advice."
    if first.reached_in is not None:
        return f"“{name}” reaches its limit in {first.text()}: raise it, or see Advice."
    return "At these rates none reaches its limit before it resets."


def sentences(snapshot: Snapshot, budgets: Iterable[Forecast]) -> Iterator[tuple[str, str, str]]:
    """Yield what needs a look: good or bad, a sentence, and the part that has more.

    Parts are the names of `tables`, and unpriced and dropped.
    """
    state = snapshot.state
    firing = sorted(
        (each for each in state.alerts if each.status == "firing"), key=lambda each: each.since
    )
    for alert in firing[:_SENTENCES]:
        group = f" of {short_name(alert.group)}" if alert.group else ""
        since = f"since {_time(alert.since)} UTC"
        yield "bad", f"Firing: {short_name(alert.name)}{group}, {since}.", "alerts"
    if len(firing) > _SENTENCES:
        more = plural(len(firing) - _SENTENCES, "more alert")
        yield "bad", f"Firing: {more}.", "alerts"
    for text in islice(_budget_sentences(budgets), _SENTENCES):
        yield "bad", text, "budgets"
    closed = [each for each in state.circuits if each.state != "ready"]
    for circuit in closed[:_SENTENCES]:
        text = f"{short_name(circuit.provider)} is not ready: {short_name(circuit.state)}."
        yield "bad", text, "circuits"
    if stalled := sum(each.stalled for each in state.streams):
        yield "bad", f"{plural(stalled, 'stream')} stalled.", "streams"
    if calls := snapshot.totals.unpriced_calls:
        of = f"{plural(calls, 'call')} of {plural(len(snapshot.unpriced), 'model')}"
        cost = "not known" if snapshot.totals.cost is None else "a lower bound"
        yield "bad", f"The cost is {cost}: {of} without a price.", "unpriced"
    if lost := sum(n for name, n in snapshot.dropped.items() if name not in IGNORED):
        yield "bad", f"{plural(lost, 'event')} could not be counted.", "dropped"


def _budget_sentences(budgets: Iterable[Forecast]) -> Iterator[str]:
    for row in budgets:
        name = short_name(row.budget.name)
        if row.seconds == 0:
            yield f"The budget “{name}” is used up."
        elif row.reached_in is not None and _is_pressing(row):
            yield f"The budget “{name}” reaches its limit in {row.text()} at the present rate."
        elif row.share >= _NEARLY_USED:
            yield f"{format_used(row.share)} of the budget “{name}” is used."


def _more(rows: int, noun: str) -> str:
    return f"… and {plural(rows - ROWS, f'more {noun}')}." if rows > ROWS else ""


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
