"""Prices and budgets: what is known counts from the first call on, and nothing opens a budget."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langmeter import Budget, BudgetExceeded, CompositeCallback, CostTrackingCallback, Meter
from langmeter.budgets import worst_case
from langmeter.budgets.budget import Threshold
from langmeter.errors import ConfigError
from langmeter.prices import PriceBook, catalogue
from tests.support.priced import ACME, Priced

#: "acme/big" has no price; "acme/free" costs nothing, "acme/dear" 1 dollar per 1,000 tokens.
SOME: Any = {"acme/free": {"input": 0, "output": 0}, "acme/dear": {"input": 1000, "output": 1000}}


def made(meter: Any, model: Any, calls: int = 3) -> tuple[int, str]:
    """How many of some calls are made, and why one is not."""
    count, reason = 0, ""
    for _ in range(calls):
        try:
            model.invoke("x", {"callbacks": [meter]})
            count += 1
        except BudgetExceeded as exc:
            reason = exc.reason
    return count, reason


@pytest.mark.parametrize("handler", ["meter", "cost", "composite"])
def test_a_free_call_is_not_refused_by_a_spent_budget_in_usd(handler: str) -> None:
    """Sync, async and streamed; one that has something to pay is."""
    budget = Budget(usd="0.2", action="block")
    meter: Any = CostTrackingCallback(PriceBook(SOME), budgets=[budget])
    if handler == "meter":
        budget = Budget(usd="0.2", action="block")
        meter = Meter(prices=PriceBook(SOME), budgets=[budget])
    elif handler == "composite":
        meter = CompositeCallback([meter])
    dear, free = Priced(name_of_model="dear"), Priced(name_of_model="free")
    assert made(meter, dear) == (1, "limit")
    budget.set_limit("0.05")  # overspent by that
    assert budget.remaining == 0
    config: Any = {"callbacks": [meter]}
    assert made(meter, free) == (3, "")
    list(free.stream("x", config))
    asyncio.run(free.ainvoke("x", config))
    free.batch(["x", "y"], config)
    assert made(meter, dear) == (0, "limit")
    assert (budget.spent, budget.reserved) == (Decimal("0.11"), 0)


@pytest.mark.parametrize(
    ("unpriced", "calls", "reason", "spent"),
    [
        ("allow", 3, "", 0),
        ("block", 0, "unpriced", 0),
        (Decimal("0.04"), 2, "limit", Decimal("0.08")),
    ],
)
def test_a_call_without_a_price_is_allowed_blocked_or_charged(
    unpriced: Any, calls: int, reason: str, spent: Any
) -> None:
    """By what the budget says; a failed one is charged nothing."""
    budget = Budget(usd="0.1", action="block", unpriced=unpriced)
    meter = Meter(prices=PriceBook(SOME).warm(wait=True), budgets=[budget])
    if unpriced != "block":
        with pytest.raises(RuntimeError):
            Priced(fails=True).invoke("x", {"callbacks": [meter]})
    assert made(meter, Priced()) == (calls, reason)
    assert (budget.spent, budget.reserved) == (spent, 0)
    assert made(meter, Priced(name_of_model="free"))[0] == 3


def test_the_refusal_of_a_call_without_a_price_says_what_helps() -> None:
    """A price, or another policy."""
    budget = Budget(usd=1, action="block", unpriced="block", name="day")
    meter = Meter(prices=PriceBook(SOME).warm(wait=True), budgets=[budget])
    with pytest.raises(BudgetExceeded, match=r"'day' refuses .* PriceBook.set, or set unpriced"):
        Priced().invoke("x", {"callbacks": [meter]})


def test_a_budget_that_only_warns_charges_calls_without_a_price_too() -> None:
    """Once the catalogue is loaded; it waits for nothing."""
    budget = Budget(usd="0.1", unpriced=Decimal("0.04"))
    meter = Meter(prices=PriceBook(SOME).warm(wait=True), budgets=[budget])
    assert made(meter, Priced()) == (3, "")
    assert budget.spent == Decimal("0.12")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"usd": 1, "unpriced": "refuse"}, "must be 'allow', 'block' or USD a call, got 'refuse'"),
        ({"usd": 1, "unpriced": Decimal(0)}, "unpriced must be an amount in USD above 0"),
        ({"usd": 1, "unpriced": True}, "unpriced must be an amount in USD above 0"),
        ({"tokens": 1, "unpriced": "block"}, "must be 'allow' for a budget of tokens"),
    ],
)
def test_a_policy_that_is_none_is_refused(wrong: Any, message: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigError, match=message):
        Budget(**wrong)


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A catalogue that does not load; the seconds that a call waits for it."""
    waited: list[float] = []

    def warm(*, wait: bool | float = False) -> None:
        if wait:
            waited.append(float(wait))

    monkeypatch.setattr(catalogue, "ready", lambda: False)
    monkeypatch.setattr(catalogue, "loaded", lambda: False)
    monkeypatch.setattr(catalogue, "warm", warm)
    return waited


def test_own_prices_wait_for_no_catalogue(never_loaded: list[float]) -> None:
    """A budget holds them from the first call on, the price of a whole provider too."""
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=ACME, budgets=[budget])
    with ThreadPoolExecutor(8) as pool:
        calls = list(pool.map(lambda _: made(meter, Priced(), 4)[0], range(8)))
    assert not never_loaded
    assert sum(calls) >= 1
    assert budget.spent <= 1


