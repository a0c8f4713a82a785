"""The HTML report: its figures, its escaping, and what it is made of."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from langmeter import Snapshot
from langmeter._base.text import format_count, format_usd
from langmeter.analysis import compare, defects
from langmeter.errors import ConfigError
from langmeter.history import History, Row, Rows
from langmeter.history.store import Store
from langmeter.report.html import report
from langmeter.report.html.lines import Lines, nines, percentile_curves, step_of
from langmeter.report.html.markup import Markup, element, join, table
from langmeter.report.html.timeline import timeline
from tests.support import histories
from tests.support.days import MIDNIGHT, Day, traffic, write_history
from tests.support.traffic import Traffic

VOID = {"meta", "path", "rect", "line", "circle"}


class Document(HTMLParser):
    """A page as Python's own parser reads it: tags in order, attributes, texts, tables."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self.open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "caption" in self.open[-1:]:
            self._caption += data
        if {"th", "td"} & set(self.open):
            self._rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(html: str) -> dict[str, dict[str, Any]]:
    """Return the data of the charts of a page."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert match is not None
    return json.loads(match[1])


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Snapshot]:
    """A history of two hours, and all that it holds."""
    path = tmp_path_factory.mktemp("history") / "metrics.db"
    return path, write_history(path, Day(), range(600, 720), 6)


@pytest.fixture(scope="module")
def page(day: tuple[Path, Snapshot]) -> str:
    """The report of it."""
    return report(day[0])


def test_a_page_holds_the_figures_of_the_snapshot(page: str, day: tuple[Path, Snapshot]) -> None:
    """Each model has a row with its cost, calls, errors and tokens; the last row is their sum."""
    rows = Document(page).tables["Calls, tokens and US dollars by model"]
    snapshot = day[1]
    figures = {row[0]: row[2:8] for row in rows[1:]}
    for (provider, model), stats in [*snapshot.models.items(), (("", ""), snapshot.totals)]:
        each = None if stats.cost is None else stats.cost / stats.priced_calls
        assert figures[f"{provider}/{model}" if model else "all models"] == [
            format_usd(stats.cost),
            format_usd(each),
            *map(format_count, (stats.calls, stats.errors)),
            *map(format_count, (stats.tokens.input, stats.tokens.output)),
        ]
    assert len(figures) == len(snapshot.models) + 1


def test_lines_hold_the_figures_of_the_history(page: str, day: tuple[Path, Snapshot]) -> None:
    """Calls, tokens and dollars of all steps are those of the snapshot; p95 is the query's."""
    charts, totals = data_of(page), day[1].totals
    assert {*charts} == {"calls", "tokens", "spending", "durations", "latency", "first-token"}
    calls, errors = charts["calls"]["series"]
    assert charts["calls"]["x"][:2] == [MIDNIGHT, MIDNIGHT + 60]
    assert sum(calls) == totals.calls
    assert sum(errors) == totals.errors
    assert sum(charts["tokens"]["series"][1]) == pytest.approx(totals.tokens.output, rel=1e-3)
    step = charts["spending"]["x"][1] - charts["spending"]["x"][0]
    spent = sum(map(sum, charts["spending"]["series"])) * step / 3600
    assert spent == pytest.approx(float(totals.cost), rel=1e-3)  # type: ignore[arg-type]
    rows = History(day[0]).query("latency.p95", step=60)
    assert charts["durations"]["series"][1] == pytest.approx([r.value for r in rows], rel=1e-3)


def test_curves_hold_percentiles_of_the_distribution() -> None:
    """A curve has the quantile at each place of its axis, and ends at its slowest call."""
    snapshot = Traffic().everything(2_000).snapshot()
    times = snapshot.models["openai", "gpt-4o"].latency
    chart = percentile_curves("latency", "Durations", [("gpt-4o", times)])
    assert chart is not None
    values = dict(zip(chart.x, chart.lines[0][1], strict=True))
    for q in (0.9, 0.99, 0.999):
        assert values[round(nines(q))] == times.quantile(q)
    last = next(y for y in reversed(chart.lines[0][1]) if y is not None)
    assert last == times.max
    assert percentile_curves("latency", "Durations", []) is None


