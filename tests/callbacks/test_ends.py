"""How a run ends: every way that LangChain and LangGraph have."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from langmeter import Meter, PerformanceCallback, TokenCountingCallback, _core
from langmeter._base.failures import outcome_of
from langmeter.testing import ManualClock
from tests.support.models import USAGE, chat_model
from tests.support.versions import needs_stream_events

KEY = ("genericfakechatmodel", "fake-1")


class Broken(FakeListChatModel):
    """A chat model that fails, or waits for ever, on demand."""

    responses: list[str] = ["abc"]  # noqa: RUF012
    failures: int = 1

    def _call(self, *args: Any, **kwargs: Any) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise ValueError("no answer")
        return super()._call(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.Event().wait()

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in FakeListChatModel(responses=["abc"])._stream([]):
            yield chunk
            await asyncio.Event().wait()


class Sometimes(LLM):
    """A text model that fails on the first prompt."""

    @property
    def _llm_type(self) -> str:
        return "text"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        if prompt == "a":
            raise ValueError(prompt)
        return prompt


def outcomes(meter: Meter) -> dict[str, int]:
    """The outcomes of model calls that are not 0."""
    return {name: n for name, n in meter.snapshot().totals.outcomes.items() if n}


def test_invoke_and_stream_end_once() -> None:
    """Both are ok, with usage from the invoke and a first token from the stream."""
    meter = Meter()
    chat_model().invoke("hi", config={"callbacks": [meter]})
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    assert outcomes(meter) == {"ok": 2}
    assert meter.snapshot().totals.streamed == 1
    assert meter.snapshot().in_flight == 0


async def test_ainvoke_and_astream_end_once() -> None:
    """The same for their async twins; the fake model leaves the usage out of its stream."""
    meter = Meter()
    await chat_model().ainvoke("hi", config={"callbacks": [meter]})
    async for _ in chat_model().astream("hi", config={"callbacks": [meter]}):
        pass
    assert outcomes(meter) == {"ok": 2}
    assert meter.snapshot().totals.streamed == 1
    tokens = meter.snapshot().totals.tokens
    assert tokens.total - tokens.estimated == 140


def test_leaving_a_stream_is_cancelled() -> None:
    """`break` closes the generator: the call is cancelled, what had come is counted."""
    meter = Meter()
    stream = chat_model().stream("hi", config={"callbacks": [meter]})
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert outcomes(meter) == {"cancelled": 1}
    assert meter.snapshot().totals.token_events == 1


async def test_a_cancelled_astream_is_cancelled() -> None:
    """The task's CancelledError arrives with the partial answer."""
    meter = Meter()
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in Broken().astream("hi", config={"callbacks": [meter]}):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(meter) == {"cancelled": 1}


async def test_a_cancelled_ainvoke_is_abandoned_with_its_ancestor() -> None:
    """No hook fires for the model call itself; the end of the chain around it tells."""
    meter = Meter()
    chain = RunnableLambda(lambda x: x) | Broken()
    task = asyncio.create_task(chain.ainvoke("hi", config={"callbacks": [meter]}))
    while not meter.snapshot().in_flight:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    snapshot = meter.snapshot()
    assert outcomes(meter) == {"abandoned": 1}
    assert snapshot.in_flight == 0
    assert snapshot.components["chain", "RunnableSequence"].outcomes["cancelled"] == 1
    assert snapshot.dropped == {"runs_orphaned": 1}


async def test_a_bare_cancelled_ainvoke_is_abandoned_by_age() -> None:
    """Without an ancestor that ends, a run is abandoned once it is older than `max_run_age`."""
    clock = ManualClock()
    meter = Meter(max_run_age=0.5, clock=clock)
    for _ in range(20):
        task = asyncio.create_task(Broken().ainvoke("hi", config={"callbacks": [meter]}))
        before = meter.snapshot().in_flight
        while meter.snapshot().in_flight == before:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert meter.performance.in_flight == 20
    clock.advance(1.0)
    assert outcomes(meter) == {"abandoned": 20}
    assert meter.snapshot().in_flight == 0