def test_a_catalogue_that_does_not_come_is_waited_for_once(
    never_loaded: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a blocking budget refuses, and says so; budgets that do not need it go on as ever."""
    monkeypatch.setattr(worst_case, "LONGEST_WAIT", 0.0)
    usd, calls = Budget(usd=1, action="block", name="day"), Budget(calls=2, action="block")
    meter = Meter(budgets=[usd])
    with pytest.raises(
        BudgetExceeded, match=r"'day' cannot judge .* prices could not be loaded"
    ) as no:
        Priced().invoke("x", {"callbacks": [meter]})
    assert no.value.reason == "prices"
    assert (usd.spent, usd.reserved, meter.snapshot().totals.calls) == (0, 0, 0)
    assert made(Meter(budgets=[calls]), Priced()) == (2, "limit")
    warns = Budget(usd=1, unpriced=Decimal("0.1"))
    assert made(Meter(budgets=[warns]), Priced()) == (3, "")
    monkeypatch.undo()
    meter.cost.prices.warm(wait=True)
    assert made(meter, Priced()) == (3, "")


def test_the_wait_is_shared_by_the_first_calls(never_loaded: list[float]) -> None:
    """Of several first calls none waits longer than 10 s after the first of them began."""
    usd = Budget(usd=1, action="block")
    meter = Meter(budgets=[usd])
    with ThreadPoolExecutor(4) as pool:
        refused = list(pool.map(lambda _: made(meter, Priced(), 1), range(4)))
    assert refused == [(0, "prices")] * 4
    assert len(never_loaded) == 4
    assert max(never_loaded) <= worst_case.LONGEST_WAIT == 10


@pytest.mark.parametrize(
    ("scope", "named"),
    [
        ({"provider": "openia"}, True),
        ({"model": "gpt-4*"}, True),
        ({"provider": "acme", "model": "small"}, True),
        ({"provider": "acme"}, False),
        ({"model": "acme/b*", "tenant": "unlisted"}, False),
        ({"tenant": "unlisted"}, False),
        ({}, False),
    ],
)
def test_a_scope_that_matches_none_of_the_first_calls_is_named(
    scope: Any, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, after 100 calls, with the names that were seen."""
    meter = Meter(budgets=[Budget(calls=1000, scope=scope, name="mine"), Budget(tokens=10**9)])
    with caplog.at_level(logging.WARNING, logger="langmeter"):
        for said, calls in ((False, 99), (named, 1), (named, 150)):
            assert made(meter, Priced(), calls) == (calls, "")
            warned = [r.getMessage() for r in caplog.records if "matches none" in r.getMessage()]
            assert len(warned) == int(said)
    assert all("'mine'" in text and "'acme/big'" in text for text in warned)


def test_a_limit_can_be_set_while_calls_run() -> None:
    """64 threads, a limit that goes up and down: at no moment is more spent than ever allowed."""
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=ACME, budgets=[budget])
    model, done = Priced(), threading.Event()

    def move() -> None:
        while not done.is_set():
            for limit in (2, "0.5", 1):
                budget.set_limit(limit)

    mover = threading.Thread(target=move)
    mover.start()
    with ThreadPoolExecutor(64) as pool:
        calls = sum(pool.map(lambda _: made(meter, model, 5)[0], range(128)))
    done.set()
    mover.join()
    assert budget.spent == Decimal("0.11") * calls <= 2
    assert budget.reserved == 0
    budget.set_limit(1)
    assert budget.limit == 1


def test_a_reset_begins_the_period_anew() -> None:
    """What is spent is forgotten, thresholds are told again, and the name follows the limit."""
    told: list[float] = []
    done = threading.Semaphore(0)

    def on_threshold(event: Threshold) -> None:
        told.append(event.fraction)
        done.release()

    budget = Budget(calls=2, action="block", at=[0.5, 1.0], on_threshold=on_threshold)
    budget.reset()
    budget.set_limit(3)
    assert (budget.limit, budget.name) == (3, "3 calls")
    budget.set_limit(2)
    meter = Meter(budgets=[budget])
    for _ in range(3):
        assert made(meter, Priced()) == (2, "limit")
        assert all(done.acquire(timeout=30) for _ in range(2))
        budget.reset()
        assert (budget.spent, budget.remaining) == (0, 2)
    assert sorted(told) == [0.5] * 3 + [1.0] * 3
    Priced().invoke("x", {"callbacks": [meter]})
    assert done.acquire(timeout=30)
    budget.set_limit(1)  # reached by that
    assert done.acquire(timeout=30)
    assert told[-1] == 1.0
    for wrong in (0, "many", True, None):
        with pytest.raises(ConfigError, match="calls must be a whole number of calls"):
            budget.set_limit(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "right", "wrong"),
    [
        ({"calls": 1}, "raise the limit", "max_tokens"),
        ({"tokens": 50}, "set max_tokens on the call, or raise the limit", "wait"),
        ({"usd": "0.05"}, "set max_tokens on the call, or raise the limit", "wait"),
        ({"calls": 1, "per": "hour"}, "wait until", "max_tokens"),
    ],
)
def test_a_refusal_names_the_remedy_for_its_unit(limit: Any, right: str, wrong: str) -> None:
    """No limit of an answer helps where calls are counted, nor where all is spent."""
    meter = Meter(prices=ACME, budgets=[Budget(**limit, action="block")])
    model = FakeListChatModel(responses=["x"]) if "calls" in limit else Priced()
    if "calls" in limit:
        model.invoke("x", {"callbacks": [meter]})
    with pytest.raises(BudgetExceeded) as caught:
        model.invoke("x", {"callbacks": [meter]})
    assert right in str(caught.value)
    assert wrong not in str(caught.value)
