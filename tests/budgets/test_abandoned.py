"""What dead calls hold is released before a call is refused, and nothing that lives is dead."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from langmeter import Budget, BudgetExceeded, CompositeCallback, CostTrackingCallback, Meter
from langmeter.prices import PriceBook

#: 1 dollar per 1,000 tokens.
ACME = PriceBook({"acme/*": {"input": 1000, "output": 1000}})
USED: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


class Answers(asyncio.Event):
    """What models wait for; counts the calls that came to it."""

    calls = 0

    async def wait(self) -> Any:
        Answers.calls += 1
        return await super().wait()


class Waits(BaseChatModel):
    """A model that answers when it is let."""

    answers: Any = None
    first: str | None = "a"
    fails: bool = False
    name_of_model: str = "big"

    @property
    def _llm_type(self) -> str:
        return "waits"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"max_tokens": 5}

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "acme", "ls_model_name": self.name_of_model}

    def _message(self, kind: Any = AIMessage, text: str = "b") -> Any:
        told = {"model_name": self.name_of_model}
        return kind(text, usage_metadata=USED, response_metadata=told)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message())])

    async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        if self.fails:
            raise RuntimeError("no answer")
        if self.answers is not None:
            await self.answers.wait()
        return self._generate(messages)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        if self.first is not None:
            yield ChatGenerationChunk(message=AIMessageChunk(content=self.first))
        if self.answers is not None:
            await self.answers.wait()
        yield ChatGenerationChunk(message=self._message(AIMessageChunk))


def holding(calls: int) -> tuple[Budget, Meter]:
    """A budget with room for so many calls."""
    budget = Budget(calls=calls, action="block")
    return budget, Meter(budgets=[budget])


async def timed_out(runnable: Any, meter: Any, **more: Any) -> None:
    """A call that its caller gives up while the model is at it."""
    calls = Answers.calls
    call = asyncio.create_task(runnable.ainvoke("x", {"callbacks": [meter], **more}))
    # Not until a budget holds something: a fallback's first call does, too, and may end in between.
    while Answers.calls == calls and not call.done():
        await asyncio.sleep(0.001)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, 0.001)


@pytest.mark.parametrize(
    ("limit", "spent"),
    [
        ({"calls": 50}, 1),
        ({"tokens": 50 * 22}, 50 * 5 + 15),
        ({"usd": Decimal(50 * 22) / 1000}, Decimal(50 * 5 + 15) / 1000),
    ],
)
@pytest.mark.parametrize("handler", ["meter", "cost", "composite"])
async def test_calls_that_timed_out_give_way_to_the_next(
    limit: Any, spent: Any, handler: str
) -> None:
    """The 51st call goes through; the 50 are abandoned then: no call, and their input in tokens."""
    budget = Budget(**limit, action="block")
    meter: Any = CostTrackingCallback(ACME, budgets=[budget])
    given_up = meter
    if handler == "meter":
        budget = Budget(**limit, action="block")
        meter = Meter(prices=ACME, budgets=[budget])
        given_up = meter
    elif handler == "composite":
        meter = CompositeCallback([meter])
    for _ in range(50):
        await timed_out(Waits(answers=Answers()), given_up)
    assert budget.remaining == 0
    await Waits().ainvoke("x", {"callbacks": [meter]})
    assert (budget.spent, budget.reserved) == (spent, 0)
    snapshot = meter.snapshot()
    assert snapshot.totals.outcomes["abandoned"] == 50
    assert snapshot.in_flight == 0
    assert "hook_errors" not in snapshot.dropped


async def test_calls_given_up_in_one_task_give_way_too() -> None:
    """`asyncio.timeout`, and `wait_for` from Python 3.12 on, cancel the call within its task."""
    budget, meter = holding(5)
    for _ in range(5):
        try:
            async with asyncio.timeout(0.001):
                await Waits(answers=Answers()).ainvoke("x", {"callbacks": [meter]})
        except TimeoutError:
            pass
    assert budget.remaining == 0
    await Waits().ainvoke("x", {"callbacks": [meter]})
    assert budget.spent == 1
    assert budget.reserved <= 1  # of the last one Python may still hold a traceback


@pytest.mark.parametrize("around", ["lambda", "graph", "retry", "fallback", "generate"])
async def test_they_give_way_wherever_they_were_made(around: str) -> None:
    """In a chain, a node, a retry, a fallback, one of several prompts."""
    budget, meter = holding(3)
    answers = Answers()
    model: Any = Waits(answers=answers)
    if around == "lambda":
        model = RunnableLambda(str) | RunnableLambda(model.ainvoke)
    elif around == "graph":
        slow = model

        async def node(state: MessagesState) -> Any:
            return {"messages": [await slow.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState).add_node("model", node)
        compiled = graph.add_edge(START, "model").add_edge("model", END).compile()
        model = RunnableLambda(lambda text: {"messages": [("user", text)]}) | compiled  # type: ignore[operator]
    elif around == "retry":
        model = Waits(answers=answers).with_retry(stop_after_attempt=2)
    elif around == "fallback":
        model = Waits(fails=True).with_fallbacks([model])
    elif around == "generate":
        slow = model

        async def generate(text: str, config: Any) -> Any:
            return await slow.agenerate([[HumanMessage(text)]], callbacks=config["callbacks"])

        model = RunnableLambda(generate)
    for _ in range(3):
        await timed_out(model, meter)
    for _ in range(3):
        await Waits().ainvoke("x", {"callbacks": [meter]})
    assert budget.reserved == 0
    assert meter.snapshot().totals.outcomes["abandoned"] >= 3


async def test_calls_in_flight_are_not_dead() -> None:
    """Twenty calls wait in tasks of their own; the 21st is refused, and they all end well."""
    budget, meter = holding(20)
    answers = Answers()
    model = Waits(answers=answers)
    config: Any = {"callbacks": [meter]}
    calls = [asyncio.create_task(model.ainvoke("x", config)) for _ in range(20)]
    while budget.remaining:
        await asyncio.sleep(0)
    gc.collect()
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            await Waits().ainvoke("x", config)
    answers.set()
    await asyncio.gather(*calls)
    outcomes = meter.snapshot().totals.outcomes
    assert (outcomes["ok"], outcomes["abandoned"], budget.spent) == (20, 0, 20)


@pytest.mark.parametrize("first", ["a", ""])
async def test_a_stream_whose_first_task_is_done_is_not_dead(first: str) -> None:
    """Python 3.11 runs each step of `wait_for(anext(…))` in a task of its own, an empty one too."""
    budget, meter = holding(1)
    answers = Answers()
    stream = Waits(answers=answers, first=first).astream("x", {"callbacks": [meter]})
    await asyncio.create_task(stream.__anext__())  # type: ignore[arg-type]
    with pytest.raises(BudgetExceeded):
        await Waits().ainvoke("x", {"callbacks": [meter]})
    answers.set()
    async for _ in stream:
        pass
    outcomes = meter.snapshot().totals.outcomes
    assert (outcomes["ok"], outcomes["abandoned"], budget.spent) == (1, 0, 1)


@pytest.mark.filterwarnings("ignore:.*in beta")
async def test_a_v3_stream_that_its_first_reader_gave_up_is_not_dead() -> None:
    """Its run began in the reader's task and is produced in another: no event has come yet."""
    budget, meter = holding(1)
    answers = Answers()
    model = Waits(answers=answers, first=None)
    stream: Any = await model.astream_events("x", {"callbacks": [meter]}, version="v3")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(aiter(stream.text)), 0.01)
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            await Waits().ainvoke("x", {"callbacks": [meter]})
    answers.set()
    assert await stream.text == "b"
    while meter.snapshot().in_flight:
        await asyncio.sleep(0)
    outcomes = meter.snapshot().totals.outcomes
    assert (outcomes["ok"], outcomes["abandoned"], budget.spent) == (1, 0, 1)


