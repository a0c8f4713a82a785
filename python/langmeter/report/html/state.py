"""Part of a report about the state of its processes: budgets, circuits, and open alerts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from langmeter._base.text import NOTHING, plural, short_name
from langmeter.analysis.limits import Forecast, amount_text, forecasts
from langmeter.report.html.markup import Child, Markup, Section, figure, paragraphs, section, table
from langmeter.report.html.shapes import bar
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import AlertState, CircuitState, DecisionState

_ROWS: Final = 20
_DECISIONS: Final = 10


def state(snapshot: Snapshot) -> Section | None:
    """Return the part about what is not a sum; None where the snapshot has none of it."""
    parts: list[Child] = []
    if rows := forecasts(snapshot):
        parts.append(_budgets(rows, len(snapshot.state.origins) > 1))
    if alerts := snapshot.state.alerts:
        parts.append(_alerts(alerts))
    if circuits := snapshot.state.circuits:
        parts.append(_circuits(circuits, snapshot.state.decisions))
    if not parts:
        return None
    means = "Where processes stood when the snapshot was taken."
    return section("budgets", "Budgets and alerts", paragraphs([means]), parts)


def _budgets(rows: Sequence[Forecast], several: bool) -> Markup:
    header = ("budget", "of the limit", "used", "reserved", "limit", "share", "resets", "at limit")
    lines = [
        (
            short_name(row.budget.name) + (f" ({short_name(row.origin)})" if several else ""),
            bar(min(row.share, 1.0)),
            *(
                amount_text(amount, row.budget.unit)
                for amount in (row.budget.used, row.budget.reserved, row.budget.limit)
            ),
            f"{row.share:.0%}",
            _moment(row.budget.resets),
            row.text(),
        )
        for row in rows[:_ROWS]
    ]
    return figure(
        "Budgets",
        "What each budget has used of its limit; what calls in flight have reserved comes on top. "
        "“At limit” is the time until the limit is reached, if the budget is used on at the mean "
        "rate of its period so far.",
        table("Budgets, the first to reach its limit on top", header, lines),
        paragraphs(_more(len(rows), "budget")),
        action=_next(rows),
    )


def _next(rows: Sequence[Forecast]) -> str:
    reached = [row for row in rows if row.seconds == 0]
    if reached:
        name = short_name(reached[0].budget.name)
        return f"{name} is used up: raise it, or wait until it resets. Advice lists cheaper models."
    if rows[0].reached_in is not None:
        name = short_name(rows[0].budget.name)
        return f"{name} reaches its limit in {rows[0].text()}: raise it, or spend less by Advice."
    return "At these rates none reaches its limit before it resets."


def _alerts(alerts: Sequence[AlertState]) -> Markup:
    rows = sorted(alerts, key=lambda each: (each.status != "firing", each.since, each.name))
    lines = [
        (
            short_name(each.name),
            short_name(each.group) or "all",
            short_name(each.status),
            short_name(each.severity),
            _moment(each.since),
            f"{each.value:.4g}",
        )
        for each in rows[:_ROWS]
    ]
    return figure(
        "Open alerts",
        "Alerts that fire, and those that are pending until their rule was broken for long enough. "
        "The figure is in the unit of the rule: seconds, US dollars, counts, shares of 1.",
        table("Alerts", ("alert", "of", "status", "severity", "since", "figure"), lines),
        paragraphs(_more(len(rows), "alert")),
        action="Begin with those that fire, the oldest first.",
    )


def _circuits(circuits: Sequence[CircuitState], decisions: Sequence[DecisionState]) -> Markup:
    rows = sorted(circuits, key=lambda each: (each.state == "ready", each.policy, each.provider))
    lines = [
        (
            f"{short_name(each.provider)} ({short_name(each.policy)})",
            short_name(each.state),
            _moment(each.until),
        )
        for each in rows[:_ROWS]
    ]
    made = [
        (
            f"{short_name(each.provider)} ({short_name(each.policy)})",
            short_name(each.why),
            str(each.attempt),
            short_name(each.obstacles) or NOTHING,
        )
        for each in reversed(decisions[-_DECISIONS:])
    ]
    header = ("provider", "why", "attempt", "obstacles")
    return figure(
        "Providers",
        "Whether each provider of a manager is called; until when not, if that is known.",
        table("Circuits of providers", ("provider", "state", "until"), lines, class_="words"),
        paragraphs(_more(len(rows), "provider")),
        made and table("Last decisions, the latest first", header, made, class_="words"),
        action="A provider that is not ready gets no calls; the reason is its state.",
    )


def _moment(moment: datetime | None) -> str:
    return NOTHING if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def _more(rows: int, noun: str) -> Iterator[str]:
    if rows > _ROWS:
        yield f"… and {plural(rows - _ROWS, f'more {noun}')}."
