"""Calls whose provider sends no usage: counted here, marked estimated, and only those."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult

from langmeter import CompositeCallback, Meter, TokenCountingCallback, track_embeddings
from langmeter.prices import PriceBook
from langmeter.snapshot import Tokens
from langmeter.testing.simulator.server import Server
from langmeter.usage.estimate import TokenEstimator
from tests.support.counted import client, o200k, tokens, words
from tests.support.models import chat_model


def test_a_stream_without_usage_is_what_the_service_would_have_billed(service: Server) -> None:
    """Prompt and answer, to the token, under the model that answered, marked as estimated."""
    meter, before = Meter(), service.truth().sent("unreported")
    for prompt in ("tell me more", [SystemMessage("be brief"), HumanMessage("tell me more")]):
        list(client(service).stream(prompt, config={"callbacks": [meter]}))
    after = service.truth().sent("unreported")
    sent = after.input - before.input, after.output - before.output
    stats = meter.snapshot().models["openai", "gpt-4o-mini-2024-07-18"]
    assert (stats.tokens.input, stats.tokens.output) == sent
    assert stats.tokens.total == stats.tokens.estimated == sum(sent)
    assert stats.outcomes["ok"] == 2
    assert not meter._services.prompts


async def test_an_async_stream_is_counted_like_a_sync_one(service: Server) -> None:
    """The same sums."""
    meter, before = Meter(), service.truth().sent("unreported")
    async for _ in client(service).astream("tell me more", config={"callbacks": [meter]}):
        pass
    after = service.truth().sent("unreported")
    assert tokens(meter).total == sum(after[1:3]) - sum(before[1:3]) > 0
    assert tokens(meter).estimated == tokens(meter).total


def test_the_providers_figure_wins(service: Server) -> None:
    """Streams and answers that report usage are not counted here, whatever counter is given."""
    meter = Meter(token_counters={"gpt": lambda text: 10**6})
    client(service).invoke("tell me more", config={"callbacks": [meter]})
    list(client(service, stream_usage=True).stream("go", config={"callbacks": [meter]}))
    assert tokens(meter).estimated == 0
    assert 0 < tokens(meter).total < 10**6


def test_a_broken_stream_counts_what_had_come(service: Server) -> None:
    """The prompt and the received text; the call is an error all the same."""
    meter, got = Meter(), ""
    stream = client(service, "broken").stream("go on", config={"callbacks": [meter]})
    with pytest.raises(Exception, match="onnection"):  # noqa: PT012 - what came before it counts
        for chunk in stream:
            got += str(chunk.content)
    assert tokens(meter).output == o200k(got) > 0
    assert tokens(meter).input == 2 + 4 + 3
    assert tokens(meter).estimated == tokens(meter).total
    assert meter.snapshot().totals.errors == 1


def test_a_stream_that_was_left_counts_what_had_come(service: Server) -> None:
    """It is cancelled, and costs what was read of it."""
    meter = Meter()
    stream = client(service).stream("go on", config={"callbacks": [meter]})
    got = "".join(str(next(stream).content) for _ in range(4))
    stream.close()  # type: ignore[attr-defined]
    assert tokens(meter).output == o200k(got) > 0
    assert meter.snapshot().totals.outcomes["cancelled"] == 1


class Stalls(GenericFakeChatModel):
    """Says something and then nothing."""

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content="one two"))
        await asyncio.Event().wait()


async def test_a_cancelled_astream_counts_what_had_come() -> None:
    """The task's end brings the partial answer."""
    meter, begun = Meter(), asyncio.Event()

    async def read() -> None:
        model = Stalls(messages=iter([]))
        async for _ in model.astream("go on", config={"callbacks": [meter]}):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tokens(meter).input, tokens(meter).output) == (2 + 4 + 3, 2)
    assert tokens(meter).estimated == tokens(meter).total
    assert meter.snapshot().totals.outcomes["cancelled"] == 1


@pytest.mark.parametrize("fate", ["rate_limited", "server_error"])
def test_an_error_of_the_service_counts_nothing(service: Server, fate: str) -> None:
    """Though its response is handed in with a body and headers."""
    meter = Meter()
    for call in (
        client(service, fate).invoke,
        lambda *a, **k: list(client(service, fate).stream(*a, **k)),
    ):
        with pytest.raises(Exception, match=r"429|500"):
            call("go on", config={"callbacks": [meter]})
    assert tokens(meter) == Tokens()
    assert meter.snapshot().totals.errors == 2
    assert not meter._services.prompts


