"""Thresholds of budgets: who hears of them, how often, and what is logged."""

from __future__ import annotations

import logging
import threading
import time
from queue import SimpleQueue
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    TokenCountingCallback,
)
from langmeter._base.delivery import notices
from langmeter.budgets import Threshold
from langmeter.testing import ManualClock
from tests.support.priced import ACME, Priced


def _crossings(**limit: Any) -> tuple[Budget, list[Threshold], threading.Semaphore]:
    told: list[Threshold] = []
    done = threading.Semaphore(0)

    def on_threshold(event: Threshold) -> None:
        assert threading.current_thread() is not threading.main_thread()
        told.append(event)
        done.release()

    return Budget(on_threshold=on_threshold, **limit), told, done


def test_each_threshold_is_told_once_a_period_in_another_thread() -> None:
    """0.5 at the third call of five, 0.8 at the fourth, 1.0 at the fifth; then a new minute."""
    clock = ManualClock()
    budget, told, done = _crossings(calls=5, per="minute")
    meter = Meter(budgets=[budget], clock=clock)
    for _ in range(7):
        Priced().invoke("x", {"callbacks": [meter]})
    assert all(done.acquire(timeout=30) for _ in range(3))
    assert [(event.fraction, event.limit) for event in told] == [(0.5, 5), (0.8, 5), (1.0, 5)]
    assert told[0].budget is budget
    clock.advance(60)
    for _ in range(3):
        Priced().invoke("x", {"callbacks": [meter]})
    assert done.acquire(timeout=30)
    assert [event.fraction for event in told] == [0.5, 0.8, 1.0, 0.5]
    assert not done.acquire(blocking=False)


def test_a_refusal_crosses_the_last_threshold() -> None:
    """What remains may be too little for any call: then 1.0 is never reached by spending."""
    budget, told, done = _crossings(tokens=150, action="block")
    tokens = TokenCountingCallback()
    meter = CompositeCallback([tokens, CostTrackingCallback(ACME, budgets=[budget])])
    Priced().invoke("x", {"callbacks": [meter]})
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            Priced().invoke("x", {"callbacks": [meter]})
    assert all(done.acquire(timeout=30) for _ in range(2))
    assert sorted(event.fraction for event in told) == [0.5, 1.0]
    assert not done.acquire(blocking=False)


def test_a_threshold_without_a_listener_is_logged() -> None:
    """The default is a warning that names budget and figures."""
    logged = threading.Event()
    handler = logging.Handler()
    handler.addFilter(lambda record: "budget one" in record.getMessage())
    told: list[str] = []
    handler.emit = lambda record: (told.append(record.getMessage()), logged.set())  # type: ignore
    logging.getLogger("langmeter").addHandler(handler)
    try:
        meter = Meter(budgets=[Budget(calls=1, at=[1.0], name="one")])
        Priced().invoke("x", {"callbacks": [meter]})
        assert logged.wait(30)
    finally:
        logging.getLogger("langmeter").removeHandler(handler)
    assert told == ["budget one: 100 % of it crossed, 1 spent and 0 reserved of 1 calls"]


def test_a_listener_that_fails_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is an event that finds too many waiting; the call knows nothing of either."""
    done = threading.Event()

    def fail(event: Threshold) -> None:
        done.set()
        raise RuntimeError(event.fraction)

    told = threading.Event()
    after = Budget(calls=2, at=[1.0], on_threshold=lambda event: told.set())
    meter = Meter(budgets=[Budget(calls=1, at=[1.0], on_threshold=fail), after])
    Priced().invoke("x", {"callbacks": [meter]})
    Priced().invoke("x", {"callbacks": [meter]})
    assert done.wait(30)
    assert told.wait(30)
    assert meter.snapshot().dropped == {"callback_errors": 1}
    monkeypatch.setattr("langmeter._base.delivery._Waiting.full", True)
    meter = Meter(budgets=[Budget(calls=1, at=[1.0])])
    Priced().invoke("x", {"callbacks": [meter]})
    assert meter.snapshot().dropped == {"callback_errors": 1}


def test_thresholds_are_ten_warnings_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """Of all budgets of a meter; the rest is counted, and a listener hears of each."""
    heard: SimpleQueue[Any] = SimpleQueue()
    quiet = [Budget(calls=1, name=f"b{n}", at=[1.0]) for n in range(30)]
    told = Budget(calls=1, at=[1.0], on_threshold=heard.put)
    meter = Meter(budgets=[*quiet, told])
    # The queue is that of all meters: thresholds of earlier tests may still wait in it.
    assert notices.flush(30)
    with caplog.at_level(logging.WARNING, "langmeter"):
        FakeListChatModel(responses=["x"]).invoke("x", {"callbacks": [meter]})
        assert heard.get(timeout=30).budget is told
        deadline = time.monotonic() + 30
        while meter.snapshot().dropped.get("warnings", 0) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
    warned = [text for r in caplog.records if (text := r.getMessage()).startswith("budget b")]
    assert len(warned) == 10
    assert sum("further thresholds of budgets are only counted" in text for text in warned) == 1
    assert meter.snapshot().dropped == {"warnings": 20}