@pytest.mark.parametrize("log", [False, True])
def test_a_drawing_and_its_data_are_the_same_line(log: bool) -> None:
    """Each point of a path is its value on the axis; a missing value is a gap."""
    values = [1.0, 4.0, None, 10.0, 2.5]
    chart = Lines("a", "A", [0.0, 60.0, 120.0, 180.0, 240.0], [("a", values)], "s", "time", log)
    drawing = str(chart.markup())
    path = re.findall(r' d="([^"]+)" class="line s1"', drawing)[0]
    low, high = (0.9, 11.0) if log else (0.0, 10.6)
    points, place = [], (0, 0)
    for command, x, y in re.findall(r"([Ml])(-?\d+) (-?\d+)", path):
        at = (int(x), int(y)) if command == "M" else (place[0] + int(x), place[1] + int(y))
        place = (at[0] + 1, at[1]) if command == "M" else at
        points.append((at[0] / 10, at[1] / 10))
    scale = math.log10 if log else float
    expected = [
        (720 * n / 4, 222 - 200 * (scale(y) - scale(low or 0.0)) / (scale(high) - scale(low)))
        for n, y in enumerate(values)
        if y is not None
    ]
    starts = path.count("M")
    assert starts == 2
    drawn = [point for place, point in enumerate(points) if point not in points[:place]]
    for (x, y), (other_x, other_y) in zip(drawn, expected, strict=True):
        assert (x, y) == (pytest.approx(other_x, abs=0.11), pytest.approx(other_y, abs=0.11))


HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--",
    "' onfocus='alert(1)",
    "\x1b[31mred\u202e",
    "&lt;b&gt;",
)


def _named(names: tuple[str, ...]) -> Snapshot:
    traffic = Traffic()
    for name in names:
        for place in range(30):
            error = name if place % 7 == 0 else None
            traffic.call(name, name, gaps=3, error=error, team=name)
        traffic.component("tool", name)
        attempt = traffic.attempts.open(name, name, name)
        traffic.attempts.judge(attempt, "fixed", "tests")
        traffic.attempts.close(attempt, "unverified")
    return traffic.snapshot()


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    """A page with hostile names has the elements of one with plain names, and shows each name."""
    hostile = report(_named(HOSTILE), _named(HOSTILE[:3]), title=HOSTILE[0])
    plain_names = tuple(f"name-{place}" for place in range(len(HOSTILE)))
    plain = report(_named(plain_names), _named(plain_names[:3]), title="name-0")
    document = Document(hostile)
    assert Counter(tag for tag, _ in document.tags) == Counter(
        tag for tag, _ in Document(plain).tags
    )
    assert document.all("img") == []
    assert not any(name.startswith("on") for _, attributes in document.tags for name in attributes)
    text = "".join(document.texts)
    assert "alert(1)</script>" in text
    assert "\\x1b[31mred\\u202e" in text
    assert "\x1b" not in hostile
    names = {name for chart in data_of(hostile).values() for name in chart["names"]}
    assert any(name.startswith("</script>") for name in names)


def test_a_page_loads_nothing_and_allows_only_its_own_script(page: str) -> None:
    """There is not one address of another file; the policy admits one style and one script."""
    document = Document(page)
    assert not any({"src", "srcset", "data"} & {*attributes} for _, attributes in document.tags)
    assert all(str(link["href"]).startswith("#") for link in document.all("a"))
    assert document.all("link") == []
    policy = next(m for m in document.all("meta") if m.get("http-equiv"))["content"]
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in str(policy)
    assert "url(" not in page
    assert "@import" not in page
    assert not any("style" in attributes for _, attributes in document.tags)


