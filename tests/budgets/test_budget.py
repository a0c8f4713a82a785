"""Budgets: what they cover, when they refuse, and that no reservation is permanent."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from queue import SimpleQueue
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    TokenCountingCallback,
)
from langmeter._base.delivery import notices
from langmeter._core import input_bound
from langmeter.budgets import Ledger, Threshold, ledger
from langmeter.errors import ConfigError
from langmeter.prices import PriceBook
from langmeter.testing import ManualClock
from tests.support.models import chat_model

#: What a call of `chat_model()` uses: 140 tokens; at `prices` 570 millionths of a dollar.
TOKENS, COST = 140, Decimal("0.00057")


class Priced(FakeListChatModel):
    """A model that says which it is, asks for at most 100 tokens, and gives exactly those."""

    responses: list[str] = ["ok"]  # noqa: RUF012
    name_of_model: str = "big"
    fails: bool = False

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "acme", "ls_model_name": self.name_of_model}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"max_tokens": 100}

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        if self.fails:
            raise RuntimeError("no answer")
        usage: Any = {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110}
        told = {"model_name": self.name_of_model}
        message = AIMessage("ok", usage_metadata=usage, response_metadata=told)
        return ChatResult(generations=[ChatGeneration(message=message)])


#: 1 dollar per 1,000 tokens in and out.
ACME = PriceBook({"acme/*": {"input": 1000, "output": 1000}})


def blocking(**limit: Any) -> tuple[Budget, Meter]:
    """A budget that blocks, and the meter it belongs to."""
    budget = Budget(**limit, action="block")
    return budget, Meter(prices=ACME, budgets=[budget])


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


def test_a_blocking_budget_refuses_the_call_that_does_not_fit() -> None:
    """The third call, at 100 tokens out and a few in, does not fit 250 tokens: it is not made."""
    budget, meter = blocking(tokens=250)
    model = Priced()
    for _ in range(2):
        model.invoke("x", config={"callbacks": [meter]})
    with pytest.raises(BudgetExceeded, match=r"220 spent of 250 tokens; set max_tokens") as caught:
        model.invoke("x", config={"callbacks": [meter]})
    exc = caught.value
    assert (exc.limit, exc.spent, exc.reserved, exc.resets_at) == (250, 220, 0, None)
    assert (exc.unit, exc.budget, dict(exc.scope)) == ("tokens", "250 tokens", {})
    snapshot = meter.snapshot()
    assert (snapshot.in_flight, snapshot.totals.calls) == (0, 2)
    assert snapshot.dropped == {"budget_refused": 1}
    assert (budget.spent, budget.reserved, budget.remaining) == (220, 0, 30)
    copy = pickle.loads(pickle.dumps(exc))
    assert (str(copy), copy.limit) == (str(exc), 250)


async def test_it_blocks_in_async_batch_stream_and_graphs() -> None:
    """Wherever a call begins, it is refused, and nothing stays in flight or held."""
    budget, meter = blocking(calls=1)
    model = Priced()
    config: Any = {"callbacks": [meter]}
    model.invoke("x", config)

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("model", node)
    compiled = graph.add_edge(START, "model").add_edge("model", END).compile()
    with pytest.raises(BudgetExceeded):
        await model.ainvoke("x", config)
    with pytest.raises(BudgetExceeded):
        list(model.stream("x", config))
    with pytest.raises(BudgetExceeded):
        [chunk async for chunk in model.astream("x", config)]
    with pytest.raises(BudgetExceeded):
        compiled.invoke({"messages": [("user", "x")]}, config)  # type: ignore[call-overload]
    with pytest.raises(BudgetExceeded):
        await compiled.ainvoke({"messages": [("user", "x")]}, config)  # type: ignore[call-overload]
    chain = RunnableLambda(str) | RunnableLambda(model.invoke)
    results = chain.batch(["a", "b", "c"], config, return_exceptions=True)
    assert [type(result) for result in results] == [BudgetExceeded] * 3
    results = await chain.abatch(["a", "b"], config, return_exceptions=True)
    assert [type(result) for result in results] == [BudgetExceeded] * 2
    assert (budget.spent, budget.reserved, meter.snapshot().in_flight) == (1, 0, 0)


def test_a_batch_that_is_refused_in_the_middle_holds_nothing() -> None:
    """`generate` starts its prompts one by one; those begun before the refused one are given up."""
    budget, meter = blocking(calls=2)
    with pytest.raises(BudgetExceeded):
        Priced().generate([[HumanMessage(text)] for text in "abc"], callbacks=[meter])
    assert (budget.spent, budget.reserved, meter.snapshot().in_flight) == (2, 0, 0)
    assert meter.snapshot().totals.outcomes["cancelled"] == 2


def test_a_batch_that_fits_is_settled() -> None:
    """Each prompt of a `generate` is a call of its own."""
    budget, meter = blocking(calls=3)
    Priced().generate([[HumanMessage(text)] for text in "abc"], callbacks=[meter])
    assert (budget.spent, budget.reserved) == (3, 0)


def test_sixty_four_threads_never_spend_more_than_a_dollar() -> None:
    """Each call costs 0.11 USD and at worst 0.117: 9 fit, whoever comes first."""
    budget, meter = blocking(usd=1)
    model = Priced()
    most = []

    def call(_: int) -> bool:
        try:
            model.invoke("x", config={"callbacks": [meter]})
        except BudgetExceeded:
            return False
        finally:
            most.append(budget.spent)
        return True

    with ThreadPoolExecutor(64) as pool:
        made = sum(pool.map(call, range(640)))
    assert budget.spent == meter.cost.total_cost == Decimal("0.11") * made
    assert max(most) <= 1
    assert (made, budget.reserved) == (9, 0)
    assert meter.snapshot().dropped == {"budget_refused": 631}


def test_a_call_in_flight_holds_its_worst_case() -> None:
    """One byte and what a chat adds at 1 token each, and max_tokens, at the model's price."""
    budget, meter = blocking(usd=1)
    held = []

    class Look(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            held.append(budget.reserved)

    Priced().invoke("x", config={"callbacks": [meter, Look()]})
    assert held == [(input_bound([[HumanMessage("x")]]) + 100) * Decimal("0.001")]
    assert (budget.spent, budget.reserved) == (Decimal("0.11"), 0)


def test_failed_cancelled_and_cached_calls_give_back_what_they_held() -> None:
    """An error costs nothing, an answer from LangChain's cache costs nothing."""
    budget, meter = blocking(tokens=130)
    config: Any = {"callbacks": [meter]}
    failing = Priced(fails=True)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            failing.invoke("x", config)
    assert (budget.spent, budget.reserved) == (0, 0)
    cached = Priced(cache=InMemoryCache())
    cached.invoke("x", {"callbacks": []})
    cached.invoke("x", config)
    assert meter.snapshot().totals.outcomes["cache_hit"] == 1
    assert (budget.spent, budget.reserved) == (0, 0)


def test_an_abandoned_call_gives_back_what_it_held() -> None:
    """A cancelled `ainvoke` gets no end event: its age ends it when another call needs the room."""
    clock = ManualClock()
    budget = Budget(calls=1, action="block")
    meter = Meter(budgets=[budget], clock=clock, max_run_age=60.0)

    class Slow(Priced):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            await asyncio.sleep(60)
            raise AssertionError

    async def cancelled() -> None:
        task = asyncio.create_task(Slow().ainvoke("x", {"callbacks": [meter]}))
        while not budget.reserved:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert budget.remaining == 0
    with pytest.raises(BudgetExceeded):
        Priced().invoke("x", {"callbacks": [meter]})
    clock.advance(61)
    Priced().invoke("x", {"callbacks": [meter]})
    assert (budget.spent, budget.reserved) == (1, 0)


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


def test_a_token_limit_blocks() -> None:
    """`TokenCountingCallback(limit=…)` is a blocking budget in tokens; without one, nothing is."""
    tokens = TokenCountingCallback(limit=150)
    assert tokens.budget is not None
    Priced().invoke("x", {"callbacks": [tokens]})
    with pytest.raises(BudgetExceeded):
        Priced().invoke("x", {"callbacks": [tokens]})
    assert tokens.budget.spent == tokens.total_tokens == 110
    assert TokenCountingCallback().budget is None


def test_with_fallbacks_goes_to_a_model_with_a_budget_of_its_own() -> None:
    """The refused call fails like any other, so the next model has its turn."""
    big = Budget(calls=1, scope={"model": "big"}, action="block")
    small = Budget(calls=5, scope={"model": "small"}, action="block")
    meter = Meter(budgets=[big, small])
    chain = Priced().with_fallbacks([Priced(name_of_model="small")])
    answers = [chain.invoke("x", {"callbacks": [meter]}) for _ in range(3)]
    assert [a.response_metadata["model_name"] for a in answers] == ["big", "small", "small"]
    assert (big.spent, small.spent) == (1, 2)


def test_with_retry_does_not_try_again_when_told_what_to_retry() -> None:
    """`retry_if_exception_type` names what is worth a second try; a refusal is not."""
    _, meter = blocking(calls=1)
    model = Priced().with_retry(retry_if_exception_type=(ConnectionError,), stop_after_attempt=3)
    model.invoke("x", {"callbacks": [meter]})
    with pytest.raises(BudgetExceeded):
        model.invoke("x", {"callbacks": [meter]})
    assert meter.snapshot().dropped == {"budget_refused": 1}


def test_only_budget_exceeded_passes_the_hooks(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that may raise still swallows and counts every failure of its own."""
    budget, meter = blocking(calls=5)
    assert meter.raise_error
    ledger: Any = meter._services.ledger
    ledger._plans = None
    Priced().invoke("x", {"callbacks": [meter]})
    assert meter.snapshot().dropped["hook_errors"] == 1
    assert "on_llm_start failed" in caplog.text
    assert budget.reserved == 0


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


@pytest.mark.parametrize("answered", ["sync", "async", "batch"])
def test_retries_and_fallbacks_beside_a_budget(answered: str) -> None:
    """What failed is tried again, what a budget refused is not, and the next model answers."""
    big = Budget(tokens=250, scope={"model": "big"}, action="block")
    meter = Meter(prices=ACME, budgets=[big])
    failing = Priced(fails=True).with_retry(
        retry_if_exception_type=(RuntimeError,), stop_after_attempt=2, wait_exponential_jitter=False
    )
    chain = failing.with_fallbacks([Priced(), Priced(name_of_model="small")])
    config: Any = {"callbacks": [meter]}
    if answered == "batch":
        # The fake model's own batch knows no `return_exceptions`, which fallbacks ask for.
        each = RunnableLambda(chain.invoke)
        config["max_concurrency"] = 1
        answers = each.batch(["x"] * 3, config)
    elif answered == "async":
        answers = [asyncio.run(chain.ainvoke("x", config)) for _ in range(3)]
    else:
        answers = [chain.invoke("x", config) for _ in range(3)]
    assert [a.response_metadata["model_name"] for a in answers] == ["big", "big", "small"]
    assert (big.spent, big.reserved) == (220, 0)
    outcomes = meter.snapshot().totals.outcomes
    # Two attempts of each of the first two; the third has no room for even one of either model.
    assert (outcomes["ok"], outcomes["error"]) == (3, 4)
    assert meter.snapshot().dropped == {"budget_refused": 2}


def test_no_first_call_passes_budgets_that_are_not_open_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two threads that make a meter's first calls together, one call fits and one is refused."""
    both, opened = threading.Barrier(2), Ledger.open

    def slowly(ledger: Ledger, *settings: Any) -> None:
        both.wait(20)
        opened(ledger, *settings)

    monkeypatch.setattr(Ledger, "open", slowly)
    _, meter = blocking(calls=1)
    refused: list[BudgetExceeded] = []

    def call() -> None:
        try:
            Priced().invoke("x", {"callbacks": [meter]})
        except BudgetExceeded as exc:
            refused.append(exc)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert "hook_errors" not in meter.snapshot().dropped


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
