"""The part of the HTML report about budgets, alerts and providers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Budget, Meter, Snapshot
from langmeter.report.html import report
from langmeter.runnables.providers import ProviderManager
from langmeter.snapshot import (
    AlertState,
    BudgetState,
    CircuitState,
    DecisionState,
    OriginState,
    State,
)
from tests.analysis.test_limits import NOON, taken, usd
from tests.report.test_html import HOSTILE, Document
from tests.support.traffic import Traffic

BUDGETS = "Budgets"


def model(answers: int = 4) -> Any:
    """Return a chat model with fixed answers."""
    usage = {"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}
    return GenericFakeChatModel(messages=iter([AIMessage("4", usage_metadata=usage)] * answers))


def test_a_report_has_the_budgets_of_a_meter() -> None:
    """Each has a row: used, reserved, limit, and when it resets and is used up."""
    meter = Meter(budgets=[Budget(tokens=4000, per="day"), Budget(calls=10)])
    model().batch(["2 + 2?"] * 4, config={"callbacks": [meter]})
    snapshot = meter.snapshot()
    document = Document(report(snapshot))
    first, second = document.tables[BUDGETS][1:]
    resets = snapshot.state.budgets[0].resets
    assert first == [
        *("4000 tokens a day", "", "100.0%", "4,000 tokens", "0 tokens", "4,000 tokens"),
        "reached",
        f"{resets:%Y-%m-%d %H:%M:%S}",
    ]
    assert second[:6] == ["10 calls", "", "40.0%", "4 calls", "0 calls", "10 calls"]
    assert second[6] != "-"
    assert second[7] == "-"
    assert "The budget “4000 tokens a day” is used up." in "".join(document.texts)
    assert {"href": "#budgets"} in document.all("a")


def test_a_report_has_the_providers_of_a_manager() -> None:
    """Circuits and the last decisions stand there, and no text of a prompt."""
    meter = Meter(prices=False)
    manager = ProviderManager({"a": model(), "b": model()}, meter=meter)
    manager.invoke("the secret question")
    html = report(meter)
    tables = Document(html).tables
    assert tables["Circuits"][1:] == [
        ["a", "priority", "ready", "-"],
        ["b", "priority", "ready", "-"],
    ]
    assert tables["Last decisions"][1:] == [["a", "priority", "policy", "1", "-"]]
    assert "secret" not in html


def test_alerts_that_fire_are_named_first() -> None:
    """The page begins with them, and the table has those that are pending below."""
    nanoseconds = round(NOON.timestamp()) * 10**9
    alerts = (
        AlertState("slow", "openai", "warning", "pending", NOON - timedelta(hours=1), 2.5),
        AlertState("many errors", "", "critical", "firing", NOON, 0.25),
    )
    state = State((OriginState("a", nanoseconds, alerts=alerts),))
    document = Document(report(Traffic().everything(3).snapshot() + Snapshot(state=state)))
    assert document.tables["Open alerts"][1:] == [
        ["many errors", "all", "firing", "critical", "2026-03-01 12:00:00", "0.25"],
        ["slow", "openai", "pending", "warning", "2026-03-01 11:00:00", "2.5"],
    ]
    assert "Firing: many errors, since 2026-03-01 12:00:00 UTC." in "".join(document.texts)


@pytest.mark.parametrize(
    ("used", "text"),
    [
        ("9", "“money” reaches its limit in 1 h 20 m: raise it, or see Advice."),
        ("2", "At these rates none reaches its limit before it resets."),
        ("10", "“money” is used up: raise it, or wait until it resets; see Advice."),
    ],
)
def test_a_report_says_what_to_do_about_a_budget(used: str, text: str) -> None:
    """The mean rate of the day so far tells whether the limit comes before its end."""
    assert text in Document(report(taken(NOON, usd(used)))).texts


def test_processes_are_told_apart() -> None:
    """Budgets of several processes have the recorder in their names."""
    snapshot = taken(NOON, usd("1"), origin="a") + taken(NOON, usd("2"), origin="b")
    names = [row[0] for row in Document(report(snapshot)).tables[BUDGETS][1:]]
    assert sorted(names) == ["money (a)", "money (b)"]


def test_without_a_state_there_is_no_such_part() -> None:
    """A difference, or a history, has figures alone."""
    assert 'id="budgets"' not in report(Traffic().everything(3).snapshot())


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_state_leaves_its_place(name: str) -> None:
    """Names of budgets, alerts and providers are escaped."""
    parts: dict[str, Any] = {
        "budgets": (BudgetState(name, "calls", "total", 1, 0, 2, None),),
        "alerts": (AlertState(name, name, name, name, NOON, 1.0),),
        "circuits": (CircuitState(name, name, name, None),),
        "decisions": (DecisionState(name, name, name, 1, name),),
    }
    nanoseconds = round(NOON.timestamp()) * 10**9
    state = State((OriginState(name, nanoseconds, **parts),))
    html = report(Snapshot(state=state))
    assert {tag for tag, _ in Document(html).tags if tag in ("script", "img")} == {"script"}
    assert len(Document(html).all("script")) == 2
    assert "\x1b" not in html
