"""A report as one HTML file, for people who were not there.

Rooms: `contents` (its figures and parts) · `page` (the whole) · `models`, `state`, `timeline`,
`outcomes` (its parts) · `lines`, `shapes` (what is drawn) · `markup` (escaping). It needs no
network and no scripts: these only let a reader move along the lines.
"""

from __future__ import annotations

from typing import Any

from langmeter._base.spans import Moment
from langmeter.prices import PriceBook
from langmeter.report.html.contents import Contents
from langmeter.sources import Source

__all__ = ["figures", "report"]


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
    return Contents(source, base, since, until, prices).page(title)


def figures(
    source: Source,
    base: Source | None = None,
    *,
    since: Moment = None,
    until: Moment = None,
    prices: PriceBook | None = None,
) -> dict[str, Any]:
    """Return the figures of a report as plain data for JSON; arguments are as of `report`.

    US dollars are decimal texts, durations seconds, times ISO 8601 in UTC (of charts Unix seconds),
    shares parts of 1; None stands for what is not known.
    """
    return Contents(source, base, since, until, prices).to_dict()