async def test_a_run_id_of_the_users_own_is_judged_by_its_task() -> None:
    """The caller still has it: what counts is that nothing can end the run any more."""
    budget, meter = holding(1)
    mine = uuid4()
    await timed_out(Waits(answers=Answers()), meter, run_id=mine)
    await Waits().ainvoke("x", {"callbacks": [meter]})
    assert (budget.spent, budget.reserved) == (1, 0)
    # The same id again, in a thread without a loop: what is known of its first run is forgotten.
    budget.reset()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(Waits().invoke, "x", {"callbacks": [meter], "run_id": mine}).result()
    assert meter.snapshot().totals.outcomes["ok"] == 2


def test_without_a_running_loop_nothing_is_judged() -> None:
    """A synchronous call does not look; the next one in a loop does, after that loop is closed."""
    budget, meter = holding(1)
    asyncio.run(timed_out(Waits(answers=Answers()), meter))
    with pytest.raises(BudgetExceeded):
        Waits().invoke("x", {"callbacks": [meter]})
    asyncio.run(Waits().ainvoke("x", {"callbacks": [meter]}))
    assert (budget.spent, budget.reserved) == (1, 0)


async def test_what_is_known_of_tasks_is_bounded() -> None:
    """Calls that have ended are forgotten when there are too many of them."""
    budget, meter = holding(10)
    ledger = meter._services.ledger
    assert ledger is not None
    origins = ledger.origins
    for n in range(5000):
        origins[n] = ()  # type: ignore[assignment]
    await Waits().ainvoke("x", {"callbacks": [meter]})
    assert len(origins) == 1
    assert budget.reserved == 0
