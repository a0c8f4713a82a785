"""Budgets: what they cover, their periods, and what they take as an argument."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    TokenCountingCallback,
)
from langmeter.budgets import ledger
from langmeter.errors import ConfigError
from langmeter.prices import PriceBook
from langmeter.testing import ManualClock
from tests.support.models import chat_model
from tests.support.priced import ACME, Priced, blocking

#: What a call of `chat_model()` uses: 140 tokens; at `prices` 570 millionths of a dollar.
TOKENS, COST = 140, Decimal("0.00057")


def test_a_budget_shows_where_it_stands(prices: PriceBook) -> None:
    """Spent is what the calls cost, to the last pico-dollar; the rest remains."""
    usd, tokens, calls = Budget(usd="0.01"), Budget(tokens=1000), Budget(calls=10)
    assert (usd.spent, usd.remaining, usd.resets_at) == (0, Decimal("0.01"), None)
    meter = Meter(prices=prices, budgets=[usd, tokens, calls])
    for _ in range(3):
        chat_model().invoke("hi", config={"callbacks": [meter]})
    assert (usd.spent, usd.remaining, usd.reserved) == (3 * COST, Decimal("0.01") - 3 * COST, 0)
    assert (tokens.spent, calls.spent, calls.remaining) == (3 * TOKENS, 3, 7)
    assert meter.cost.total_cost == usd.spent
    assert meter.cost.budgets == (usd, tokens, calls)
    assert repr(calls) == "<Budget '10 calls': 3 of 10 calls spent>"
    assert not meter.raise_error


def test_a_period_rolls_over_by_the_calendar() -> None:
    """The manual clock began with 1970: the second day begins 86,400 s later, less one."""
    clock = ManualClock()
    day, hour = Budget(calls=2, per="day", action="block"), Budget(calls=100, per="hour")
    month = Budget(tokens=1000, per="month")
    meter = Meter(budgets=[day, hour, month], clock=clock)
    config: Any = {"callbacks": [meter]}
    Priced().invoke("x", config)
    Priced().invoke("x", config)
    with pytest.raises(BudgetExceeded, match="wait until 1970-01-02 00:00 UTC") as caught:
        Priced().invoke("x", config)
    assert caught.value.resets_at == datetime(1970, 1, 2, tzinfo=UTC)
    assert month.resets_at == datetime(1970, 2, 1, tzinfo=UTC)
    clock.advance(86_399)
    assert (day.spent, hour.spent, month.spent) == (0, 0, 220)
    Priced().invoke("x", config)
    assert (day.spent, hour.spent, month.spent) == (1, 1, 330)
    assert day.resets_at == datetime(1970, 1, 3, tzinfo=UTC)


def test_spending_is_projected_to_the_end_of_the_period() -> None:
    """110 tokens in the first quarter of an hour, since the first call, are 440 in the hour."""
    clock = ManualClock()
    hour, total = Budget(tokens=1000, per="hour"), Budget(tokens=10)
    meter = Meter(budgets=[hour, total], prices=ACME, clock=clock)
    assert hour.projected() == 0
    clock.advance(3599 - 900)
    Priced().invoke("x", {"callbacks": [meter]})
    clock.advance(300)
    assert (hour.projected(), total.projected()) == (330, None)
    clock.advance(600)
    assert hour.projected() == 0


def test_the_burn_rate_is_dollars_an_hour() -> None:
    """0.11 USD in a minute are 6.60 in an hour; after a quarter of an hour of nothing it is 0."""
    clock = ManualClock()
    cost = CostTrackingCallback(ACME, clock=clock)
    assert cost.burn_rate == 0
    Priced().invoke("x", {"callbacks": [cost]})
    clock.advance(60)
    assert cost.burn_rate == Decimal("6.6")
    clock.advance(900)
    assert cost.burn_rate == 0


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ({}, True),
        ({"provider": "acme"}, True),
        ({"provider": ["openai", "ACME"]}, True),
        ({"provider": "openai"}, False),
        ({"model": "b?g"}, True),
        ({"model": "small*"}, False),
        ({"tenant": "a"}, True),
        ({"tenant": ["b", "a"], "model": "big"}, True),
        ({"tenant": "b"}, False),
        ({"unlisted": "a"}, False),
        ({"tag": "t1"}, True),
        ({"tag": ["t3", "t2"], "tenant": "a", "provider": "acme"}, True),
        ({"tag": "t3"}, False),
    ],
)
def test_a_scope_covers_provider_model_tags_and_metadata(scope: Any, covered: bool) -> None:
    """Every key has to match; of several values one."""
    budget = Budget(calls=10, scope=scope)
    config: Any = {"callbacks": [Meter(budgets=[budget])], "tags": ["t1", "t2"]}
    Priced().invoke("x", {**config, "metadata": {"tenant": "a"}})  # type: ignore[arg-type]
    assert budget.spent == int(covered)


def test_a_call_outside_the_scope_is_not_refused() -> None:
    """A tenant's exhausted budget does not affect other tenants."""
    budget, meter = blocking(calls=1, scope={"tenant": "a"})
    for _ in range(3):
        Priced().invoke("x", {"callbacks": [meter], "metadata": {"tenant": "b"}})
    Priced().invoke("x", {"callbacks": [meter], "metadata": {"tenant": "a"}})
    with pytest.raises(BudgetExceeded, match="'1 calls for tenant a'"):
        Priced().invoke("x", {"callbacks": [meter], "metadata": {"tenant": "a"}})
    assert budget.spent == 1


