"""Runs to which LangChain names no parent: fallbacks, retries, steps of graphs that start again."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt

from langmeter import Budget, Meter, PerformanceCallback
from tests.support.models import USAGE


class Model(BaseChatModel):
    """Fails so many times, then answers; or waits for ever."""

    failures: int = 0
    waits: bool = False

    @property
    def _llm_type(self) -> str:
        return "model"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": f"fails-{self.failures}"}

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("no")
        message = AIMessage("yes", usage_metadata=USAGE)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        if self.waits:
            await asyncio.Event().wait()
        return self._generate()


PROMPT = ChatPromptTemplate.from_messages([("human", "{text}")])


async def _read(chain: Any, given: Any, config: Any) -> None:
    async for _ in chain.astream(given, config=config):
        pass


HOW: dict[str, Callable[[Any, Any, Any], Any]] = {
    "invoke": lambda chain, given, config: chain.invoke(given, config=config),
    "stream": lambda chain, given, config: list(chain.stream(given, config=config)),
    "batch": lambda chain, given, config: chain.batch([given], config=config),
    "ainvoke": lambda chain, given, config: asyncio.run(chain.ainvoke(given, config=config)),
    "astream": lambda chain, given, config: asyncio.run(_read(chain, given, config)),
}
CHAINS: dict[str, Callable[[], Any]] = {
    "models": lambda: Model(failures=1).with_fallbacks([Model()]),
    "sequences": lambda: (PROMPT | Model(failures=1)).with_fallbacks([PROMPT | Model()]),
    "in a lambda": lambda: RunnableLambda(
        lambda text, config: (
            Model(failures=1)
            .with_fallbacks([Model()])
            .invoke(text, {"callbacks": config["callbacks"]})
        )
    ),
    "retried": lambda: Model(failures=1).with_retry(wait_exponential_jitter=False),
    "sequence retried": lambda: (PROMPT | Model(failures=1)).with_retry(
        wait_exponential_jitter=False
    ),
}


#: Streams are not retried by LangChain.
CASES = [
    (chain, how) for chain in CHAINS for how in HOW if "retried" not in chain or "stream" not in how
]


@pytest.mark.parametrize(("chain", "how"), CASES)
def test_what_takes_the_place_of_a_failed_call_makes_it_good(chain: str, how: str) -> None:
    """Fallbacks and retries are recovered, of models and of sequences with one."""
    given: Any = {"text": "hi"} if "sequence" in chain else "hi"
    for meter in (Meter(), PerformanceCallback()):
        HOW[how](CHAINS[chain](), given, {"callbacks": [meter]})
        totals = meter.snapshot().totals
        assert (totals.outcomes["ok"], totals.outcomes["error"]) == (1, 1)
        assert totals.recovered == 1
        assert totals.retried_calls == ("retried" in chain)


def test_an_attempt_of_a_fallback_is_a_child_of_its_run() -> None:
    """One pipeline, at the top of which is the run with fallbacks."""
    meter = Meter()
    CHAINS["models"]().invoke("hi", config={"callbacks": [meter]})
    assert meter.snapshot().pipeline_runs == 1


def test_what_a_timeout_leaves_behind_is_released() -> None:
    """The attempt in flight, which gets no end, counts as abandoned and holds no budget."""
    meter = Meter(budgets=[Budget(calls=5)])
    chain = Model(failures=1).with_fallbacks([Model(waits=True)])

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(chain.ainvoke("hi", config={"callbacks": [meter]}), 0.05)

    asyncio.run(give_up())
    snapshot = meter.snapshot()
    assert (snapshot.totals.outcomes["abandoned"], snapshot.in_flight) == (1, 0)
    assert meter.cost.budgets[0].reserved == 0


class State(TypedDict):
    """What the graphs here keep."""

    log: Annotated[list[Any], operator.add]


def graph(node: Callable[..., Any], **settings: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("node", node, **settings)
    builder.add_edge(START, "node")
    return builder


RETRY = RetryPolicy(initial_interval=0.001, max_attempts=4, jitter=False)


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
def test_the_attempts_of_a_retry_policy_are_retries(how: str) -> None:
    """What a step does again is retried, and makes good what failed before."""
    model, meter = Model(failures=2), Meter()

    def sync_step(state: State) -> Any:
        return {"log": [model.invoke("hi").content]}

    async def step(state: State, config: RunnableConfig) -> Any:
        return {"log": [(await model.ainvoke("hi", config)).content]}

    compiled = graph(step if how.startswith("a") else sync_step, retry_policy=RETRY).compile()
    HOW[how](compiled, {"log": []}, {"callbacks": [meter]})
    snapshot = meter.snapshot()
    totals = snapshot.totals
    assert (totals.outcomes["error"], totals.outcomes["ok"]) == (2, 1)
    assert (totals.retried_calls, totals.recovered) == (2, 1)


def test_steps_that_run_beside_each_other_are_not_taken_for_retries() -> None:
    """Only the second attempt of the same step of the same run is one."""
    meter = Meter()
    models = [Model(failures=n % 2) for n in range(6)]

    def worker(n: int) -> Any:
        return {"log": [models[n].invoke("hi").content]}

    builder = StateGraph(State)
    builder.add_node("worker", worker, retry_policy=RETRY)  # type: ignore[arg-type]
    builder.add_conditional_edges(START, lambda _: [Send("worker", n) for n in range(6)])
    compiled = builder.compile()
    compiled.invoke({"log": []}, config={"callbacks": [meter], "max_concurrency": 2})
    totals = meter.snapshot().totals
    assert (totals.outcomes["error"], totals.outcomes["ok"]) == (3, 6)
    assert totals.retried_calls == 3


def test_a_step_that_goes_on_after_an_interrupt_is_no_retry() -> None:
    """It starts again under another run of its graph."""
    model, meter = Model(), Meter()

    def ask(state: State) -> Any:
        model.invoke([HumanMessage("hi")])
        return {"log": [interrupt("?")]}

    compiled = graph(ask).compile(checkpointer=InMemorySaver())
    config: Any = {"callbacks": [meter], "configurable": {"thread_id": "1"}}
    compiled.invoke({"log": []}, config)
    compiled.invoke(Command(resume="yes"), config)
    totals = meter.snapshot().totals
    assert (totals.calls, totals.retried_calls, totals.recovered) == (2, 0, 0)
