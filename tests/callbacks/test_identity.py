"""Which run an event is of: events delivered twice, ids of every kind, runs that share an id."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from pydantic import ValidationError

from langmeter import (
    Budget,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    PerformanceCallback,
    StreamingCallback,
    TokenCountingCallback,
)
from tests.support.models import USAGE
from tests.support.versions import needs_stream_events


class Words(BaseChatModel):
    """Answers in three words, and may wait for others in the middle."""

    name_of_model: str = "gpt-4o-mini"
    usage: Any = USAGE
    barrier: threading.Barrier | None = None
    fails: bool = False
    gate: Any = None

    @property
    def _llm_type(self) -> str:
        return "words"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": self.name_of_model}

    def _generate(
        self,
        messages: Any,
        stop: Any = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.barrier is not None:
            self.barrier.wait(10)
        if self.fails:
            raise ConnectionError("no")
        meta = {"model_name": self.name_of_model}
        answer = AIMessage("one two three", usage_metadata=self.usage, response_metadata=meta)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        if self.gate is not None:
            await self.gate()
        return self._generate(*args[:1])

    def _stream(
        self,
        messages: Any,
        stop: Any = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for word in ("one ", "two ", "three"):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager is not None:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        meta = {"model_name": self.name_of_model}
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=self.usage, response_metadata=meta)
        )


class Text(LLM):
    """A text-completion model."""

    @property
    def _llm_type(self) -> str:
        return "text"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return "four five"


class Documents(BaseRetriever):
    """Finds nothing."""

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Any]:
        return []


@tool
def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


def twice(handler: Any) -> RunnableConfig:
    """A config that LangChain takes to mean: call it twice for each event."""
    return RunnableConfig(callbacks=[handler, handler])


async def _astream(model: Any, handler: Any) -> None:
    async for _ in model.astream("hi", config=twice(handler)):
        pass


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "invoke": lambda model, h: model.invoke("hi", config=twice(h)),
    "bound": lambda model, h: model.with_config(callbacks=[h]).invoke(
        "hi", config={"callbacks": [h]}
    ),
    "ainvoke": lambda model, h: asyncio.run(model.ainvoke("hi", config=twice(h))),
    "stream": lambda model, h: list(model.stream("hi", config=twice(h))),
    "astream": lambda model, h: asyncio.run(_astream(model, h)),
    "v3": lambda model, h: list(model.stream_events("hi", config=twice(h), version="v3")),
    "three times": lambda model, h: list(model.stream("hi", config={"callbacks": [h, h, h]})),
    "batch": lambda model, h: model.batch(["hi"], config=twice(h)),
    "generate": lambda model, h: model.generate([[HumanMessage("hi")]], callbacks=[h, h]),
}


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=needs_stream_events) if way == "v3" else way for way in WAYS],
)
def test_a_handler_that_is_called_twice_counts_as_one_that_is_called_once(way: str) -> None:
    """Calls, tokens, token events and what listeners hear are those of one delivery."""
    heard: list[str] = []
    results: list[Any] = []
    meter = Meter(on_token_callback=heard.append, on_complete=results.append, prices=None)
    WAYS[way](Words(), meter)
    totals = meter.snapshot().totals
    streams = way in ("stream", "astream", "v3", "three times")
    assert (totals.calls, totals.tokens.total, totals.in_flight) == (1, USAGE["total_tokens"], 0)
    assert totals.token_events == (3 if streams else 0)
    if streams:
        assert "".join(heard) == results[0].text == "one two three"
        assert len(results) == 1
        (model,) = meter.snapshot().models.values()
        assert model.inter_token_latency.count == 2


def test_each_handler_of_its_own_counts_a_double_delivery_once() -> None:
    """The single handlers and a composite of them do as a meter does."""
    parts = [TokenCountingCallback(), StreamingCallback(collect=True), PerformanceCallback()]
    both = CompositeCallback([CostTrackingCallback(), StreamingCallback()])
    for handler in (*parts, both):
        list(Words().stream("hi", config=twice(handler)))
        totals = handler.snapshot().totals
        assert (totals.calls, totals.token_events) == (1, 3)


def test_a_failure_that_is_delivered_twice_is_told_once() -> None:
    """A second error event of a call changes nothing."""
    failures: list[Any] = []
    meter = Meter(on_error=failures.append)
    with pytest.raises(ConnectionError):
        Words(fails=True).invoke("hi", config=twice(meter))
    snapshot = meter.snapshot()
    assert (snapshot.totals.outcomes["error"], len(failures)) == (1, 1)
    assert list(snapshot.failures.values()) == [1]


def test_calls_without_usage_are_estimated_once() -> None:
    """The estimate of an event delivered twice is that of one."""
    once, both = Meter(), Meter()
    for model in (Words(usage=None), Text()):
        model.invoke("hi", config={"callbacks": [once]})
        model.invoke("hi", config=twice(both))
    assert once.snapshot().totals.tokens == both.snapshot().totals.tokens
    assert both.snapshot().totals.calls == 2


def test_chains_tools_and_retrievers_count_a_double_delivery_once() -> None:
    """Every component is one run, with the children that it has."""
    meter = Meter()
    model = Words()
    ask: Runnable[int, Any] = RunnableLambda(lambda n: model.invoke(str(n)), name="ask")
    chain = ask | RunnableLambda(lambda m: m.content, name="read")
    chain.invoke(1, config=twice(meter))
    double.invoke({"n": 1}, config=twice(meter))
    Documents().invoke("hi", config=twice(meter))
    snapshot = meter.snapshot()
    calls = {key: stats.calls for key, stats in snapshot.components.items()}
    assert set(calls.values()) == {1}
    assert (snapshot.totals.calls, snapshot.in_flight) == (1, 0)


def test_a_double_delivery_reserves_and_spends_once() -> None:
    """A budget with room for one call lets one call through, however often it is told of it."""
    meter = Meter(budgets=[Budget(calls=2), Budget(tokens=10_000)])
    Words().invoke("hi", config=twice(meter))
    Words().generate([[HumanMessage("a")]], callbacks=[meter, meter])
    calls, tokens = meter.cost.budgets
    assert (calls.spent, tokens.spent) == (2, 2 * USAGE["total_tokens"])
    assert (calls.reserved, tokens.reserved) == (0, 0)


# Fixed, not drawn: pytest-xdist's workers must collect the same names of tests.
FIXED = UUID("0192f8a4-7b1c-4c3e-9d2a-5e6f70819203")
IDS: list[Any] = ["a text", str(FIXED), 7, 0, "", (1, "a"), 2.5, b"bytes", FIXED]


@pytest.mark.parametrize("run_id", IDS, ids=repr)
def test_any_id_that_langchain_lets_through_works_in_every_path(run_id: Any) -> None:
    """Invoked, streamed, failed and estimated calls are counted, their texts collected."""
    results: list[Any] = []
    meter = Meter(collect=True, on_complete=results.append, budgets=[Budget(calls=100)])
    config: Any = {"callbacks": [meter], "run_id": run_id}

    def call(model: Any) -> None:
        with suppress(
            ValidationError
        ):  # LangChain's own, of an id that is not a UUID, after the end
            model.invoke("hi", config=config)

    call(Words())
    feed = meter.streaming.events(run_id)
    list(Words().stream("hi", config=config))
    assert "".join(event.text for event in feed) == "one two three"
    with pytest.raises(ConnectionError):
        Words(fails=True).invoke("hi", config=config)
    call(Words(usage=None))
    with suppress(ValidationError):
        asyncio.run(Words().ainvoke("hi", config=config))
    snapshot = meter.snapshot()
    outcomes = snapshot.totals.outcomes
    assert (outcomes["ok"], outcomes["error"], snapshot.in_flight) == (4, 1, 0)
    assert (results[-1].text, results[-1].run_id) == ("one two three", run_id)
    assert set(snapshot.dropped) <= {"duplicate_end"}
    assert "hook_errors" not in snapshot.dropped


def test_a_number_is_not_taken_for_a_uuid_of_that_number() -> None:
    """The id 5 and the UUID of the int 5 are two runs."""
    meter = Meter()
    other = Words()

    def inner(_: Any) -> str:
        other.invoke("b", config={"callbacks": [meter], "run_id": UUID(int=5)})
        return "x"

    class Nested(Words):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            inner(None)
            return super()._generate(*args, **kwargs)

    config: Any = {"callbacks": [meter], "run_id": 5}
    with suppress(ValidationError):
        Nested().invoke("a", config=config)
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, snapshot.dropped) == (2, {})


def test_two_threads_with_one_id_are_two_calls_whose_times_are_not_known() -> None:
    """Tokens and money of both count; latency is in dropped."""
    meter = Meter(budgets=[Budget(calls=10)])
    model = Words(barrier=threading.Barrier(2))
    messages = [HumanMessage("the same objects")]
    config: Any = {"callbacks": [meter], "run_id": str(uuid4())}
    threads = [threading.Thread(target=model.invoke, args=(messages, config)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    snapshot = meter.snapshot()
    totals = snapshot.totals
    assert (totals.calls, totals.tokens.total) == (2, 2 * USAGE["total_tokens"])
    assert (totals.in_flight, totals.latency.count) == (0, 0)
    assert snapshot.dropped == {"shared_run_id": 2}
    assert (meter.cost.budgets[0].spent, meter.cost.budgets[0].reserved) == (2, 0)


@pytest.mark.parametrize("usage", [USAGE, None], ids=["told", "estimated"])
def test_two_tasks_with_one_id_are_two_calls(usage: Any) -> None:
    """In one thread the messages tell them apart; each is estimated by its own prompt."""
    meter, alone = Meter(), Meter()
    texts = ("hi", "a longer prompt than the other one")

    async def both() -> None:
        waiting = asyncio.Event()
        count = 0

        async def gate() -> None:
            nonlocal count
            count += 1
            if count == 2:
                waiting.set()
            await waiting.wait()

        model = Words(usage=usage, gate=gate)
        config: Any = {"callbacks": [meter], "run_id": str(uuid4())}
        await asyncio.gather(*(model.ainvoke(text, config) for text in texts))

    asyncio.run(both())
    for text in texts:
        Words(usage=usage).invoke(text, config={"callbacks": [alone]})
    totals, right = meter.snapshot().totals, alone.snapshot().totals
    assert (totals.calls, totals.tokens) == (2, right.tokens)
    assert meter.snapshot().dropped == {"shared_run_id": 2}


def test_a_second_start_after_another_event_is_a_run_of_its_own() -> None:
    """Only what comes before any other event of that id is an echo."""
    meter = Meter()
    messages: Any = [[HumanMessage("hi")]]
    run = uuid4()

    def start() -> None:
        meter.on_chat_model_start({}, messages, run_id=run)

    start()
    start()
    meter.on_llm_new_token("one", run_id=run)
    meter.on_llm_new_token("one", run_id=run)
    start()
    answer = AIMessage("one", usage_metadata=USAGE, response_metadata={"model_name": "m"})
    end = LLMResult(generations=[[ChatGeneration(message=answer)]])
    for _ in range(3):
        meter.on_llm_end(end, run_id=run)
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, snapshot.totals.token_events) == (2, 1)
    assert snapshot.totals.tokens.total == 2 * USAGE["total_tokens"]
    assert snapshot.dropped == {"duplicate_start": 1, "duplicate_end": 1, "shared_run_id": 2}