def test_a_call_without_a_price_costs_a_dollar_budget_nothing_until_it_is_exhausted() -> None:
    """What has no price cannot be held; an exhausted budget refuses it all the same."""
    budget = Budget(usd="0.12", action="block")
    book = PriceBook({"acme/big": {"input": 1000, "output": 1000}})
    meter = Meter(prices=book, budgets=[budget, Budget(usd="0.11", action="block")])
    Priced(name_of_model="free").invoke("x", {"callbacks": [meter]})
    assert budget.spent == 0
    with pytest.raises(BudgetExceeded):  # 0.117 at worst
        Priced().invoke("x", {"callbacks": [meter]})
    assert budget.reserved == 0


def test_the_worst_case_takes_the_dearest_rate_of_the_bands_it_may_reach() -> None:
    """Cache writes cost more than input, and long prompts more than short ones."""
    own = {
        "input": 10,
        "output": 20,
        "cache_write": 15,
        "bands": [{"above": 50, "input": 30, "output": 5}],
    }
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=PriceBook({"acme/big": own}), budgets=[budget])
    held = []

    class Look(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            held.append(budget.reserved * 10**6)

    for text in ("x", "x" * 84):
        Priced().invoke(text, {"callbacks": [meter, Look()]})
    assert held == [17 * 15 + 100 * 20, 100 * 30 + 100 * 20]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "exactly one of usd, tokens and calls"),
        ({"usd": 1, "calls": 1}, "exactly one of"),
        ({"usd": 0}, "an amount in USD above 0"),
        ({"usd": "much"}, "an amount in USD above 0"),
        ({"usd": float("nan")}, "an amount in USD above 0"),
        ({"usd": 10**9}, "an amount in USD above 0"),
        ({"tokens": 1.5}, "whole number of tokens"),
        ({"calls": True}, "whole number of calls"),
        ({"calls": 1, "per": "week"}, "must be one of total, minute"),
        ({"calls": 1, "action": "stop"}, "must be 'warn' or 'block'"),
        ({"calls": 1, "at": [0]}, "fractions above 0"),
        ({"calls": 1, "at": [1.5]}, "fractions above 0"),
        ({"calls": 1, "at": "half"}, "fractions above 0"),
        ({"calls": 1, "at": [i / 10 for i in range(1, 10)]}, "up to 8 fractions"),
        ({"calls": 1, "scope": {"model": 5}}, "must be a text or several"),
        ({"calls": 1, "scope": {"model": []}}, "must be a text or several"),
    ],
)
def test_what_makes_no_budget_is_refused(wrong: Any, message: str) -> None:
    """With the value and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        Budget(**wrong)


def test_a_budget_belongs_to_one_meter() -> None:
    """Two recorders cannot share one: a clear error, before the first call."""
    budget = Budget(calls=1)
    Meter(budgets=[budget])
    with pytest.raises(ConfigError, match="already belongs to a meter"):
        Meter(budgets=[budget])
    twice = Budget(calls=1)
    with pytest.raises(ConfigError, match=r"budgets\[1\] must be another budget than those before"):
        Meter(budgets=[twice, twice])
    with pytest.raises(ConfigError, match="at most 64"):
        Meter(budgets=[Budget(calls=1) for _ in range(65)])
    with pytest.raises(ConfigError, match="must be Budget objects"):
        Meter(budgets=[5])  # type: ignore[list-item]


def test_budgets_of_all_parts_hold_in_a_composite() -> None:
    """A token limit and a dollar budget over one recorder; foreign handlers see no refused call."""
    starts = []

    class Foreign(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            starts.append(args)

    tokens = TokenCountingCallback(limit=10_000)
    dollar = Budget(usd="0.15", action="block")
    cost = CostTrackingCallback(ACME, budgets=[dollar])
    both = CompositeCallback([tokens, cost, Foreign()])
    Priced().invoke("x", {"callbacks": [both]})
    with pytest.raises(BudgetExceeded, match="USD"):
        Priced().invoke("x", {"callbacks": [both]})
    assert tokens.budget is not None
    assert (tokens.budget.spent, dollar.spent, len(starts)) == (110, Decimal("0.11"), 1)
    assert tokens.budget.reserved == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_holds_nothing_of_its_parents_calls() -> None:
    """The child begins with what was spent; calls in flight end in the parent."""
    budget, meter = blocking(calls=3)
    Priced().invoke("x", {"callbacks": [meter]})
    result: list[str] = []

    class Fork(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            out, into = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(into, f"{budget.spent} {budget.reserved}".encode())
                os._exit(0)
            os.waitpid(child, 0)
            result.append(os.read(out, 100).decode())

    Priced().invoke("x", {"callbacks": [meter, Fork()]})
    assert result == ["1 0"]
    assert (budget.spent, budget.reserved) == (2, 0)


def test_a_price_that_changes_is_held_from_the_next_call_on() -> None:
    """Own prices set later, and those of a service tier, are what a call may cost."""
    book = PriceBook({"acme/*": {"input": 1, "output": 1, "tiers": {"priority": {"output": 2}}}})
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=book, budgets=[budget])
    held = []

    class Look(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            held.append(int(budget.reserved * 10**6))

    config: Any = {"callbacks": [meter, Look()]}
    for _ in range(2):
        Priced().invoke("x", config)
    Priced().bind(service_tier="priority").invoke("x", config)
    book.set("acme", "big", input=3, output=3)
    for _ in range(2):
        Priced().invoke("x", config)
    assert held == [117, 117, 17 + 200, 351, 351]


@pytest.mark.parametrize(
    ("tier", "parameters"),
    [
        ("priority", {"service_tier": "priority"}),
        ("flex", {"serviceTier": {"type": "flex"}}),
        ("fast", {"speed": "fast"}),
        ("inference_geo=us", {"inference_geo": "us"}),
        ("latency=optimized", {"performanceConfig": {"latency": "optimized"}}),
        ("search_context_size=high", {"web_search_options": {"search_context_size": "high"}}),
    ],
)
def test_a_modifier_of_price_that_a_request_names_is_held(
    tier: str, parameters: dict[str, Any]
) -> None:
    """A request for a dearer speed, region, latency or search holds the dearer price."""
    prices = {"acme/*": {"input": 1, "output": 1, "tiers": {tier: {"output": 2}}}}
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=PriceBook(prices), budgets=[budget])
    held = []

    class Look(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            held.append(int(budget.reserved * 10**6))

    Priced().bind(**parameters).invoke("x", {"callbacks": [meter, Look()]})
    assert held[0] >= 17 + 200


def test_a_call_that_is_no_messages_is_bounded_too() -> None:
    """The inputs of a decision model may be anything: their text is what is taken."""
    budget, meter = blocking(tokens=3000)
    assert meter._services.ledger is not None
    demand = meter._services.ledger.demand("acme", "big", {"text": 5}, None, None, None)
    assert demand == (1, len("{'text': 5}"), None, 1, [0, 0, 0, 0])
    foreign = meter._services.ledger.demand("acme", "big", [[5]], None, None, {"max_tokens": 7})
    assert foreign == (1, len("[[5]]"), 7, 1, [0, 0, 0, 0])
    assert budget.reserved == 0


def test_answers_kept_for_models_and_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 4,096 models all answers are forgotten and asked again, and are the same."""
    monkeypatch.setattr(ledger, "_MAX_BATCHES", 1)
    _, meter = blocking(usd=10)
    held = meter._services.ledger
    assert held is not None
    worst = [1_000_000_000, 1_000_000_000, 0, 1_000_000_000]
    for n in (*range(4100), 0):
        asked = held.demand("acme", f"big-{n}", [], None, None, {"max_tokens": 5})
        assert asked == (1, 0, 5, 1, worst)
    assert held.demand("other", "big", [], None, None, None) == (1, 0, None, 1, None)
    for n in range(3):
        held.in_batch(n, 2, {"params": n}, None)
    assert len(held._batches) == 1


def test_a_dollar_budget_needs_prices_and_its_books_open_once() -> None:
    """Without prices it could never be spent; two first calls at once find one set of books."""
    with pytest.raises(ConfigError, match=r"must have prices, got .* pass it to Meter"):
        ledger.Ledger([Budget(usd=1)], None)
    budget, meter = blocking(calls=1)
    assert meter._services.ledger is not None
    meter._services.ledger.open(meter._recorder)
    meter._services.ledger.open(meter._recorder)
    Priced().invoke("x", {"callbacks": [meter]})
    assert budget.spent == 1
