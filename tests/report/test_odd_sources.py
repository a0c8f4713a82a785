"""Sources that are empty, tiny, hostile or out of proportion, in every form of their figures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langmeter import Snapshot
from langmeter.history.store import Store
from langmeter.report.html import figures, report
from langmeter.report.live import view
from langmeter.report.live.past import Past
from langmeter.report.recent import Reader
from langmeter.report.top import figures as top
from langmeter.report.top import line, text
from langmeter.snapshot import BudgetState, OriginState, State
from tests.report.test_html import Document, data_of
from tests.support.days import Day, write_history
from tests.support.histories import difference, row
from tests.support.traffic import Traffic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = {"long": "x" * 200, "wide": "通义千问" * 30, "HTML": "<b onclick=alert(1)>\"'&</script>"}


def named(name: str) -> Snapshot:
    """Return figures of which all names are this one."""
    traffic = Traffic()
    for number in range(20):
        traffic.call(name, name, gaps=3, error=name if number % 7 == 0 else None, team=name)
    traffic.component("tool", name)
    return traffic.snapshot()


def calls(model: str, *, error: str | None = None, priced: bool = True) -> Callable[[], Snapshot]:
    """Return the maker of figures of calls of three models, of which one is special."""

    def make() -> Snapshot:
        traffic = Traffic()
        for _ in range(20):
            traffic.call("openai", "one", priced=priced)
            traffic.call("openai", "two", priced=priced)
            traffic.call("openai", model, error=error, priced=priced)
        return traffic.snapshot()

    return make


def budgets() -> Snapshot:
    """Return a state with budgets near 0, far above their limit, and whose period is over."""
    native = Traffic().everything(3).recorder.snapshot()
    at = datetime.fromtimestamp(native.taken_at / 1e9, UTC)

    def budget(name: str, used: str, limit: str, resets: datetime | None = None) -> BudgetState:
        return BudgetState(name, "usd", "day", Decimal(used), Decimal(0), Decimal(limit), resets)

    parts = (
        *(budget("unused", "0", "10"), budget("tiny", "1e-12", "1000000")),
        *(budget("over", "1000", "0.01"), budget("all", "1e17", "1e-12"), budget("no", "0", "0")),
        *(budget("past", "5", "10", at - timedelta(hours=3)), budget("less", "-1", "10")),
    )
    state = State((OriginState("1-0", native.taken_at, parts),))
    return Snapshot(native, state)


SNAPSHOTS: dict[str, Callable[[], Snapshot]] = {
    "nothing": Snapshot,
    **{f"a {kind} name": partial(named, name) for kind, name in NAMES.items()},
    "a model of failures": calls("bad", error="APITimeoutError"),
    "unpriced": calls("free", priced=False),
    "budgets": budgets,
    "budgets alone": lambda: Snapshot(state=budgets().state),
}


def every_form(source: Any, base: Any = None) -> str:
    """Return the page of a source; each other form of it is JSON, or lines without a traceback."""
    page = report(source, base)
    Document(page)
    json.dumps([data_of(page), figures(source, base)], allow_nan=False)
    reading = top(Reader(source).read())
    json.dumps(reading.to_dict(), allow_nan=False)
    plain = text(reading, 80) + line(reading)
    if isinstance(source, Snapshot):
        past = Past()
        past.add(NOON.timestamp(), source)
        page_now = view.live(source, past, NOON)
        plain += (page_now.whole + page_now.frame).decode()
    shown = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL) + plain
    assert not re.search(r"\b(nan|NaN|inf|Infinity)\b", shown)
    return page


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_has_every_form(name: str) -> None:
    """Alone, compared with itself, and with nothing before and after it."""
    snapshot = SNAPSHOTS[name]()
    every_form(snapshot)
    assert "Both sources have the same figures." in every_form(snapshot, snapshot)
    every_form(snapshot, Snapshot())
    every_form(Snapshot(), snapshot)


def test_an_empty_history_says_so(tmp_path: Path) -> None:
    """Each part has a sentence in the place of empty tables and charts."""
    Store(tmp_path / "metrics.db").append([])
    page = every_form(tmp_path / "metrics.db")
    assert "Nothing was metered." in page
    assert page.count("No call has ended.") == 2
    assert "<table" not in page
    assert "of one snapshot" not in page


def test_a_minute_and_a_call_are_a_history(tmp_path: Path) -> None:
    """A line of one point is a chart, too."""
    write_history(tmp_path / "minute.db", Day(3), range(600, 601), 10)
    assert data_of(every_form(tmp_path / "minute.db"))["calls"]["x"]
    Store(tmp_path / "call.db").append([row(difference(60, 120, [0.1]))])
    assert data_of(every_form(tmp_path / "call.db"))["calls"]["series"][0] == [1.0]


def test_a_gap_of_a_day_is_a_gap(tmp_path: Path) -> None:
    """Without calls there are none, at no percentile."""
    rows = [
        row(difference(start, start + 60, [0.1, 0.2]), number=number)
        for number, start in enumerate((60, 120, 86_460, 86_520))
    ]
    Store(tmp_path / "metrics.db").append(rows)
    charts = data_of(every_form(tmp_path / "metrics.db"))
    counts, percentiles = charts["calls"]["series"][0], charts["durations"]["series"][0]
    assert [place for place, n in enumerate(counts) if n] == [0, len(counts) - 1]
    assert percentiles[1:-1] == [None] * (len(percentiles) - 2)


def test_amounts_out_of_proportion_are_bounded() -> None:
    """Shares end at 10,000 %, and a limit in a million years is never reached."""
    rows = {row[0]: row for row in Document(report(budgets())).tables["Budgets"]}
    assert rows["over"][2] == rows["all"][2] == "> 10,000%"
    assert rows["tiny"][6] == rows["unused"][6] == "never"
    assert rows["no"][6] == "reached"
    assert rows["past"][6] == "resets first"


def test_a_cost_without_any_price_is_not_known() -> None:
    """Where one call has a price, the cost is a lower bound."""
    assert "The cost is not known: 60 calls of 3 models without a price." in report(
        SNAPSHOTS["unpriced"]()
    )