@needs_stream_events
def test_an_abandoned_v3_stream_is_abandoned_by_age() -> None:
    """Nothing fires when a v3 stream is dropped half way."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    stream = FakeListChatModel(responses=["abc"]).stream_events(
        "hi", config={"callbacks": [meter]}, version="v3"
    )
    next(iter(stream))
    assert meter.snapshot().in_flight == 1
    clock.advance(3601.0)
    assert outcomes(meter) == {"abandoned": 1}
    del stream


def test_of_a_batch_of_prompts_each_ends_or_is_abandoned() -> None:
    """`generate([a, b])` where a fails: an error, and one run without an end event."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    with pytest.raises(ValueError, match="a"):
        Sometimes().generate(["a", "b"], callbacks=[meter])  # type: ignore[arg-type]
    clock.advance(3601.0)
    snapshot = meter.snapshot()
    assert snapshot.totals.errors >= 1
    assert snapshot.totals.calls == 2
    assert snapshot.in_flight == 0


def test_a_start_hook_that_raises_leaves_the_run_open() -> None:
    """Another handler stops the call after our start: abandoned by age."""

    class Stops(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            raise PermissionError("not today")

    clock = ManualClock()
    meter = Meter(clock=clock)
    with pytest.raises(PermissionError):
        chat_model().invoke("hi", config={"callbacks": [meter, Stops()]})
    assert meter.snapshot().in_flight == 1
    clock.advance(3601.0)
    assert outcomes(meter) == {"abandoned": 1}


def test_every_attempt_of_a_retry_is_a_call() -> None:
    """Two errors and an ok."""
    meter = Meter()
    model = Broken(failures=2).with_retry(wait_exponential_jitter=False)
    assert model.invoke("hi", config={"callbacks": [meter]}).content == "abc"
    assert outcomes(meter) == {"ok": 1, "error": 2}


def test_a_fallback_is_a_call_of_its_own() -> None:
    """An error of the first model, an ok of the second."""
    meter = Meter()
    model = Broken().with_fallbacks([chat_model()])
    model.invoke("hi", config={"callbacks": [meter]})
    assert outcomes(meter) == {"ok": 1, "error": 1}
    assert meter.snapshot().models[KEY].outcomes["ok"] == 1


def test_a_cache_hit_is_not_spend() -> None:
    """Its tokens are saved, and are in no latency."""
    meter = Meter()
    model = chat_model(cache=InMemoryCache())
    for _ in range(3):
        model.invoke("hi", config={"callbacks": [meter]})
    stats = meter.snapshot().models[KEY]
    assert outcomes(meter) == {"ok": 1, "cache_hit": 2}
    assert (stats.tokens.total, stats.tokens.saved, stats.latency.count) == (140, 280, 1)


def test_a_handled_tool_error_is_an_error_of_the_tool() -> None:
    """The tool ends with a message that says so, and no exception."""

    @tool
    def fails(x: int) -> int:
        """Never works."""
        raise ToolException("cannot")

    fails.handle_tool_error = True
    meter = Meter()
    call = {"name": "fails", "args": {"x": 1}, "id": "1", "type": "tool_call"}
    message = fails.invoke(call, config={"callbacks": [meter]})
    assert message.status == "error"
    assert meter.snapshot().components["tool", "fails"].outcomes["error"] == 1


class State(TypedDict):
    """State of the graph below."""

    answer: str


def test_an_interrupt_is_control_flow() -> None:
    """The node is interrupted, the graph ok, and nothing is an error."""

    def ask(state: State) -> State:
        return {"answer": interrupt("well?")}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    meter = Meter()
    config: Any = {"callbacks": [meter], "configurable": {"thread_id": "1"}}
    graph.compile(checkpointer=InMemorySaver()).invoke({"answer": ""}, config)
    components = meter.snapshot().components
    assert components["node", "ask"].outcomes["interrupted"] == 1
    assert components["chain", "LangGraph"].outcomes["ok"] == 1
    assert sum(stats.errors for stats in components.values()) == 0


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError(), "error"),
        (TimeoutError(), "error"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (type("GraphInterrupt", (type("GraphBubbleUp", (Exception,), {}),), {})(), "interrupted"),
    ],
)
def test_outcomes_of_exceptions(error: BaseException, name: str) -> None:
    """By the names of the classes that the exception is of."""
    assert _core.OUTCOMES[outcome_of(error)] == name