class Echo(LLM):
    """A text model that reports nothing."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return prompt[::-1]


def test_text_completions_are_counted_prompt_by_prompt() -> None:
    """Without the overhead of a chat, and each prompt of a batch on its own."""
    meter = Meter()
    Echo().invoke("one two", config={"callbacks": [meter]})
    Echo().generate(["three", "four five six"], callbacks=[meter])  # type: ignore[arg-type]
    asked = ["one two", "three", "four five six"]
    assert tokens(meter).input == sum(o200k(text) for text in asked)
    assert tokens(meter).output == sum(o200k(text[::-1]) for text in asked)


@pytest.mark.parametrize(("batch_size", "counted"), [(1, True), (2, False)])
def test_the_later_prompts_of_a_batch_are_on_the_first(batch_size: int, counted: bool) -> None:
    """LangChain leaves `{}` as their usage: nothing is missing there, but in a batch of one."""
    meter, run = Meter(), uuid.uuid4()
    meter.on_llm_start({}, ["one two"], run_id=run, batch_size=batch_size)
    meter.on_llm_end(
        LLMResult(generations=[[Generation(text="x")]], llm_output={"token_usage": {}}), run_id=run
    )
    assert bool(tokens(meter).estimated) is counted


def test_chats_have_the_overhead_of_the_openai_cookbook() -> None:
    """3 for each message, its role, its name and 1, and 3 for the reply, around the contents."""
    messages = [
        SystemMessage("You are brief.", name="example_user"),
        HumanMessage(
            [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}, "it"]
        ),
        AIMessage("", tool_calls=[{"name": "look", "args": {"at": "é"}, "id": "1"}]),
        ToolMessage(
            [{"type": "tool_result", "content": [{"text": "seen"}]}], name="look", tool_call_id="1"
        ),
    ]
    texts = ["You are brief.", "See", "it", "look", '{"at":"é"}', "seen", "example_user"]
    expected = 3 + 4 * len(messages) + 1 + sum(o200k(text) for text in texts)
    assert TokenEstimator().input("openai", "gpt-4o", [messages]) == expected


def result(message: AIMessage) -> LLMResult:
    """As the end hook gets it."""
    kind: Any = ChatGenerationChunk if isinstance(message, AIMessageChunk) else ChatGeneration
    return LLMResult(generations=[[kind(message=message)]])


@pytest.mark.parametrize(
    ("message", "output", "reasoning"),
    [
        (AIMessage("one two", additional_kwargs={"reasoning_content": "three"}), 3, 1),
        (AIMessage([{"type": "thinking", "thinking": "a b"}, {"type": "text", "text": "c"}]), 3, 2),
        (AIMessage([{"type": "reasoning", "summary": [{"text": "a b"}]}, "c"]), 3, 2),
        (AIMessage([{"type": "refusal", "refusal": "no way"}]), 2, 0),
        (AIMessage("", tool_calls=[{"name": "f", "args": {"x": "y z"}, "id": "1"}]), 3, 0),
        (
            AIMessageChunk(
                content="",
                tool_call_chunks=[{"name": "f", "args": '{"x": "y', "id": "1", "index": 0}],
            ),
            3,
            0,
        ),
        (
            AIMessage(
                [{"type": "tool_use", "name": "f", "input": {"x": 1}, "id": "1"}],
                tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}],
            ),
            2,
            0,
        ),
    ],
)
def test_all_that_the_model_wrote_is_output(
    message: AIMessage, output: int, reasoning: int
) -> None:
    """Text, refusals, reasoning and tool calls, each once, in the words of a counter of words."""
    usage = TokenEstimator({"m": words}).usage("", "m", (), result(message), ended=True)
    assert usage is not None
    assert (usage.output, usage.reasoning, usage.total, usage.estimated) == (
        output,
        reasoning,
        output,
        output,
    )


def test_every_candidate_is_counted() -> None:
    """With n = 2 both answers were written."""
    both = LLMResult(generations=[[Generation(text="a b"), Generation(text="c")]])
    usage = TokenEstimator({"m": words}).usage("", "m", ["d e"], both, ended=True)
    assert usage is not None
    assert (usage.input, usage.output) == (2, 3)


class SaidError(Exception):
    """As the clients raise what a server said."""

    body = "tool call validation failed"


@pytest.mark.parametrize(("error", "output"), [(SaidError(), 0), (ConnectionError(), 2)])
def test_an_error_that_the_server_names_in_its_stream_is_no_spend(error: Any, output: int) -> None:
    """Whatever came before it; a connection that only breaks says no such thing."""
    meter, run = TokenCountingCallback(token_counters={"m": words}), uuid.uuid4()
    meter.on_chat_model_start({}, [[HumanMessage("go")]], run_id=run, batch_size=1)
    partial = result(AIMessage("a b", response_metadata={"model_name": "m"}))
    meter.on_llm_error(error, run_id=run, response=partial)
    assert tokens(meter).output == output
    assert not meter._services.prompts


@pytest.mark.parametrize("response", [None, 7, {"generations": 3}, LLMResult(generations=[])])
def test_what_says_nothing_counts_nothing(response: Any) -> None:
    """A call that failed without an answer, or ended with something else than one."""
    assert TokenEstimator().usage("", "m", [[HumanMessage("hi")]], response, ended=False) is None
    assert TokenEstimator().usage("", "m", (), response, ended=True) is None


def test_estimates_are_priced(prices: PriceBook) -> None:
    """As figures of the provider are."""
    meter = Meter(prices=prices, token_counters={"fake-1": words})
    chat_model(usage=None).invoke("hi", config={"callbacks": [meter]})
    stats = meter.snapshot().models["genericfakechatmodel", "fake-1"]
    assert (stats.tokens.input, stats.tokens.output) == (3 + 4 + 1, 3)
    assert stats.cost == Decimal(8 * 2 + 3 * 10) / 10**6


def test_prompts_of_calls_that_nobody_ends_are_let_go() -> None:
    """The oldest first; the answer of a call whose prompt is gone is counted alone."""
    meter = TokenCountingCallback(token_counters={"m": words})
    runs = [uuid.uuid4() for _ in range(5000)]
    for run in runs:
        meter.on_chat_model_start({}, [[HumanMessage("a b")]], run_id=run, batch_size=1)
        assert len(meter._services.prompts) <= 2048
    for run in (runs[0], runs[-1]):
        meter.on_llm_end(
            result(AIMessage("x y z", response_metadata={"model_name": "m"})), run_id=run
        )
    assert (tokens(meter).input, tokens(meter).output) == (3 + 4 + 2, 6)
    assert not {runs[0].int, runs[-1].int} & set(meter._services.prompts)


def test_no_prompt_is_kept_once_its_call_has_ended() -> None:
    """Whether the usage came from the provider or from here, or the call failed."""
    meter = Meter()
    chat_model().invoke("hi", config={"callbacks": [meter]})
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    failing = GenericFakeChatModel(messages=iter([]))
    with pytest.raises((RuntimeError, StopIteration)):
        failing.invoke("hi", config={"callbacks": [meter]})
    assert not meter._services.prompts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_no_prompt_of_its_parent() -> None:
    """They belong to calls that end in the parent."""
    meter = TokenCountingCallback()
    meter.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=uuid.uuid4(), batch_size=1)
    child = os.fork()
    if not child:
        os._exit(len(meter._services.prompts))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(meter._services.prompts) == 1


def test_a_part_brings_its_counters_into_the_composite() -> None:
    """And those of the composite itself win."""
    part = TokenCountingCallback(token_counters={"a": lambda text: 1, "b": lambda text: 2})
    whole = CompositeCallback([part], token_counters={"b": lambda text: 3})
    assert [whole._services.estimator.counter("", name)("x") for name in "ab"] == [1, 3]


def test_embeddings_are_counted_by_the_meters_counters() -> None:
    """Where none is given for them alone."""

    class Named(DeterministicFakeEmbedding):
        model: str = "nomic-embed-text"

    meter = Meter(token_counters={"nomic": words})
    track_embeddings(Named(size=3), meter).embed_documents(["one two", "", "three"])
    assert (tokens(meter).input, tokens(meter).estimated) == (3, 3)


def test_the_table_of_a_meter_remembers_a_thousand_models() -> None:
    """And no more, whatever names come."""
    offline = TokenEstimator()
    for number in range(1500):
        offline.counter("", f"model-{number}")
    assert len(offline._known) <= 1024
