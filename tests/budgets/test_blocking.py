"""Blocking budgets: which calls they refuse, and what a call in flight holds."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from langmeter import Budget, BudgetExceeded, Meter, TokenCountingCallback
from langmeter._core import input_bound
from langmeter.budgets import Ledger
from langmeter.testing import ManualClock
from tests.support.priced import ACME, Priced, blocking


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
