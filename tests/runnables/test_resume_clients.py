"""`resume` around real clients and the simulator."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from langmeter import Meter, StreamTruncated, restart_of, resume
from langmeter.testing.simulator import MODELS, Choice, Reply, Simulator, Text, Thought, ToolUse
from langmeter.testing.simulator.reply import Part
from langmeter.testing.simulator.server import Server
from tests.support.scripted import BOTH, Recorder, collect, texts

HELLO = Text(("Hel", "lo"))


def reply(*parts: Part, id: str = "r-2", cut: int | None = None, **more: Any) -> Reply:
    """A reply of 14 tokens; with `cut` it breaks after as many pieces."""
    faults: dict[str, Any] = {} if cut is None else {"fault": "broken", "cut": cut}
    return Reply((Choice(parts),), **{"input": 5, "output": 9, "id": id, **faults, **more})


def chat_openai(service: Server | Simulator, **settings: Any) -> ChatOpenAI:
    keys: Any = {"api_key": "x", "stream_usage": True, "max_retries": 0, **settings}
    return ChatOpenAI(model="gpt-4o-mini", base_url=service.url, **keys)


@BOTH
async def test_chat_openai_goes_on(how: str, service: Server) -> None:
    """Text in other chunks, a tool call under another id: the message is whole, its usage too."""
    service.script(
        reply(Text(("Let me", " look.")), ToolUse("call-1", "w", ('{"ci',)), id="r-1", cut=3),
        reply(Text(("Let me look.",)), ToolUse("call-2", "w", ("", '{"city": ', '"Oslo"}'))),
    )
    meter = Meter()
    out = await collect(resume(chat_openai(service)), how, "hi", config={"callbacks": [meter]})
    total = reduce(add, out)
    assert total.text == "Let me look."
    assert [(each["name"], each["args"], each["id"]) for each in total.tool_calls] == [
        ("w", {"city": "Oslo"}, "call-1")
    ]
    assert total.id == "r-1" or total.id.startswith("lc_run")
    assert total.usage_metadata["total_tokens"] == 14
    assert total.response_metadata["finish_reason"] == "tool_calls"
    assert total.response_metadata["model_name"] == MODELS["gpt-4o-mini"]
    assert meter.snapshot().totals.outcomes["ok"] == 1
    assert meter.snapshot().totals.outcomes["error"] == 1
    tokens = meter.snapshot().totals.tokens
    assert (tokens.total - tokens.estimated, tokens.estimated > 0) == (14, True)


@BOTH
@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_an_error_in_the_middle_of_a_stream_starts_again(
    api: str, how: str, service: Server
) -> None:
    """Providers send one as an event, with the status 200 of the response."""
    service.script(reply(HELLO, cut=1, fault="error_event"), reply(HELLO))
    model = chat_openai(service) if api == "openai" else chat_anthropic(service)
    assert texts(await collect(resume(model), how, "hi")) == ["Hel", "lo"]


@BOTH
async def test_a_stream_that_just_ends_starts_again_where_asked(how: str, service: Server) -> None:
    """A proxy that closes politely: without `require_finish` the answer counts as whole."""
    cut, full = reply(HELLO, cut=1, fault="truncated"), reply(HELLO)
    service.script(cut, cut, full, cut)
    model = chat_openai(service)
    assert texts(await collect(resume(model), how, "hi")) == ["Hel"]
    out = await collect(resume(model, require_finish=True), how, "hi")
    assert texts(out) == ["Hel", "lo"]
    assert [chunk.chunk_position for chunk in out if chunk.chunk_position] == ["last"]
    with pytest.raises(StreamTruncated):
        await collect(resume(model, require_finish=True, max_restarts=0), how, "hi")


def chat_anthropic(service: Server, **settings: Any) -> Any:
    # Its client takes 3 s of CPU to import, and `make quick` needs none.
    from langchain_anthropic import ChatAnthropic

    made: Any = ChatAnthropic
    return made(
        model="claude-in-a-test",
        base_url=service.root,
        api_key="x",
        max_retries=0,
        max_tokens=1024,
        **settings,
    )


@BOTH
async def test_chat_anthropic_goes_on(how: str, service: Server) -> None:
    """Thinking, its signature, text and tool input, each cut up otherwise the second time."""
    first = reply(
        Thought(("Let", " me"), "s1"),
        Text(("I loo", "k")),
        ToolUse("t-1", "w", ('{"ci', "")),
        cut=5,
    )
    second = reply(
        Thought(("Let me",), "s2"),
        Text(("I", " look")),
        ToolUse("t-2", "w", ('{"city": "Os', 'lo"}')),
        input=8,
        cache_read=3,
    )
    service.script(first, second)
    model = chat_anthropic(service, thinking={"type": "enabled", "budget_tokens": 1024})
    out = await collect(resume(model), how, "hi")
    straight = reduce(add, model.stream("hi"))
    total = reduce(add, out)

    def plain(message: Any) -> Any:
        made_up = {"id", "signature"}
        return [{k: v for k, v in block.items() if k not in made_up} for block in message.content]

    assert plain(total) == plain(straight)
    assert [block.get("signature") for block in total.content] == ["s1", None, None]
    assert [(each["args"], each["id"]) for each in total.tool_calls] == [({"city": "Oslo"}, "t-1")]
    assert total.usage_metadata == straight.usage_metadata
    assert total.response_metadata == straight.response_metadata
    assert [chunk for chunk in out if restart_of(chunk)] == []


@pytest.mark.process
@BOTH
async def test_the_simulators_broken_streams_are_whole(how: str) -> None:
    """Most streams break somewhere: each caller sees one whole answer, its books every attempt."""
    sizes: Any = {"output_tokens": (12.0, 0.0), "rate_limited": 0.0, "server_error": 0.0}
    meter = Meter()
    restarts = 0
    with Simulator(3, speed=float("inf"), broken=0.6, **sizes) as service:
        chain = resume(chat_openai(service), max_restarts=50)
        for number in range(8):
            seen = Recorder()
            out = await collect(chain, how, f"{number}", config={"callbacks": [meter, seen]})
            total = reduce(add, out)
            assert len(total.text.split()) == 12
            assert total.usage_metadata["output_tokens"] == 12
            assert seen.open == set()
            restarts += len(seen.events)
    books = service.truth()
    assert restarts == books.sent("broken").calls > 0
    outcomes = meter.snapshot().totals.outcomes
    assert (outcomes["ok"], outcomes["error"]) == (8, restarts)
    assert books.sent("ok").calls == 8
