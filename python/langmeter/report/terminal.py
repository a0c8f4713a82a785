"""Snapshots on a terminal: a plain report, and a table that `rich` can show live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langmeter._base.text import format_duration
from langmeter.snapshot import Snapshot
from langmeter.snapshot import table as _table

if TYPE_CHECKING:
    from rich.table import Table


def report(snapshot: Snapshot, width: int | None = None) -> str:
    """The closing report of a process: what was covered, then the tables. Plain text.

    One line when nothing was metered. `width` is as in `Snapshot.table`.
    """
    begin, end = snapshot.started_at, snapshot.taken_at
    metered = snapshot.models or snapshot.components or snapshot.in_flight or snapshot.dropped
    if begin is None or end is None or not metered:
        return "langmeter: nothing metered"
    lasted = format_duration((end - begin).total_seconds())
    title = f"langmeter: {begin:%Y-%m-%d %H:%M:%S} UTC, {lasted}"
    return f"{title}\n\n{snapshot.table(width)}"


def table(snapshot: Snapshot) -> Table:
    """The models of a snapshot as a `rich` table. Raises ImportError where rich is missing."""
    from rich.table import Table  # an extra: `pip install langmeter[demo]`
    from rich.text import Text

    drawn = Table(caption=f"{snapshot.in_flight:,} in flight", caption_justify="left")
    for place, name in enumerate(_table.HEADER):
        drawn.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in _table.rows(snapshot):
        # As Text, because a model's name may look like markup.
        drawn.add_row(*map(Text, row))
    return drawn