class ClassifierResponse:
    """The relevant fields of what a decision model of langchain-core 1.8 returns."""

    def __init__(self) -> None:
        self.model = "judge-1"
        self.usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}


@pytest.mark.parametrize("cls", [TokenCountingCallback, PerformanceCallback])
def test_a_decision_model_is_a_model_call(cls: Any) -> None:
    """It arrives as a chain of run_type llm; one that returns its answer is not counted twice."""
    handler = cls()
    chain, judge = uuid.uuid4(), uuid.uuid4()
    metadata = {"ls_provider": "judges", "ls_model_name": "judge"}
    handler.on_chain_start(None, {}, run_id=chain, name="outer")
    for run, end in ((judge, "end"), (uuid.uuid4(), "error")):
        handler.on_chain_start(
            None, {}, run_id=run, parent_run_id=chain, metadata=metadata, run_type="llm", name="J"
        )
        if end == "end":
            handler.on_chain_end(ClassifierResponse(), run_id=run)
        else:
            handler.on_chain_error(ValueError(), run_id=run)
    handler.on_chain_end(ClassifierResponse(), run_id=chain)
    snapshot = handler.snapshot()
    assert snapshot.models["judges", "judge-1"].tokens.total == 9
    assert snapshot.totals.calls == 2
    assert snapshot.totals.errors == 1
    assert snapshot.components["llm", "J"].calls == 2
    assert not snapshot.dropped


def test_an_end_without_a_start_is_tolerated() -> None:
    """LangChain may drop a start; the tokens are counted all the same."""
    meter = Meter()
    response = chat_model().generate([[HumanMessage("hi")]])
    meter.on_llm_end(response, run_id=uuid.uuid4())
    snapshot = meter.snapshot()
    assert snapshot.totals.tokens.total == 140
    assert snapshot.dropped == {"end_without_start": 1}


def test_figures_that_are_none_are_refused_and_counted() -> None:
    """A string where a number belongs is not guessed at."""
    meter = Meter()
    message = AIMessage("x", response_metadata={"model_name": "fake-1"})
    message.usage_metadata = {**USAGE, "input_tokens": "many"}  # type: ignore[assignment]
    response = chat_model().generate([[HumanMessage("hi")]])
    response.generations[0][0].message = message  # type: ignore[union-attr]
    run = uuid.uuid4()
    meter.on_chat_model_start({}, [[]], run_id=run)
    meter.on_llm_end(response, run_id=run)
    assert meter.snapshot().dropped.get("usage_refused", 0) >= 1
    assert meter.snapshot().totals.outcomes["ok"] == 1


def test_names_of_runs() -> None:
    """The user's name, else the serialized one, else the class, else the kind."""
    performance = PerformanceCallback()
    row: tuple[Any, Any]
    for row in (
        ("mine", {"name": "x"}),
        (None, {"name": "x", "id": ["a", "b"]}),
        (None, {"id": ["a", "b"]}),
        (None, {"id": []}),
        (None, None),
        (7, None),
    ):
        name, serialized = row
        run = uuid.uuid4()
        performance.on_chat_model_start(serialized, [[]], run_id=run, name=name)  # type: ignore[arg-type]
        performance.on_llm_error(ValueError(), run_id=run)
    calls = {name: stats.calls for (_, name), stats in performance.snapshot().components.items()}
    assert calls == {"mine": 1, "x": 1, "b": 1, "llm": 2, "7": 1}


def test_sync_stream_of_chunks_is_one_call() -> None:
    """A stream read through a chain is counted once, by the model alone."""
    meter = Meter()

    def shout(chunks: Iterator[Any]) -> Iterator[str]:
        for chunk in chunks:
            yield chunk.content.upper()

    chain = chat_model() | shout
    text = "".join(itertools.chain(chain.stream("hi", config={"callbacks": [meter]})))
    assert text == "ALPHA BETA GAMMA"
    assert outcomes(meter) == {"ok": 1}
