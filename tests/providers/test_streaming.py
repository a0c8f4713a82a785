"""Streams that break or stall: the next provider goes on, and no text comes twice."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel

from langmeter import HealthOptions, Meter, ProviderManager, restart_of
from tests.support.chats import ScriptedChat, refusal

BROKEN = ConnectionResetError("gone")


def pair(first: Any, second: Any, **settings: Any) -> Any:
    """A manager of two models with the scripts of their streams, and both models."""
    models = ScriptedChat(script=[first], model="small"), ScriptedChat(script=[second], model="big")
    return ProviderManager({"a": models[0], "b": models[1]}, **settings), *models


async def chunks(manager: Any, use_async: bool) -> list[Any]:
    """All chunks of one stream."""
    if use_async:
        return [chunk async for chunk in manager.astream("hello")]
    return list(manager.stream("hello"))


def texts(got: list[Any]) -> list[str]:
    return [chunk.content for chunk in got if chunk.content]


both = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


@both
async def test_before_the_first_token_the_fallback_is_silent(use_async: bool) -> None:
    """The caller sees one stream, without a marker."""
    manager, *_ = pair([BROKEN], ["one ", "two"])
    got = await chunks(manager, use_async)
    assert texts(got) == ["one ", "two"]
    assert not any(map(restart_of, got))
    assert manager.decisions == {("a", "policy"): 1, ("b", "fallback"): 1}


@both
async def test_the_same_answer_goes_on_where_it_broke(use_async: bool) -> None:
    """What the second provider says again is not handed on again."""
    manager, *_ = pair(["one ", "two ", BROKEN], ["one t", "wo ", "three"])
    got = await chunks(manager, use_async)
    assert texts(got) == ["one ", "two ", "three"]
    assert not any(map(restart_of, got))


@both
async def test_another_answer_begins_with_a_restart_signal(use_async: bool) -> None:
    """The marker comes first, then the whole new answer; a third one is compared with that."""
    manager, first, _ = pair(["one ", "two ", BROKEN], ["uno ", "dos ", BROKEN])
    third = ScriptedChat(script=[["uno ", "dos ", "tres"]])
    manager = ProviderManager({"a": first, "b": manager.providers["b"], "c": third})
    got = await chunks(manager, use_async)
    restarts = [restart for chunk in got if (restart := restart_of(chunk))]
    assert [restart.discarded_characters for restart in restarts] == [8]
    assert texts(got) == ["one ", "two ", "uno ", "dos ", "tres"]


@both
async def test_the_broken_half_is_counted_to_its_model(use_async: bool) -> None:
    """Its calls, error and tokens, and its own price."""
    from langmeter import PriceBook

    prices = PriceBook({"a/small": {"input": 1, "output": 1}, "b/big": {"input": 2, "output": 2}})
    meter = Meter(prices=prices)
    manager, *_ = pair(["one ", "two ", BROKEN], ["uno ", "dos"], meter=meter)
    await chunks(manager, use_async)
    models = meter.snapshot().models
    broken, whole = models["a", "small"], models["b", "big"]
    assert (broken.calls, broken.errors, whole.calls, whole.errors) == (1, 1, 1, 0)
    assert broken.tokens.estimated == broken.tokens.total > 0
    assert broken.cost is not None
    assert broken.cost > 0
    assert whole.tokens.output == 10


async def test_an_async_stream_that_stalls_is_given_up() -> None:
    """Before and after the first token, and it counts as a failure."""
    for silent in ([5.0, "one"], ["", 5.0, "one"], ["one ", 5.0, "two"]):
        manager, *_ = pair(silent, ["one ", "two"], stall_after=0.05)
        began = time.monotonic()
        got = await chunks(manager, use_async=True)
        assert time.monotonic() - began < 4
        assert "".join(texts(got)) == "one two"
        assert manager._router.providers["a"].circuit.recent == (1, 1)


def test_a_sync_stream_that_stalls_is_given_up_at_its_next_chunk() -> None:
    """Between chunks; a late first chunk is taken."""
    manager, *_ = pair(["one ", 0.2, "two ", "six"], ["one ", "two ", "three"], stall_after=0.1)
    assert texts(list(manager.stream("hello"))) == ["one ", "two ", "three"]
    manager, *_ = pair([0.2, "late"], ["other"], stall_after=0.1)
    assert texts(list(manager.stream("hello"))) == ["late"]


async def test_a_model_may_think_longer_before_its_first_content() -> None:
    """Five times as long as between chunks; an empty chunk has none."""
    manager, _, second = pair(["", 0.2, "one ", "two"], ["other"], stall_after=0.1)
    assert texts(await chunks(manager, use_async=True)) == ["one ", "two"]
    assert not second.calls


async def test_a_stall_of_the_last_provider_is_a_timeout() -> None:
    """It says for how long nothing came."""
    manager = ProviderManager({"a": ScriptedChat(script=[["x", 5.0]])}, stall_after=0.05)
    with pytest.raises(TimeoutError, match=r"sent nothing for 0\.05 s"):
        await chunks(manager, use_async=True)


@both
async def test_the_last_error_of_a_stream_is_raised(use_async: bool) -> None:
    """With what was handed on before it, and with the errors before in its notes."""
    last = refusal(503)
    manager, *_ = pair(["one ", BROKEN], ["one ", "two ", last])
    got: list[Any] = []

    async def take() -> None:
        if use_async:
            async for chunk in manager.astream("hello"):
                got.append(chunk)  # noqa: PERF401 (what came before the error counts)
        else:
            got.extend(manager.stream("hello"))

    with pytest.raises(type(last)) as caught:
        await take()
    assert texts(got) == ["one ", "two "]
    assert "provider 'a' failed before: ConnectionResetError" in caught.value.__notes__[0]


async def test_leaving_a_stream_says_nothing_about_its_provider() -> None:
    """Neither success nor failure is counted; the other provider is not asked."""
    manager, _, second = pair(["one ", "two"], ["x"])
    for chunk in manager.stream("hello"):
        assert chunk.content == "one "
        break
    stream = manager.astream("hello")
    await anext(stream)
    await stream.aclose()
    gc.collect()
    assert manager._router.providers["a"].circuit.recent == (0, 0)
    assert len(second.calls) == 0


def test_leaving_the_stream_of_a_probe_lets_another_one_through() -> None:
    """An abandoned probe does not keep its provider away."""
    options = HealthOptions(failures=1, open_seconds=0.05)
    manager, first, _ = pair([BROKEN], ["x"], health=options)
    list(manager.stream("hello"))
    time.sleep(0.06)
    first.script.append(["one ", "two"])
    stream = manager.stream("hello")
    next(stream)
    assert manager.explain().states["a"] == "probing"
    stream.close()
    assert manager.explain().states["a"] == "half-open"
    list(manager.stream("hello"))
    assert manager.explain().states["a"] == "ready"


class Shape(BaseModel):
    """A shape."""

    sides: int


class Shaped(ScriptedChat):
    """A model whose structured answers are streamed in parts, as parsers of JSON do."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        from langchain_core.runnables import RunnableGenerator

        def parse(chunks: Any) -> Any:
            for number, _ in enumerate(chunks):
                yield {"sides": number}

        return self | RunnableGenerator(parse)


def test_parsed_streams_fall_back_until_their_first_part() -> None:
    """Parts that were handed on cannot be compared, so that the error is raised after them."""
    first = Shaped(script=[[BROKEN], ["x", BROKEN]])
    second = Shaped(script=[["x", "y"]])
    manager = ProviderManager({"a": first, "b": second}).with_structured_output(Shape)
    assert list(manager.stream("hello"))[-1]["sides"] >= 2
    with pytest.raises(ConnectionResetError):
        list(manager.stream("hello"))
    assert isinstance(next(ProviderManager({"a": ScriptedChat()}).stream("x")), AIMessageChunk)
