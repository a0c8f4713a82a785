"""A report as one HTML file, for people who were not there.

Rooms: `page` (the whole) · `models`, `state`, `timeline`, `outcomes` (its parts) · `lines`,
`shapes` (what is drawn) · `markup` (escaping). It needs no network and no scripts: these only let a
reader move along the lines.
"""

from __future__ import annotations

from langmeter._base.spans import Moment
from langmeter._base.text import format_duration, printable
from langmeter.analysis import advise, compare, defects
from langmeter.prices import PriceBook
from langmeter.report.html import models, outcomes, state
from langmeter.report.html.lines import Lines
from langmeter.report.html.markup import element
from langmeter.report.html.page import page, summary, tiles
from langmeter.report.html.timeline import timeline
from langmeter.snapshot import Snapshot
from langmeter.sources import Source, open, read

__all__ = ["report"]


def report(
    source: Source,
    base: Source | None = None,
    *,
    since: Moment = None,
    until: Moment = None,
    prices: PriceBook | None = None,
    title: str = "langmeter report",
) -> str:
    """Return a report of a source as one HTML document.

    Args:
        source: as of `langmeter.sources.open`; a history gives lines by time.
        base: a source to compare it with; None for no comparison.
        since: begin of the span of a history that the report is of; None for all.
        until: its end; None for now.
        prices: of the advice; None for the built-in prices.
        title: heading of the page.

    Raises:
        ConfigError: a source is unknown, or a span is given and it is not a history.
        OSError: a file cannot be read.
        SnapshotError: what was read is not a snapshot.
        SourceError: a page or a database does not answer.
        ImportError: the extra of a history is not installed.
    """
    snapshot = read(source, since=since, until=until)
    compared = None if base is None else compare(read(base), snapshot)
    fixes, findings = defects(snapshot), advise(snapshot, prices=prices)
    charts: list[Lines] = []
    parts = [
        *([outcomes.comparison(compared)] if compared is not None else []),
        models.money(snapshot),
        *([budgets] if (budgets := state.state(snapshot)) is not None else []),
        timeline(open(source), snapshot, charts, since, until),
        models.latency(snapshot, charts),
        models.where_time_goes(snapshot),
        outcomes.uncounted(snapshot),
        *([outcomes.defects(fixes)] if fixes.rows else []),
        outcomes.advice(findings),
    ]
    lead = (
        element("p", _span(snapshot), class_="span"),
        tiles(snapshot, fixes),
        summary(snapshot, fixes, findings, compared),
    )
    return page(printable(title), lead, parts, charts)


def _span(snapshot: Snapshot) -> str:
    begin, end = snapshot.started_at, snapshot.taken_at
    if begin is None or end is None:
        return "Nothing was metered."
    lasted = format_duration((end - begin).total_seconds())
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, {lasted}"
