"""A reading as the page shows it: the whole page, and the cells that change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from langmeter._base.text import NOTHING, format_count, format_duration, format_usd
from langmeter.analysis.limits import forecasts
from langmeter.report.html.lines import Lines, value_text
from langmeter.report.html.markup import Child, Markup, Section, element, figure, section, table
from langmeter.report.html.page import links
from langmeter.report.html.timeline import timeline
from langmeter.report.live.past import SPAN, WINDOW, Past, PastLines
from langmeter.report.live.tables import by_what, last_minute, mean_of
from langmeter.report.states import Table, sentences, tables
from langmeter.snapshot import Snapshot

if TYPE_CHECKING:
    from langmeter.history import Excerpt

_NO_STATE: Final = (
    "This source has no state. Budgets, alerts, circuits and streams are those of processes: serve "
    "the meter itself, its directory, or the /snapshot.json of its process."
)
#: Parts of sentences → the tables here that have more.
_PLACES: Final = {"unpriced": "models", "dropped": "models"}
#: Share of failed calls of the last minute from which on they need a look.
_MANY_ERRORS: Final = 0.05
#: Seconds from which on the age of the figures is said.
_OLD: Final = 10.0


@dataclass(frozen=True, eq=False)
class View:
    """One reading.

    Attributes:
        taken_at: moment of the figures; None where there are none.
        now: moment of the reading.
        tiles: names and figures.
        sentences: what needs a look: kind, text, name of the part.
        groups: parts of the page with their tables.
        lines: those that move; None for a history.
        timeline: the part with the charts of a history, and the charts; None where they move.
    """

    taken_at: datetime | None
    now: datetime
    tiles: Sequence[tuple[str, str]]
    sentences: Sequence[tuple[str, str, str]]
    groups: Sequence[tuple[str, str, Sequence[Table], str]]
    lines: PastLines | None
    timeline: tuple[Section, Sequence[Lines]] | None

    @cached_property
    def shape(self) -> object:
        """Return the key that two views must share so that one can follow the other."""
        names = [(each.name, each.header) for _, _, tables, _ in self.groups for each in tables]
        lines = self.lines and (self.lines.models, self.lines.newest().keys())
        return names, lines, self.timeline and self.timeline[0].markup

    @cached_property
    def frame(self) -> bytes:
        """The cells, as an event."""
        return _event("frame", self._cells())

    @cached_property
    def whole(self) -> bytes:
        """The page and the cells, as an event."""
        moving = [] if self.lines is None else self.lines.charts()
        parts = [*self._parts(moving)]
        main = Markup("".join(part.markup for part in parts))
        charts = {chart.name: chart.data() | {"live": SPAN} for chart in moving}
        if self.timeline is not None:
            charts = {chart.name: chart.data() for chart in self.timeline[1]}
        names = [(each.name, each.title) for _, _, tables, _ in self.groups for each in tables]
        entries = [Section(*name, Markup()) for name in names]
        page = {"nav": links([*parts[:1], *entries]), "main": main, "charts": charts}
        return _event("whole", page | self._cells())

    def _cells(self) -> dict[str, Any]:
        tables = [each for _, _, tables, _ in self.groups for each in tables]
        age = None if self.taken_at is None else (self.now - self.taken_at).total_seconds()
        return {
            "at": "" if self.taken_at is None else f"{self.taken_at:%Y-%m-%d %H:%M:%S} UTC",
            "age": f"{format_duration(age)} ago" if age is not None and age > _OLD else "",
            "tiles": self.tiles,
            "needs": self._needs(),
            "tables": {each.name: each.rows for each in tables},
            "notes": {each.name: each.note if each.rows else each.empty for each in tables},
            "points": {} if self.lines is None else self.lines.newest(),
        }

    def _needs(self) -> Markup:
        items = [
            element(
                "li",
                text,
                " ",
                element("a", "See more", href=f"#{_PLACES.get(name, name)}"),
                class_=kind,
            )
            for kind, text, name in self.sentences
        ]
        return Markup("".join(items)) or element("li", "Nothing needs a look.", class_="good")

    def _parts(self, moving: Sequence[Lines]) -> Iterable[Section]:
        if self.timeline is not None:
            yield self.timeline[0]
        else:
            means = f"Each point is of the {WINDOW} seconds before it; times are UTC."
            charts = [figure(chart.title, means, chart.frame()) for chart in moving]
            yield section("now", "The last minutes", element("div", charts, class_="charts"))
        for name, title, group, note in self.groups:
            content: list[Child] = [_figure(each) for each in group]
            yield section(name, title, *([note] if note else []), content)


def _figure(each: Table) -> Markup:
    whole = table(each.title, each.header, [], class_=each.class_, is_said=True)
    note = element("p", class_="note")
    return element("div", figure(each.title, each.means, whole, note), id=each.name, class_="cells")


def live(snapshot: Snapshot, past: Past, now: datetime) -> View:
    """Return the view of a source that is read each second."""
    recent, budgets = past.reading.recent, forecasts(snapshot, past.reading.before)
    state = [*tables(snapshot.state, budgets, now)] if snapshot.state else []
    return View(
        snapshot.taken_at,
        now,
        _tiles(snapshot, past),
        [*sentences(snapshot, budgets), *_errors(snapshot)],
        [
            ("state", "State", state, "" if state else _NO_STATE),
            ("figures", "Figures", [*by_what(snapshot, recent, last_minute)], ""),
        ],
        past.lines(),
        None,
    )


def span(series: Excerpt, now: datetime) -> View:
    """Return the view of a span of a history.

    Raises what `History.query` raises.
    """
    snapshot = series.snapshot()
    begin, end = snapshot.started_at, snapshot.taken_at
    seconds = 0.0 if begin is None or end is None else (end - begin).total_seconds()
    charts: list[Lines] = []
    lines = timeline(series, snapshot, charts)
    totals = snapshot.totals
    failed = 1 - totals.success_rate
    tiles = [
        ("Calls", format_count(totals.calls)),
        ("Failed", f"{failed:.2%}" if failed == failed else NOTHING),
        ("Tokens", format_count(totals.tokens.total)),
        ("Cost", format_usd(totals.cost)),
    ]
    return View(
        end,
        now,
        [*tiles, *_times(snapshot)],
        [*sentences(snapshot, ())],
        [("figures", "Figures", [*by_what(snapshot, snapshot, mean_of(seconds))], "")],
        None,
        (lines, charts),
    )


def _tiles(snapshot: Snapshot, past: Past) -> list[tuple[str, str]]:
    rate = snapshot.rates.get(WINDOW)
    each = None if rate is None else rate.per_minute
    spent = past.reading.recent.totals.cost
    pace = NOTHING
    if past.reading.seconds and snapshot.totals.cost is not None:
        pace = value_text(float(spent or 0) * 3600 / past.reading.seconds, "USD")
    share = each.errors / each.requests if each and each.requests else 0.0
    return [
        ("Calls a minute", NOTHING if each is None else value_text(each.requests, "count")),
        ("Failed, last minute", NOTHING if each is None else f"{share:.1%}"),
        ("Tokens a minute", NOTHING if each is None else value_text(each.tokens, "count")),
        ("In flight", format_count(snapshot.in_flight)),
        ("Cost an hour", pace),
        ("Cost since the begin", format_usd(snapshot.totals.cost)),
        *_times(past.reading.recent),
    ]


def _errors(snapshot: Snapshot) -> Iterator[tuple[str, str, str]]:
    """Yield a sentence where many calls of the last minute failed."""
    rate = snapshot.rates.get(WINDOW)
    if rate is not None and rate.errors and rate.errors / rate.requests >= _MANY_ERRORS:
        share = rate.errors / rate.requests
        yield "bad", f"{share:.0%} of the calls of the last minute failed.", "models"


def _times(snapshot: Snapshot) -> list[tuple[str, str]]:
    totals = snapshot.totals
    return [
        ("Latency p50", format_duration(totals.latency.quantile(0.5))),
        ("Latency p95", format_duration(totals.latency.quantile(0.95))),
        ("TTFT p50", format_duration(totals.time_to_first_token.quantile(0.5))),
        ("TTFT p95", format_duration(totals.time_to_first_token.quantile(0.95))),
    ]


def problem(text: str) -> bytes:
    """Return the event that says why there is no reading."""
    return _event("problem", {"text": text})


def _event(name: str, data: object) -> bytes:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"event: {name}\ndata: {text}\n\n".encode()
