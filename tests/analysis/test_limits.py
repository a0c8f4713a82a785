"""Time to the limits of budgets."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Budget, Meter, Snapshot
from langmeter._base.text import format_amount
from langmeter.analysis.limits import forecasts
from langmeter.snapshot import BudgetState, OriginState, State

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def taken(at: datetime, *budgets: BudgetState, origin: str = "a") -> Snapshot:
    """Return a snapshot with the budgets of one recorder, and no figures."""
    nanoseconds = round(at.timestamp()) * 10**9
    return Snapshot(state=State((OriginState(origin, nanoseconds, budgets),)))


def usd(
    used: str, limit: str = "10", per: str = "day", resets: datetime | None = None
) -> BudgetState:
    """Return a budget in US dollars that resets at midnight."""
    midnight = NOON + timedelta(hours=12) if resets is None and per != "total" else resets
    return BudgetState("money", "usd", per, Decimal(used), Decimal(0), Decimal(limit), midnight)


def test_the_rate_is_that_since_the_earlier_snapshot() -> None:
    """A dollar in ten minutes reaches two more dollars in twenty."""
    before = taken(NOON - timedelta(minutes=10), usd("7"))
    [row] = forecasts(taken(NOON, usd("8")), before)
    assert row.rate == pytest.approx(1 / 600)
    assert row.seconds == pytest.approx(1200)
    assert (row.text(), row.share, row.resets_first) == ("20 m 00 s", 0.8, False)


def test_a_period_that_resets_first_is_said() -> None:
    """The limit of a day that lasts twelve more hours is not reached at 10 cents an hour."""
    before = taken(NOON - timedelta(hours=1), usd("7.90"))
    [row] = forecasts(taken(NOON, usd("8")), before)
    assert row.resets_in == 12 * 3600
    assert (row.text(), row.reached_in) == ("resets first", None)


@pytest.mark.parametrize(
    ("per", "resets", "hours"),
    [
        ("minute", NOON + timedelta(seconds=20), 40 / 3600),
        ("hour", NOON + timedelta(minutes=45), 0.25),
        ("day", NOON + timedelta(hours=12), 12),
        ("month", datetime(2026, 4, 1, tzinfo=UTC), 12),
    ],
)
def test_without_an_earlier_snapshot_the_rate_is_the_mean_of_the_period(
    per: str, resets: datetime, hours: float
) -> None:
    """Periods begin a minute, an hour, a day or a month before they end."""
    [row] = forecasts(taken(NOON, usd("1", per=per, resets=resets)))
    assert row.rate == pytest.approx(1 / (3600 * hours))


def test_the_rate_of_a_new_period_is_its_own() -> None:
    """What the period before used says nothing about the rate of this one."""
    yesterday = taken(NOON - timedelta(hours=13), usd("9", resets=NOON - timedelta(hours=12)))
    [row] = forecasts(taken(NOON, usd("6")), yesterday)
    assert row.rate == pytest.approx(6 / (12 * 3600))


def test_what_is_not_known_is_none() -> None:
    """A total in a snapshot without a beginning has no rate; one that is full needs none."""
    rows = forecasts(taken(NOON, usd("1", per="total"), usd("11", limit="10", per="total")))
    assert [(row.text(), row.reached_in) for row in rows] == [("reached", 0.0), ("-", None)]
    assert rows[0].share == pytest.approx(1.1)


def test_the_most_urgent_comes_first() -> None:
    """Budgets are in order of the time to their limits; those that are not reached come last."""
    before = taken(NOON - timedelta(hours=1), usd("1"))
    others = taken(NOON, usd("1"), origin="b") + taken(NOON, usd("9.5"), origin="c")
    rows = forecasts(taken(NOON, usd("5")) + others, before)
    assert [row.origin for row in rows] == ["c", "a", "b"]
    assert forecasts(Snapshot()) == []


@given(used=st.integers(0, 999), more=st.integers(0, 999), seconds=st.integers(1, 10**6))
def test_the_rate_times_the_time_is_what_is_left(used: int, more: int, seconds: int) -> None:
    """At a constant rate a budget is full when its forecast says."""
    limit = 2000

    def calls(n: int) -> BudgetState:
        return BudgetState("calls", "calls", "total", n, 0, limit, None)

    before = taken(NOON, calls(used))
    [row] = forecasts(taken(NOON + timedelta(seconds=seconds), calls(used + more)), before)
    assert row.rate is not None
    assert row.seconds is not None
    if more:
        assert used + more + row.rate * row.seconds == pytest.approx(limit)
    else:
        assert math.isinf(row.seconds)
        assert row.text() == "never"


def test_a_meter_agrees_with_its_budget() -> None:
    """A snapshot of a meter says how much of a budget is used, and gives it a rate."""
    budget = Budget(tokens=10_000, per="day")
    meter = Meter(budgets=[budget])
    usage = {"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}
    answer = AIMessage("4", usage_metadata=usage)
    model = GenericFakeChatModel(messages=iter([answer] * 4))
    model.batch(["2 + 2?"] * 4, config={"callbacks": [meter]})
    snapshot = meter.snapshot()
    [row] = forecasts(snapshot)
    assert (row.budget.used, row.share) == (budget.spent, 0.4)
    assert snapshot.started_at is not None
    assert row.rate is not None
    taken_at = snapshot.state.origins[0].taken_at_unix_nano / 1e9
    seconds = taken_at - snapshot.started_at.timestamp()  # moments have microseconds
    assert row.rate == pytest.approx(4000 / seconds, rel=1e-3)
    assert format_amount(row.budget.used) == "4,000"
