"""Streams of real clients over loopback: the oracle is what we serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI

from langmeter import Meter
from langmeter.streaming import StreamEvent, StreamFailure, StreamResult, ToolCall
from langmeter.testing.simulator import MODELS, Choice, Reply, Text, Thought, ToolUse
from langmeter.testing.simulator.server import Server
from tests.support.streamed import lost

pytestmark = pytest.mark.clients

TEXT = ("It ", "is é", "!")
THOUGHT = ("let me ", "see")
ARGS = ('{"city":', ' "Oslo"}')
CALLS = (ToolCall("call_1", "weather", "".join(ARGS)),)


#: What the simulator says; chat completions leave the reasoning out.
REPLY = Reply(
    (Choice((Thought(THOUGHT, "abc"), Text(TEXT), ToolUse("call_1", "weather", ("", *ARGS)))),),
    input=10,
    output=7,
    reasoning=2,
)


def chat(service: Server, **more: Any) -> BaseChatModel:
    return ChatOpenAI(
        model="gpt-4o",
        base_url=service.url,
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        stream_usage=True,
        **more,
    )


def responses(service: Server, **more: Any) -> BaseChatModel:
    return chat(service, use_responses_api=True, output_version="responses/v1", **more)


def claude(service: Server, **more: Any) -> BaseChatModel:
    return ChatAnthropic(
        model_name="claude-haiku-4-5",
        base_url=service.root,
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        max_tokens_to_sample=2048,
        thinking={"type": "enabled", "budget_tokens": 1024},
        **more,
    )


#: Client, and whether it reads reasoning.
APIS: dict[str, tuple[Callable[..., BaseChatModel], bool]] = {
    "chat": (chat, False),
    "responses": (responses, True),
    "anthropic": (claude, True),
}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def ways(model: BaseChatModel, way: str, config: Any) -> None:
    """One call in one of the ways that there are; what it raises is the caller's."""
    bound = model.bind_tools([WEATHER])
    if way == "stream":
        list(bound.stream("hi", config=config))
    elif way == "astream":
        async for _ in bound.astream("hi", config=config):
            pass
    elif way == "invoke":
        bound.invoke("hi", config=config)
    elif way == "v3":
        list(model.stream_events("hi", config=config, version="v3", tools=_tools(bound)))
    else:
        stream: Any = await model.astream_events(
            "hi", config=config, version="v3", tools=_tools(bound)
        )
        events: AsyncIterator[Any] = stream
        try:
            async for _ in events:
                pass
        finally:
            # The last event comes before LangChain's own task has told of the end.
            (meter,) = config["callbacks"]
            async with asyncio.timeout(60):
                while meter.snapshot().in_flight:
                    await asyncio.sleep(0)


def _tools(bound: Any) -> Any:
    return bound.kwargs["tools"]


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("way", ["stream", "astream", "invoke", "v3", "av3"])
@pytest.mark.parametrize("api", APIS)
async def test_every_way_to_stream_tells_the_same(api: str, way: str, service: Server) -> None:
    """Text, reasoning, tool calls, the pieces and the counts; the final message agrees."""
    make, thinks = APIS[api]
    service.script(REPLY)
    texts: list[str] = []
    events: list[StreamEvent] = []
    results: list[StreamResult] = []
    meter = Meter(
        on_token_callback=texts.append, on_event=events.append, on_complete=results.append
    )
    model = make(service, **({"streaming": True} if way == "invoke" else {}))
    await ways(model, way, {"callbacks": [meter]})
    (result,) = results
    assert tuple(texts) == TEXT
    assert (result.text, result.tool_calls) == ("".join(TEXT), CALLS)
    assert result.reasoning == "".join(THOUGHT) * thinks
    assert result.mismatches == ()
    kinds = ["reasoning"] * 2 * thinks + ["text"] * 3 + ["tool_call"] * 3
    assert [event.kind for event in events] == kinds
    assert [event.text for event in events if event.kind == "tool_call"] == ["", *ARGS]
    assert result.tokens is not None
    assert (result.tokens.input, result.tokens.output, result.estimated) == (10, 7, False)
    assert result.model in MODELS.values()
    snapshot = meter.snapshot()
    assert snapshot.totals.token_events == len(kinds) == result.events
    assert not lost(meter)
    assert snapshot.in_flight == 0


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("way", ["stream", "astream", "invoke", "v3", "av3"])
@pytest.mark.parametrize("api", APIS)
async def test_a_connection_that_breaks_leaves_what_had_come(
    api: str, way: str, service: Server
) -> None:
    """An error with the client's class, the text so far, and its tokens, marked as estimated."""
    make, thinks = APIS[api]
    service.script(replace(REPLY, fault="broken", cut=2 * thinks + 2))
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    model = make(service, **({"streaming": True} if way == "invoke" else {}))
    with suppress(Exception):
        await ways(model, way, {"callbacks": [meter]})
    (failure,) = failures
    assert (failure.outcome, failure.status) == ("error", None)
    assert failure.error in {"RemoteProtocolError", "APIConnectionError", "OpenAIConnectionError"}
    assert failure.text == "It is é"
    assert failure.tokens is not None
    assert failure.estimated
    assert failure.tokens.output > 0
    assert meter.snapshot().totals.tokens.estimated == failure.tokens.estimated
    assert meter.streaming.failures == (failure,)
    assert meter.streaming._streams._open == (0, 0)


@pytest.mark.parametrize("api", APIS)
def test_a_refusal_has_its_status(api: str, service: Server) -> None:
    """Before the first token."""
    service.script(Reply(status=529))
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    with pytest.raises(Exception, match=r"no|529"):
        list(APIS[api][0](service).stream("hi", config={"callbacks": [meter]}))
    (failure,) = failures
    assert (failure.status, failure.text, failure.tokens) == (529, "", None)


@pytest.mark.parametrize("api", APIS)
def test_a_stream_that_is_left_is_cancelled(api: str, service: Server) -> None:
    """`break`: what had come is there, and the outcome is not an error."""
    make, _ = APIS[api]
    service.script(REPLY)
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    stream = make(service).stream("hi", config={"callbacks": [meter]})
    while not meter.streaming._streams._open[1]:
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    (failure,) = failures
    assert (failure.outcome, failure.error) == ("cancelled", "GeneratorExit")
    assert failure.text or failure.reasoning
    assert meter.snapshot().totals.outcomes["cancelled"] == 1
