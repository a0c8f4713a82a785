"""Contents of a report: figures of a source, their meaning, and the parts of its page."""

from __future__ import annotations

from typing import Any

from langmeter._base.spans import Moment
from langmeter._base.text import format_duration, printable
from langmeter.analysis import advise, compare, defects
from langmeter.analysis.bottlenecks import to_dict as bottlenecks_to_dict
from langmeter.analysis.limits import forecasts
from langmeter.exporters.rows import plain_rows
from langmeter.prices import PriceBook
from langmeter.report.html import models, outcomes, state
from langmeter.report.html.lines import Lines
from langmeter.report.html.markup import element
from langmeter.report.html.page import page, sentences, summary, tiles
from langmeter.report.html.timeline import ByTime, timeline
from langmeter.sources import Source, open, read


class Contents:
    """Figures of a source, read and analysed once; arguments and errors are those of `report`."""

    def __init__(
        self,
        source: Source,
        base: Source | None,
        since: Moment,
        until: Moment,
        prices: PriceBook | None,
    ) -> None:
        reader, series = open(source), None
        if isinstance(reader, ByTime):  # its rows are read once, for all that follows
            series = reader.excerpt(since, until)
            snapshot = series.snapshot()
        else:
            snapshot = read(source, since=since, until=until)
        self._snapshot = snapshot
        before = None if base is None else read(base)
        self._compared = None if before is None else compare(before, snapshot)
        self._fixes, self._findings = defects(snapshot), advise(snapshot, prices=prices)
        self._charts: list[Lines] = []
        self._budgets = forecasts(snapshot)
        processes = state.state(snapshot, self._budgets)
        self._parts = [
            *([] if self._compared is None else [outcomes.comparison(self._compared)]),
            models.money(snapshot),
            *([] if processes is None else [processes]),
            timeline(series, snapshot, self._charts),
            models.latency(snapshot, self._charts),
            models.where_time_goes(snapshot),
            outcomes.uncounted(snapshot),
            *([outcomes.defects(self._fixes)] if self._fixes.rows else []),
            outcomes.advice(self._findings),
        ]
        same = ("", "Both sources have the same figures.", "comparison", "Comparison")
        self._sentences = [
            *([same] if before == snapshot else []),
            *sentences(snapshot, self._budgets, self._fixes, self._findings, self._compared),
        ]

    def page(self, title: str) -> str:
        """Return the document."""
        lead = (
            element("p", self._span(), class_="span"),
            tiles(self._snapshot, self._fixes),
            summary(self._sentences),
        )
        return page(printable(title), lead, self._parts, self._charts)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        snapshot, compared = self._snapshot, self._compared
        begin, end = snapshot.started_at, snapshot.taken_at
        return {
            "started_at": begin and begin.isoformat(),
            "taken_at": end and end.isoformat(),
            "summary": [
                {"kind": kind, "text": text, "part": part}
                for kind, text, part, _ in self._sentences
            ],
            "series": plain_rows(snapshot),
            "budgets": [row.to_dict() for row in self._budgets],
            "state": snapshot.state.to_list(),
            "charts": {chart.name: chart.data() for chart in self._charts},
            "time": bottlenecks_to_dict(snapshot),
            "dropped": dict(snapshot.dropped),
            "defects": self._fixes.to_dict(),
            "advice": [finding.to_dict() for finding in self._findings],
            "comparison": None if compared is None else compared.to_dict(),
        }

    def _span(self) -> str:
        begin, end = self._snapshot.started_at, self._snapshot.taken_at
        if begin is None or end is None:
            return "Nothing was metered."
        lasted = format_duration((end - begin).total_seconds())
        return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, {lasted}"
