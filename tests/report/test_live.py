"""The live page: figures, budgets, alerts and charts in its events."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from langmeter import Meter, Snapshot
from langmeter._base.text import format_count, format_duration, format_usd
from langmeter.report.live import view
from langmeter.report.live.past import SPAN, Past
from langmeter.report.live.view import View
from langmeter.snapshot import AlertState, BudgetState, CircuitState, DecisionState, StreamState
from tests.support.days import Day
from tests.support.live import NOW, event, read, with_state
from tests.support.models import chat_model
from tests.support.traffic import Traffic


def cells(shown: View) -> Any:
    """What a frame has."""
    return event(shown.frame)[1]


def test_every_cell_is_the_figure_of_the_snapshot() -> None:
    """Rows by model, provider and label have the sums of the snapshot, as in the report."""
    snapshot = Traffic().everything(20).snapshot()
    tables = cells(read(snapshot))["tables"]
    rows = {row[0]: row[1:] for row in tables["models"]}
    assert set(rows) == {f"{provider}/{model}" for provider, model in snapshot.models}
    for (provider, model), stats in snapshot.models.items():
        row = rows[f"{provider}/{model}"]
        assert row[5] == format_count(stats.calls)
        assert row[7].removeprefix("≥ ") == format_usd(stats.cost)
        assert row[8:10] == [format_duration(stats.latency.quantile(q)) for q in (0.5, 0.95)]
    by_provider = {row[0]: row[5] for row in tables["providers"]}
    assert by_provider == {
        name: format_count(stats.calls) for name, stats in snapshot.by("provider").items()
    }
    by_team = {row[0]: row[5] for row in tables["label-1"]}
    assert by_team == {
        name or "(none)": format_count(stats.calls) for name, stats in snapshot.by("team").items()
    }
    assert tables["defects"] == [
        ["leak/high", 0.5, "50.0%", "2 of 4", "4", "4", "4", "$0.004000", "$0.002000"]
    ]


def test_tiles_and_bars_are_those_of_the_last_minute() -> None:
    """Rates are of the window of a minute; costs and percentiles of the difference to before."""
    traffic = Traffic()
    traffic.call(seconds=1.0)
    before = traffic.snapshot()
    for _ in range(3):
        traffic.call("anthropic", "claude-sonnet-4", seconds=2.0)
    traffic.call(seconds=2.0, error="APITimeoutError")
    shown = read(before, traffic.snapshot(), every=30.0)
    tiles = dict(shown.tiles)
    rate = traffic.snapshot().rates[60].per_minute
    assert tiles["Calls a minute"] == format_count(round(rate.requests))
    assert tiles["Tokens a minute"] == format_count(round(rate.tokens))
    assert tiles["Failed, last minute"] == "20.0%"
    assert tiles["Cost an hour"] == "$1.35"  # three calls of a tenth of a cent in 8 s
    assert tiles["Latency p50"] == "2.00 s"
    bars = {row[0]: row[1] for row in cells(shown)["tables"]["models"]}
    assert bars == {"anthropic/claude-sonnet-4": 0.6, "openai/gpt-4o": 0.4}


def test_budgets_have_their_time_to_the_limit() -> None:
    """It is by the pace of the last minute, and absent where the period ends before."""
    traffic = Traffic()
    first = traffic.snapshot()
    traffic.clock.advance(10.0)

    def budget(name: str, used: int | str, resets: timedelta | None) -> BudgetState:
        amount = Decimal(used) if isinstance(used, str) else used
        limit = Decimal(10) if isinstance(used, str) else 100
        unit = "usd" if isinstance(used, str) else "tokens"
        return BudgetState(
            name, unit, "day", amount, amount * 0, limit, None if resets is None else NOW + resets
        )

    day = timedelta(days=1)
    earlier = [budget("money", "1", day), budget("slow", "1", day), budget("soon", 10, day)]
    later = [
        budget("money", "1.5", day),  # half a dollar in 10 s: 170 s for the other 8.5
        budget("slow", "1", day),
        budget("soon", 11, timedelta(seconds=60)),
        budget("gone", 100, None),
    ]
    before = with_state(first, *earlier, at=NOW - timedelta(seconds=10))
    shown = read(before, with_state(traffic.snapshot(), *later))
    rows = {row[0]: row[1:] for row in cells(shown)["tables"]["budgets"]}
    assert list(rows) == ["gone", "money", "soon", "slow"]
    money = ("$1.500", "$0", "$10.00", ["2 m 50 s", "bad"], "2026-11-28 04:30:00")
    assert rows["money"] == [0.15, "15.0%", *money]
    assert rows["slow"][5] == rows["soon"][5] == ["resets first", ""]
    assert rows["gone"][5:] == [["reached", "bad"], "-"]
    needs = cells(shown)["needs"]
    assert "The budget “gone” is used up." in needs
    assert "The budget “money” reaches its limit in 2 m 50 s" in needs
    assert "slow" not in needs


def test_alerts_circuits_and_streams_are_shown() -> None:
    """What fires, is open or stalls comes first, and is among what needs a look."""
    state = (
        AlertState("p95 > 2 s", "model=x", "page", "pending", NOW - timedelta(seconds=9), 2.5),
        AlertState("cost > 1", "", "ticket", "firing", NOW - timedelta(days=2), 1.25),
        CircuitState("priority", "nim", "open", NOW + timedelta(seconds=30)),
        CircuitState("priority", "openai", "ready", None),
        DecisionState("priority", "openai", "fallback", 2, "nim: open"),
        StreamState("openai", "gpt-4o", NOW - timedelta(seconds=9), NOW, 12, False),
        StreamState("", "slow", NOW - timedelta(seconds=99), NOW - timedelta(seconds=50), 2, True),
    )
    shown = read(with_state(Traffic().snapshot(), *state))
    tables = cells(shown)["tables"]
    assert tables["alerts"] == [
        ["cost > 1", "all", ["firing", "bad"], "ticket", "2026-11-25 04:30:00", "1.25"],
        ["p95 > 2 s", "model=x", ["pending", ""], "page", "2026-11-27 04:29:51", "2.5"],
    ]
    assert tables["circuits"][0] == ["nim", "priority", ["open", "bad"], "2026-11-27 04:30:30"]
    assert tables["decisions"] == [["openai", "priority", "fallback", "2", "nim: open"]]
    assert [row[:2] for row in tables["streams"]] == [
        ["slow", ["stalled", "bad"]],
        ["openai/gpt-4o", "flows"],
    ]
    needs = cells(shown)["needs"]
    assert needs.index("Firing: cost") < needs.index("nim is not ready: open.")
    assert "1 stream stalled." in needs
    assert "p95" not in needs


def test_names_from_outside_stay_text() -> None:
    """A name that is HTML is escaped in markup, and a text elsewhere."""
    traffic, name = Traffic(), "<img src=x onerror=alert(1)>"
    traffic.call(name, name, team=name)
    budget = BudgetState(name, "usd", "day", Decimal(1), Decimal(0), Decimal(1), None)
    kind, whole = event(read(with_state(traffic.snapshot(), budget)).whole)
    assert kind == "whole"
    assert all("<img" not in whole[part] for part in ("main", "nav", "needs"))
    assert whole["tables"]["label-1"][0][0] == name


def test_nothing_is_shown_of_nothing() -> None:
    """The empty snapshot has a page with what it lacks."""
    shown = read(Snapshot())
    data = cells(shown)
    assert data["at"] == ""
    assert data["notes"]["models"] == "No call has ended."
    assert "This source has no state" in event(shown.whole)[1]["main"]
    assert "Nothing needs a look." in data["needs"]


def test_old_figures_say_their_age() -> None:
    """Figures of a file are of the moment that it was written."""
    taken = Traffic().everything(2).snapshot()
    assert taken.taken_at is not None
    assert cells(view.live(taken, _past(taken), taken.taken_at + timedelta(hours=2)))["age"] == (
        "2 h 00 m ago"
    )


def _past(snapshot: Snapshot) -> Past:
    past = Past()
    past.add(NOW.timestamp(), snapshot)
    return past


def test_charts_go_back_a_quarter_of_an_hour() -> None:
    """Points older than that are let go; where nothing was read a line has a gap."""
    past, snapshot = Past(), Traffic().everything(2).snapshot()
    for second in [*range(30), *range(100, 100 + SPAN + 30)]:
        past.add(float(second), snapshot)
    (calls, *_) = past.lines().charts()
    assert calls.x[0] >= 129
    assert len(calls.x) == SPAN + 1
    past = Past()
    for second in (0, 1, 50):
        past.add(float(second), snapshot)
    calls = past.lines().charts()[0]
    assert list(calls.x) == [0.0, 1.0, 2.0, 50.0]
    assert [value is None for value in calls.lines[0][1]] == [False, False, True, False]


def test_the_newest_point_follows_the_lines() -> None:
    """A frame has a value for each line of each chart, in their order."""
    day = Day(9)
    past, snapshots = Past(), []
    for minute in range(3):
        day.minute(30)
        snapshots.append(day.snapshot())
        past.add(60.0 * minute, snapshots[-1])
    points = past.lines().newest()
    for chart in past.lines().charts():
        x, *values = points[chart.name]
        assert x == chart.x[-1]
        assert len(values) == len(chart.lines)
    spending = next(chart for chart in past.lines().charts() if chart.name == "spending")
    whole = sum(points["spending"][1:])  # type: ignore[arg-type]
    cost = float((snapshots[-1] - snapshots[-2]).totals.cost or 0) * 60
    assert whole == pytest.approx(cost, rel=1e-3)
    assert 3 < len(spending.lines) <= 6


def test_a_process_that_was_started_again_begins_anew() -> None:
    """The figures of another recorder stand for themselves."""
    first, second = Traffic().everything(9).snapshot(), Traffic(seed=2).everything(1).snapshot()
    assert dict(read(first, second).tiles) == dict(read(second).tiles)


def test_streams_of_a_meter_are_in_flight() -> None:
    """A meter's own stream is listed while it lasts."""
    meter = Meter(stall_after=0.05)
    stream = chat_model().stream("x", config={"callbacks": [meter]})
    next(stream)
    shown = cells(read(meter.snapshot()))
    assert [row[0] for row in shown["tables"]["streams"]] == ["genericfakechatmodel"]
    assert dict(shown["tiles"])["In flight"] == "1"
    for _ in stream:
        pass
    assert cells(read(meter.snapshot()))["tables"].get("streams", []) == []