def test_a_page_can_be_found_through(page: str) -> None:
    """Ids are unique, links lead to them, tables have captions and headers with a scope."""
    document = Document(page)
    ids = [attributes["id"] for _, attributes in document.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in document.all("a")} <= {*ids}
    assert len(document.tables) == len(document.all("table")) > 6
    assert "" not in document.tables
    assert {header["scope"] for header in document.all("th")} == {"col", "row"}
    names = [tag for tag, _ in document.tags]
    assert [names.count(tag) for tag in ("main", "nav", "header", "footer", "h1")] == [1] * 5
    drawings = [svg for svg in document.all("svg") if svg.get("aria-hidden") != "true"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
    # Each figure says what it means; those that ask for something say what.
    assert names.count("figcaption") == names.count("figure") > 8
    assert sum(text == "What to do: " for text in document.texts) == names.count("figure")


def test_a_snapshot_has_no_axis_of_time(day: tuple[Path, Snapshot]) -> None:
    """The page says so, and has no lines by time."""
    html = report(day[1])
    assert "there is no axis of time" in html
    assert {*data_of(html)} == {"latency", "first-token"}


def test_a_span_of_a_history(day: tuple[Path, Snapshot]) -> None:
    """The report is of the span alone; a snapshot has no spans."""
    html = report(day[0], since="2026-10-14T00:30", until="2026-10-14T01:00")
    calls = sum(data_of(html)["calls"]["series"][0])
    assert calls == History(day[0]).between("2026-10-14T00:30", "2026-10-14T01:00").totals.calls
    assert 0 < calls < day[1].totals.calls
    with pytest.raises(ConfigError, match="only a history keeps spans"):
        report(day[1], since="1d")


def test_two_sources_are_compared(day: tuple[Path, Snapshot]) -> None:
    """The verdicts, their figures and their number are those of a comparison."""
    slower = Day(seed=2, slower=1.6)
    for minute in range(600, 660):
        slower.minute(traffic(minute, 6))
    comparison = compare(day[1], slower.snapshot())
    document = Document(report(slower.snapshot(), day[1]))
    rows = document.tables["Figures that changed"][1:]
    worse = {(row.name, row.metric) for row in comparison.worse if row.interval}
    assert {(row[0], row[2]) for row in rows if row[1] == "worse"} >= worse != set()
    assert comparison.headline in "".join(document.texts)


def test_defects_have_a_row_each_with_their_interval(page: str, day: tuple[Path, Snapshot]) -> None:
    """Rates, intervals and verdicts are those of the analysis."""
    rows = Document(page).tables["Success of each model by type and severity of defect"]
    cells = {row[0]: row for row in rows[1:]}
    for row in defects(day[1]).rows:
        low, high = row.interval
        if low == low and f"{row.defect}: {row.name}" in cells:
            assert cells[f"{row.defect}: {row.name}"][5] == f"{low:.0%} to {high:.0%}"
    assert len(cells) > 6


def test_an_empty_snapshot_has_a_page() -> None:
    """Nothing metered is said, not an error."""
    html = report(Snapshot())
    assert "Nothing was metered." in html
    Document(html)


def test_what_was_lost_comes_first() -> None:
    """Unpriced calls and failures are in the sentences that the page begins with."""
    html = report(Traffic().everything(100).snapshot())
    beginning = html[html.index('class="summary"') : html.index("<nav")]
    assert "of the calls failed, most often by RateLimitError 429" in beginning
    assert "The cost is a lower bound: 1 call of 1 model without a price." in beginning


def test_money_of_each_kind_is_named() -> None:
    """What failed, cancelled and repeated calls cost, and what was billed, has a sentence."""
    data = Traffic().everything(20).snapshot().to_dict()
    model = next(each for each in data["models"] if each["cost_usd"])
    model["counters"] |= {"cost_error": 10**11, "cost_cancelled": 2 * 10**11, "retried_calls": 3}
    model["counters"] |= {"retried_cost": 10**11, "billed": 5 * 10**12, "billed_calls": 2}
    model["counters"] |= {"estimated": 500, "saved_total": 1234}
    model["counters"]["cost"] += 10**12
    model["cost_usd"] = str(Decimal(model["cost_usd"]) + 1)
    data["dropped"] = {"series": 7, "duplicate_end": 2}
    html = report(Snapshot.from_dict(data))
    document = Document(html)
    text = "".join(document.texts)
    for sentence in (
        "Of the cost, $0.1000 went to calls that failed.",
        "Of the cost, $0.2000 went to calls that were cancelled.",
        "Made again by retries: 3 calls, for $0.1000.",
        "Billed, as providers state it: $5.000 for 2 calls.",
        "Estimated, because a provider sent no usage: ",
        "Saved by the response cache: 1,234 tokens.",
        "7 events could not be counted.",
    ):
        assert sentence in text
    assert document.tables["Dropped events by reason"][1:] == [
        ["series", "7", "lost"],
        ["duplicate_end", "2", "counted before"],
    ]


def test_models_beyond_the_lines_are_one_line(tmp_path: Path) -> None:
    """Spending has a line for each of the five dearest models and one for the sum of the others."""
    path = tmp_path / "metrics.db"
    calls = {f"m-{n}": 1 + n for n in range(8)}
    rows = [
        histories.row(histories.difference(60, 120, [0.1] * n, model=name), number=number)
        for number, (name, n) in enumerate(calls.items(), 1)
    ]
    Store(path).append(rows)
    chart = data_of(report(path))["spending"]
    assert chart["names"] == [*(f"openai/m-{n}" for n in (7, 6, 5, 4, 3)), "3 others"]
    # 0.004 USD a call in a minute, as dollars an hour.
    assert [each[0] for each in chart["series"]] == [0.24 * n for n in (8, 7, 6, 5, 4, 6)]


@pytest.mark.slow
def test_fifty_models_and_a_day_of_minutes_are_below_400_kb(tmp_path: Path) -> None:
    """The size is that of what a screen can show, not of the history."""
    path = tmp_path / "metrics.db"
    write_history(path, Day(50), range(1440), 3)
    html = report(path)
    assert len(data_of(html)["calls"]["x"]) == 720
    assert len(html.encode()) < 400_000


def test_elements_escape_what_is_not_markup() -> None:
    """Texts are escaped once, in children and attributes; None and False are left out."""
    inner = element("b", "<&>")
    assert inner == "<b>&lt;&amp;&gt;</b>"
    whole = element("p", inner, None, False, ["x", Markup("<i>y</i>")], class_='a"b', hidden=True)
    assert whole == '<p class="a&quot;b" hidden><b>&lt;&amp;&gt;</b>x<i>y</i></p>'
    assert join(("a", ["<"])) == "a&lt;"


def test_a_long_table_opens_on_demand() -> None:
    """The first rows are there at once, the others in a part that says how many they are."""
    html = table("Rows", ("a", "b"), [(str(n), "x") for n in range(40)], ("sum", "y"))
    assert html.count("<table") == 2
    assert "<summary>25 more rows</summary>" in html
    assert html.count("<tfoot") == 1


@pytest.mark.parametrize(
    ("seconds", "most", "step"),
    [(86_400, 720, 120), (3_600, 720, 60), (86_400 * 365, 100, 604_800)],
)
def test_steps_are_usual_lengths(seconds: float, most: int, step: int) -> None:
    """A step is the shortest of which at most `most` make the span."""
    assert step_of(seconds, most) == step


def test_rows_of_hours_fill_their_steps() -> None:
    """Where a history keeps hours alone, their pace is drawn over the whole hour."""

    class Hours:
        """A history of one hour, as one row."""

        def query(self, metrics: Sequence[str], *, by: Sequence[str], step: int) -> list[Rows]:
            start = datetime.fromtimestamp(MIDNIGHT, UTC)
            labels = {"provider": "a", "model": "b"}
            rows = Rows([Row(start, start + timedelta(hours=1), labels, 120.0, 1)])
            return [rows] * len(metrics)

    day = Day()
    day.minute(1)
    charts: list[Lines] = []
    timeline(Hours(), day.snapshot(), charts)
    calls = next(chart for chart in charts if chart.name == "calls")
    assert [*calls.lines[0][1]] == [2.0] * 60
