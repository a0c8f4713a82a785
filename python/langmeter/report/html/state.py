"""Part of a report about the state of its processes: alerts, budgets, circuits and streams."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from langmeter.analysis.limits import Forecast
from langmeter.report.html.markup import Child, Section, element, figure, paragraphs, section, table
from langmeter.report.html.shapes import bar
from langmeter.report.states import Cell, Table, tables
from langmeter.snapshot import Snapshot


def state(snapshot: Snapshot, budgets: Sequence[Forecast]) -> Section | None:
    """Return the part about what is not a sum; None where the snapshot has none of it."""
    taken = snapshot.taken_at or datetime.now(UTC)
    # As of the snapshot, which is also when the state of its processes was taken.
    parts = [each for each in tables(snapshot.state, budgets, taken) if each.rows]
    if not parts:
        return None
    means = "Where processes stood when the snapshot was taken; times are UTC."
    return section("budgets", "Budgets and alerts", paragraphs([means]), map(_figure, parts))


def _figure(each: Table) -> Child:
    rows = [[_cell(cell) for cell in row] for row in each.rows]
    whole = table(each.title, each.header, rows, class_=each.class_, is_said=True)
    note = paragraphs([each.note] if each.note else [])
    return figure(each.title, each.means, whole, note, action=each.action)


def _cell(cell: Cell) -> Child:
    if isinstance(cell, tuple):
        text, kind = cell
        return element("span", text, class_=kind or None)
    return bar(min(cell, 1.0)) if isinstance(cell, float) else cell
