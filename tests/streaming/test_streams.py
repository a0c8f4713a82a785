"""What streams say: one rule for both hooks, streams apart, and an end that is told."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, GenerationChunk, LLMResult
from langchain_core.prompts import PromptTemplate

from langmeter import CompositeCallback, Meter, StreamingCallback, TokenCountingCallback
from langmeter._base.failures import status_of
from langmeter.errors import ConfigError
from langmeter.streaming import Collect, StreamEvent, StreamFailure, StreamResult, ToolCall
from langmeter.testing import ManualClock
from tests.support.models import chat_model
from tests.support.versions import needs_stream_events

METADATA = {"ls_provider": "p", "ls_model_name": "m"}


def lost(handler: Any) -> dict[str, int]:
    """What was dropped; a run without a provider is so fast that its figures may be clamped."""
    return {k: n for k, n in handler.snapshot().dropped.items() if k != "clamped"}


class Run:
    """A model call as LangChain's manager would report it, hook by hook."""

    def __init__(self, handler: Any, run_id: uuid.UUID | None = None) -> None:
        self.handler = handler
        self.run_id = run_id or uuid.uuid4()
        handler.on_chat_model_start({}, [[]], run_id=self.run_id, metadata=METADATA, batch_size=1)

    def token(self, token: Any = "", chunk: Any = None, **message: Any) -> None:
        if message or (chunk is None and isinstance(token, list)):
            content = message.pop("content", token)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=content, **message))
        self.handler.on_llm_new_token(token, chunk=chunk, run_id=self.run_id)

    def event(self, name: str, **data: Any) -> None:
        self.handler.on_stream_event({"event": name, **data}, run_id=self.run_id)

    def end(self, content: Any = "", **message: Any) -> None:
        generation = ChatGeneration(message=AIMessage(content, **message))
        self.handler.on_llm_end(LLMResult(generations=[[generation]]), run_id=self.run_id)

    def fail(self, error: BaseException, response: Any = None) -> None:
        self.handler.on_llm_error(error, run_id=self.run_id, response=response)


class Heard:
    """A `StreamingCallback` that writes down everything it is told."""

    def __init__(self, **more: Any) -> None:
        self.texts: list[str] = []
        self.events: list[StreamEvent] = []
        self.results: list[StreamResult] = []
        self.failures: list[StreamFailure] = []
        self.handler = StreamingCallback(
            self.texts.append,
            on_event=self.events.append,
            on_complete=self.results.append,
            on_error=self.failures.append,
            **more,
        )

    @property
    def said(self) -> list[tuple[str, str]]:
        """(kind, text) of each event."""
        return [(event.kind, event.text) for event in self.events]


def call(index: Any, args: str = "", name: str | None = None, id_: str | None = None) -> Any:
    return {"index": index, "args": args, "name": name, "id": id_, "type": "tool_call_chunk"}


OUTPUT: list[tuple[str, Any, dict[str, Any], list[tuple[str, str]]]] = [
    ("a text", "hi", {}, [("text", "hi")]),
    ("a list of texts", ["a", "b"], {}, [("text", "a"), ("text", "b")]),
    ("a text block", [{"type": "text", "text": "hi", "index": 0}], {}, [("text", "hi")]),
    ("thinking", [{"type": "thinking", "thinking": "hm", "index": 0}], {}, [("reasoning", "hm")]),
    ("v1 reasoning", [{"type": "reasoning", "reasoning": "hm"}], {}, [("reasoning", "hm")]),
    (
        "OpenAI's summary",
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "index": 0}]}],
        {},
        [("reasoning", "hm")],
    ),
    (
        "Bedrock's reasoning",
        [{"type": "reasoning_content", "reasoning_content": {"type": "text", "text": "hm"}}],
        {},
        [("reasoning", "hm")],
    ),
    (
        "Mistral's thinking",
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}],
        {},
        [("reasoning", "hm")],
    ),
    (
        "DeepSeek's reasoning beside an empty token",
        "",
        {"additional_kwargs": {"reasoning_content": "hm"}},
        [("reasoning", "hm")],
    ),
    (
        "a tool call's beginning",
        "",
        {"tool_call_chunks": [call(0, name="f", id_="1")]},
        [("tool_call", "")],
    ),
    ("arguments", "", {"tool_call_chunks": [call(0, '{"a"')]}, [("tool_call", '{"a"')]),
    (
        "text and a tool call in one chunk",
        "hi",
        {"tool_call_chunks": [call(0, "{}", "f", "1")]},
        [("text", "hi"), ("tool_call", "{}")],
    ),
    (
        "Anthropic's arguments, which stand there twice",
        [{"type": "input_json_delta", "partial_json": "{", "index": 1}],
        {"tool_call_chunks": [call(1, "{")]},
        [("tool_call", "{")],
    ),
    (
        "the text alone of a chunk of blocks",
        "hi",
        {"content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "hi"}]},
        [("reasoning", "hm"), ("text", "hi")],
    ),
    (
        "no text of a chunk of blocks",
        "",
        {"content": [{"type": "thinking", "thinking": "hm"}]},
        [("reasoning", "hm")],
    ),
    (
        "a function call of old",
        "",
        {"additional_kwargs": {"function_call": {"name": "f", "arguments": "{"}}},
        [("tool_call", "{")],
    ),
]
NOTHING: list[tuple[str, Any, dict[str, Any]]] = [
    ("an empty role chunk", "", {"content": ""}),
    (
        "a usage-only chunk",
        "",
        {"usage_metadata": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}},
    ),
    ("the end marker", "", {"chunk_position": "last"}),
    ("no blocks", [], {"content": []}),
    ("an empty block", [{"type": "text", "text": ""}], {}),
    ("a signature", [{"type": "thinking", "signature": "abc", "index": 0}], {}),
    ("an empty summary", [{"type": "reasoning", "summary": [], "id": "rs_1"}], {}),
    ("a summary that begins", [{"type": "reasoning", "summary": [{"text": ""}]}], {}),
    ("encrypted thinking", [{"type": "redacted_thinking", "data": "abc"}], {}),
    ("empty arguments", "", {"tool_call_chunks": [call(0, "")]}),
    ("other metadata", "", {"additional_kwargs": {"refusal": None}}),
]


@pytest.mark.parametrize(
    ("what", "token", "message", "said"),
    OUTPUT,
    ids=lambda v: v if isinstance(v, str) and " " in v else "",
)
def test_output_is_text_reasoning_and_tool_calls(
    what: str, token: Any, message: dict[str, Any], said: list[tuple[str, str]]
) -> None:
    """One token event for the recorder, one event for each kind in it for listeners."""
    heard = Heard()
    run = Run(heard.handler)
    run.token(token, **{"content": "" if isinstance(token, str) else token, **message})
    run.fail(ValueError())
    assert heard.said == said, what
    assert heard.texts == [text for kind, text in said if kind == "text"]
    assert heard.handler.snapshot().totals.token_events == 1
    assert [event.index for event in heard.events] == list(range(len(said)))


@pytest.mark.parametrize(
    ("what", "token", "message"),
    NOTHING,
    ids=lambda v: v if isinstance(v, str) and " " in v else "",
)
def test_what_nobody_wrote_is_no_output(what: str, token: Any, message: dict[str, Any]) -> None:
    """Neither counted nor told, and no first token."""
    heard = Heard()
    run = Run(heard.handler)
    run.token(token, **message)
    run.fail(ValueError())
    assert heard.said == [], what
    assert heard.handler.snapshot().totals.token_events == 0


def test_a_token_may_come_by_position_and_without_a_chunk() -> None:
    """As older integrations and other people's code call the hook."""
    heard = Heard()
    run = Run(heard.handler)
    run.handler.on_llm_new_token("a", run_id=run.run_id)
    run.handler.on_llm_new_token(token="b", run_id=run.run_id)
    run.handler.on_llm_new_token([{"type": "text", "text": "c"}], run_id=run.run_id)
    run.handler.on_llm_new_token("d", chunk=GenerationChunk(text="d"), run_id=run.run_id)
    # Without a chunk the blocks are all there is of a tool call.
    tool = [{"type": "tool_use", "id": "1", "name": "f", "input": {}, "index": 3}]
    run.handler.on_llm_new_token(tool, run_id=run.run_id)
    delta = [{"type": "input_json_delta", "partial_json": "{}", "index": 3}]
    run.handler.on_llm_new_token(delta, run_id=run.run_id)
    run.handler.on_llm_new_token(None, run_id=run.run_id)
    run.end("abcd", tool_calls=[{"id": "1", "name": "f", "args": {}}])
    (result,) = heard.results
    assert (result.text, result.mismatches) == ("abcd", ())
    assert result.tool_calls == (ToolCall("1", "f", "{}"),)


def v1(run: Run) -> None:
    """An answer of every kind, in the words of `on_llm_new_token`."""
    run.token([{"type": "thinking", "thinking": "let ", "index": 0}])
    run.token([{"type": "thinking", "thinking": "me see", "index": 0}])
    run.token([{"type": "text", "text": "It is ", "index": 1}])
    run.token([{"type": "text", "text": "é", "index": 1}])
    for index, id_, args in ((2, "a", ('{"city":', ' "Oslo"}')), (3, "b", ("{}",))):
        run.token("", tool_call_chunks=[call(index, name="weather", id_=id_)])
        for piece in args:
            run.token("", tool_call_chunks=[call(index, piece)])
    run.token("", chunk_position="last")


def v3(run: Run) -> None:
    """The same answer in the words of `on_stream_event`."""
    run.event("message-start", role="ai")
    pieces: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "reasoning", "reasoning": ""},
            [{"type": "reasoning-delta", "reasoning": t} for t in ("let ", "me see")],
        ),
        (
            {"type": "text", "text": ""},
            [{"type": "text-delta", "text": t} for t in ("It is ", "é")],
        ),
        (
            {"type": "tool_call_chunk", "id": "a", "name": "weather", "args": ""},
            [{"type": "tool-call-delta", "args": t} for t in ('{"city":', ' "Oslo"}')],
        ),
        (
            {"type": "tool_call_chunk", "id": "b", "name": "weather", "args": ""},
            [{"type": "tool-call-delta", "args": "{}"}],
        ),
    ]
    for index, (start, deltas) in enumerate(pieces):
        run.event("content-block-start", index=index, content=start)
        for delta in deltas:
            run.event("content-block-delta", index=index, delta=delta)
        run.event("content-block-finish", index=index, content={"type": "text", "text": "all"})
    run.event("message-finish", usage={"input_tokens": 1})


def both(run: Run) -> None:
    """Each token by one hook and then by the other, as most integrations do for v3."""

    class Echo(Run):
        def __init__(self) -> None:
            self.tokens: list[Callable[[], None]] = []

        def token(self, *args: Any, **kwargs: Any) -> None:
            self.tokens.append(lambda: run.token(*args, **kwargs))

    tokens = Echo()
    v1(tokens)
    events = Echo()
    events.event = lambda *a, **k: events.tokens.append(lambda: run.event(*a, **k))  # type: ignore[method-assign]
    v3(events)
    queue = iter(tokens.tokens)
    for event in events.tokens:
        for token in queue:
            token()
            break
        event()
    for token in queue:
        token()


@pytest.mark.parametrize("way", [v1, v3, both])
def test_both_ways_to_stream_give_the_same(way: Callable[[Run], None]) -> None:
    """The same text, reasoning, tool calls, events and counts, and those of the final message."""
    heard = Heard()
    run = Run(heard.handler)
    way(run)
    final = [
        {"type": "thinking", "thinking": "let me see"},
        {"type": "text", "text": "It is é"},
        {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Oslo"}},
    ]
    weather: list[Any] = [
        {"id": "a", "name": "weather", "args": {"city": "Oslo"}},
        {"id": "b", "name": "weather", "args": {}},
    ]
    run.end(final, tool_calls=weather, response_metadata={"stop_reason": "tool_use"})
    (result,) = heard.results
    assert result.text == "It is é" == "".join(heard.texts)
    assert result.reasoning == "let me see"
    assert [json.loads(made.args) for made in result.tool_calls] == [{"city": "Oslo"}, {}]
    assert [(made.id, made.name) for made in result.tool_calls] == [
        ("a", "weather"),
        ("b", "weather"),
    ]
    assert (result.mismatches, result.events, result.finish_reason) == ((), 9, "tool_use")
    assert heard.said == [
        ("reasoning", "let "),
        ("reasoning", "me see"),
        ("text", "It is "),
        ("text", "é"),
        ("tool_call", ""),
        ("tool_call", '{"city":'),
        ("tool_call", ' "Oslo"}'),
        ("tool_call", ""),
        ("tool_call", "{}"),
    ]
    assert [event.call for event in heard.events] == [None] * 4 + [0, 0, 0, 1, 1]
    assert [event.name for event in heard.events if event.name] == ["weather", "weather"]
    snapshot = heard.handler.snapshot()
    assert (snapshot.totals.token_events, snapshot.totals.streamed) == (9, 1)
    assert not lost(heard.handler)


def test_tool_calls_of_the_provider_are_output_and_nobodys_call() -> None:
    """A web search that runs at the provider counts as a token and is not told as a call."""
    heard = Heard()
    first = Run(heard.handler)
    first.event(
        "content-block-start",
        index=0,
        content={"type": "server_tool_call_chunk", "id": "s", "name": "search", "args": ""},
    )
    first.event("content-block-delta", index=0, delta={"type": "tool-call-delta", "args": "{}"})
    second = Run(heard.handler)
    second.token(
        [{"type": "server_tool_use", "id": "s", "name": "search", "input": {}, "index": 0}]
    )
    second.token([{"type": "input_json_delta", "partial_json": "{}", "index": 0}])
    for run in (first, second):
        run.token("done")
        run.end("done")
    assert [event.text for event in heard.events] == ["done", "done"]
    assert [(r.tool_calls, r.mismatches) for r in heard.results] == [((), ()), ((), ())]
    assert heard.handler.snapshot().totals.token_events == 6


def test_tool_calls_are_told_apart_as_langchain_does() -> None:
    """By index; by id where the index is the same; whole ones without an index are one each."""
    heard = Heard(collect=True)
    run = Run(heard.handler)
    run.token("", tool_call_chunks=[call(0, "{}", "f", "1")])
    run.token("", tool_call_chunks=[call(0, "{}", "g", "2")])
    run.token("", tool_call_chunks=[call(None, '{"a":1', "h", "3"), call(None, "}")])
    for piece in (call("lc_1", "{", "i", "4"), call("lc_1", "}")):
        run.handler.on_llm_new_token([piece], run_id=run.run_id)
    run.fail(ValueError())
    (failure,) = heard.failures
    assert [(made.name, made.args) for made in failure.tool_calls] == [
        ("f", "{}"),
        ("g", "{}"),
        ("h", '{"a":1}'),
        ("i", "{}"),
    ]


def test_a_snapshot_of_arguments_replaces_what_was_there() -> None:
    """Some native v3 producers send a call's arguments whole each time."""
    heard = Heard()
    run = Run(heard.handler)
    for args in ("{", '{"a"', '{"a": 1}'):
        fields = {"type": "tool_call_chunk", "id": "1", "name": "f", "args": args}
        run.event("content-block-delta", index=0, delta={"type": "block-delta", "fields": fields})
    run.end("", tool_calls=[{"id": "1", "name": "f", "args": {"a": 1}}])
    assert heard.results[0].tool_calls == (ToolCall("1", "f", '{"a": 1}'),)
    assert heard.results[0].mismatches == ()


def test_arguments_that_never_streamed_come_from_the_final_message() -> None:
    """A self-contained v3 tool call has only its name at its start."""
    heard = Heard()
    run = Run(heard.handler)
    start = {"type": "tool_call", "id": "1", "name": "f", "args": {}}
    run.event("content-block-start", index=0, content=start)
    run.end("", tool_calls=[{"id": "1", "name": "f", "args": {"a": 1}}])
    assert heard.results[0].tool_calls == (ToolCall("1", "f", '{"a": 1}'),)


@pytest.mark.parametrize(
    ("final", "kinds"),
    [
        ({"content": "ab"}, ()),
        ({"content": [{"type": "text", "text": "a"}, "b"]}, ()),
        ({"content": "other"}, ("text",)),
        ({"content": "ab", "tool_calls": [{"id": "1", "name": "f", "args": {}}]}, ("tool_calls",)),
        (
            {
                "content": "ab",
                "usage_metadata": {"input_tokens": 5, "output_tokens": 0, "total_tokens": 5},
            },
            ("usage",),
        ),
        (
            {
                "content": "ab",
                "usage_metadata": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
            },
            (),
        ),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_the_final_message_is_held_to_the_pieces(
    final: dict[str, Any],
    kinds: tuple[str, ...],
    listening: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What differs is counted each time and logged once a kind, with nothing of what was said."""
    results: list[StreamResult] = []
    handler = StreamingCallback(collect=True, on_complete=results.append if listening else None)
    with caplog.at_level(logging.WARNING, logger="langmeter"):
        for _ in range(3):
            run = Run(handler)
            run.token("a")
            run.token("b")
            run.end(**final)
    assert [result.mismatches for result in results] == [kinds] * 3 * listening
    dropped = lost(handler)
    assert sum(dropped.values()) == 3 * len(kinds), dropped
    said = [record.getMessage() for record in caplog.records if "differs" in record.getMessage()]
    assert [kind in text for kind, text in zip(kinds, said, strict=True)] == [True] * len(kinds)
    assert handler._streams._open == (0, 0)
    assert handler.snapshot().totals.outcomes["ok"] == 3


def test_broken_arguments_are_compared_as_they_are() -> None:
    """LangChain hands on arguments that are not JSON as an invalid tool call."""
    heard = Heard()
    run = Run(heard.handler)
    run.token("", tool_call_chunks=[call(0, '{"a', "f", "1")])
    broken: Any = {
        "id": "1",
        "name": "f",
        "args": '{"a',
        "error": None,
        "type": "invalid_tool_call",
    }
    run.end("", invalid_tool_calls=[broken])
    old = Run(heard.handler)
    old.token("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    old.end("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    assert [result.mismatches for result in heard.results] == [(), ()]


def test_an_answer_has_its_tokens_price_and_times(prices: Any) -> None:
    """By the final usage and the price book, on the recorder's clock."""
    clock = ManualClock()
    results: list[StreamResult] = []
    meter = Meter(on_complete=results.append, prices=prices, clock=clock)
    run = Run(meter)
    for text in ("a", "b"):
        clock.advance(0.5)
        run.token(text)
    clock.advance(1.0)
    usage: Any = {"input_tokens": 1_000_000, "output_tokens": 100_000, "total_tokens": 1_100_000}
    run.end(
        "ab",
        usage_metadata=usage,
        response_metadata={"model_name": "fake-1", "finish_reason": "stop"},
    )
    (result,) = results
    assert (result.provider, result.model, result.finish_reason) == ("p", "fake-1", "stop")
    assert (result.run_id, result.text, result.events) == (run.run_id, "ab", 2)
    assert (result.time_to_first_token, result.elapsed) == (0.5, 2.0)
    assert result.tokens is not None
    assert (result.tokens.input, result.tokens.output, result.estimated) == (
        1_000_000,
        100_000,
        False,
    )
    assert result.cost is None  # the prices of provider p are unknown
    assert "text=" not in repr(result)


def test_a_broken_stream_keeps_what_had_come(prices: Any) -> None:
    """Class and status of the cause, text, estimated tokens and their price; v1 and v3 alike."""

    class ReadError(Exception):
        pass

    for hand_over in (True, False):
        failures: list[StreamFailure] = []
        meter = Meter(on_error=failures.append, prices=prices)
        run_id = uuid.uuid4()
        metadata = {"ls_provider": "genericfakechatmodel", "ls_model_name": "fake-1"}
        meter.on_chat_model_start({}, [["hello"]], run_id=run_id, metadata=metadata, batch_size=1)  # type: ignore[list-item]
        for text in ("one ", "two ", "three"):
            meter.on_llm_new_token(text, run_id=run_id)
        generation = ChatGenerationChunk(message=AIMessageChunk(content="one two three"))
        response = LLMResult(generations=[[generation]] if hand_over else [])
        meter.on_llm_error(ReadError("cut"), run_id=run_id, response=response)
        (failure,) = failures
        assert (failure.outcome, failure.error, failure.status) == ("error", "ReadError", None)
        assert (failure.text, failure.events, failure.run_id) == ("one two three", 3, run_id)
        assert failure.tokens is not None
        assert failure.estimated
        assert failure.tokens.output == 3
        assert failure.cost is not None
        assert meter.snapshot().totals.cost == failure.cost
        assert meter.streaming.failures == (failure,)
        assert "text=" not in repr(failure)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (type("E", (Exception,), {"status_code": 429})(), 429),
        (type("E", (Exception,), {"response": type("R", (), {"status_code": 500})})(), 500),
        (type("E", (Exception,), {"code": 503})(), 503),
        (
            type("E", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 424}}})(),
            424,
        ),
        (type("E", (Exception,), {"response": {}})(), None),
        (type("E", (Exception,), {"code": "invalid_api_key"})(), None),
        (type("E", (Exception,), {"code": 7})(), None),
        (ValueError(), None),
    ],
)
def test_the_status_is_where_clients_put_it(error: BaseException, status: int | None) -> None:
    """On the exception, on its response, or as its code; nothing else is taken for one."""
    assert status_of(error) == status


def test_a_refusal_in_the_middle_is_no_spend_and_says_what_had_come() -> None:
    """A server that says it failed charges nothing; the estimate is in the failure alone."""

    class OverloadedError(Exception):
        status_code = 529

    heard = Heard()
    run = Run(heard.handler)
    run.token("one ")
    run.token("two")
    run.fail(OverloadedError(), LLMResult(generations=[]))
    (failure,) = heard.failures
    assert (failure.status, failure.text, failure.cost) == (529, "one two", None)
    assert failure.tokens is not None
    assert failure.tokens.output == 2
    assert heard.handler.snapshot().totals.tokens.total == 0


def test_a_call_that_fails_before_its_first_token_is_told_too() -> None:
    """Whether it would have streamed is unknown; an answer given at once is not a stream."""
    heard = Heard()
    Run(heard.handler).fail(TimeoutError())
    Run(heard.handler).end("all at once")
    (failure,) = heard.failures
    assert (failure.events, failure.text, failure.time_to_first_token) == (0, "", None)
    assert failure.error == "TimeoutError"
    assert heard.results == []


def test_abandoned_streams_are_told_and_do_not_leak() -> None:
    """When the recorder gives them up: at a snapshot, or as the streams in flight have doubled."""
    clock = ManualClock()
    heard = Heard(clock=clock, max_run_age=10)
    for _ in range(20):
        Run(heard.handler).token("x" * 100)
    assert heard.handler._streams._open == (20, 2000)
    clock.advance(11)
    assert heard.handler.snapshot().totals.outcomes["abandoned"] == 20
    assert heard.handler._streams._open == (0, 0)
    assert [(f.outcome, f.error, len(f.text)) for f in heard.failures] == [
        ("abandoned", "", 100)
    ] * 20
    # They get no end event: `max_runs` bounds the recorder, and that bounds the streams.
    handler = StreamingCallback(collect=True, max_runs=100)
    for _ in range(20_000):
        Run(handler).token("y")
    assert handler._streams._open[0] <= 1100


def test_text_is_bounded_in_a_stream_and_in_all() -> None:
    """Cut at a whole character and counted in bytes; the stalest streams are let go of first."""
    handler = StreamingCallback(collect=Collect(max_stream_bytes=10, max_bytes=100))
    run = Run(handler)
    for text in ("12345678", "éé", "9"):
        run.token(text)
    assert handler.partial(run.run_id) == "12345678é"
    assert lost(handler) == {"stream_text_cut": 3}
    run.end("12345678éé9")
    assert lost(handler) == {"stream_text_cut": 3}  # what was cut is compared with nothing

    handler = StreamingCallback(collect=Collect(max_stream_bytes=50, max_bytes=100))
    runs = [Run(handler) for _ in range(10)]
    for run in runs[::-1]:
        run.token("0123456789")
    assert sum(lost(handler).values()) == 0
    runs[9].token("!")  # 101 bytes; the stalest but one, as it has just spoken
    kept = [bool(handler.partial(run.run_id)) for run in runs]
    assert kept == [True] * 6 + [False] * 3 + [True]
    assert lost(handler) == {"stream_text_cut": 30}
    runs[8].token("more")
    assert handler.partial(runs[8].run_id) == ""  # with its beginning gone it would mislead
    calls = [call(n, "{}", "f", str(n)) for n in range(3000)]
    runs[0].token("", tool_call_chunks=calls)
    assert handler._streams._open[1] <= 100


def test_a_failure_that_is_kept_is_bounded_too() -> None:
    """At most 64 failures and 8 million characters."""
    handler = StreamingCallback(collect=Collect(max_stream_bytes=1 << 20))
    for n in range(100):
        run = Run(handler)
        run.token(f"{n}")
        run.fail(ValueError())
    assert [failure.text for failure in handler.failures] == [str(n) for n in range(36, 100)]
    for _ in range(20):
        run = Run(handler)
        run.token("x" * (1 << 20))
        run.fail(ValueError())
    assert sum(len(failure.text) for failure in handler.failures) <= 1 << 23


def test_nothing_is_kept_unless_asked_for() -> None:
    """Without `collect` no text stays, whoever listens to events."""
    events: list[StreamEvent] = []
    failures: list[StreamFailure] = []
    handler = StreamingCallback(on_event=events.append, on_error=failures.append, collect=False)
    run = Run(handler)
    run.token("secret")
    run.token("", tool_call_chunks=[call(0, "{}", "f", "1")])
    assert handler._streams._open[1] == 0
    assert handler.partial(run.run_id) == ""
    run.fail(ValueError())
    assert (failures[0].text, failures[0].tool_calls, failures[0].cut) == ("", (), False)
    assert (failures[0].events, handler.failures) == (2, ())
    silent = StreamingCallback()
    Run(silent).token("secret")
    assert silent._streams._open == (0, 0)
    assert not lost(handler)


def test_streams_that_were_only_listened_to_leave_nothing() -> None:
    """An `on_event` alone waits for no end, and its streams are forgotten at it all the same."""
    handler = StreamingCallback(on_event=lambda event: None)
    run = Run(handler)
    run.token("a")
    assert handler._streams._open[0] == 1
    run.end("a")
    assert handler._streams._open == (0, 0)


def test_2000_interleaved_streams_do_not_mix() -> None:
    """Eight threads, each with 250 streams in random order: every text is its own."""
    results: list[StreamResult] = []
    handler = StreamingCallback(collect=True, on_complete=results.append)
    said: dict[uuid.UUID, str] = {}

    def work(seed: int) -> None:
        shuffle = random.Random(seed)
        runs = [Run(handler) for _ in range(250)]
        todo = [(run, n) for run in runs for n in range(20)]
        left = {run.run_id: 20 for run in runs}
        shuffle.shuffle(todo)
        for run, n in todo:
            text = f"{run.run_id.hex[:6]}-{n} "
            said[run.run_id] = said.get(run.run_id, "") + text
            run.token(text)
            left[run.run_id] -= 1
            if not left[run.run_id]:
                run.end(said[run.run_id])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {result.run_id: result.text for result in results} == said
    assert len(results) == 2000
    assert {result.mismatches for result in results} == {()}
    assert handler._streams._open == (0, 0)
    assert not lost(handler)


@pytest.mark.slow
def test_10000_streams_of_100_tokens_are_exact() -> None:
    """All in flight at once; counts, texts and memory come out even."""
    handler = StreamingCallback(collect=True)
    runs = [Run(handler) for _ in range(10_000)]
    for n in range(100):
        text = f"{n:03d}"
        for run in runs:
            handler.on_llm_new_token(text, run_id=run.run_id)
    assert handler._streams._open == (10_000, 3_000_000)
    whole = "".join(f"{n:03d}" for n in range(100))
    assert handler.partial(runs[7].run_id) == whole
    for run in runs:
        run.end(whole)
    totals = handler.snapshot().totals
    assert (totals.token_events, totals.streamed, totals.outcomes["ok"]) == (
        1_000_000,
        10_000,
        10_000,
    )
    assert handler._streams._open == (0, 0)
    assert not lost(handler)


def test_parts_of_a_composite_share_their_listeners() -> None:
    """Each part's listeners hear every stream, and a part answers for the whole."""
    first, second = Heard(collect=Collect(max_stream_bytes=100)), Heard(collect=True)
    plain = StreamingCallback()
    feed = second.handler.events()
    composite = CompositeCallback([first.handler, TokenCountingCallback(), second.handler, plain])
    run = Run(composite)
    run.token("hi")
    assert [part.partial(run.run_id) for part in (first.handler, second.handler, plain)] == [
        "hi"
    ] * 3
    run.end("hi")
    for heard in (first, second):
        assert heard.texts == ["hi"]
        assert [event.text for event in heard.events] == ["hi"]
        assert [result.text for result in heard.results] == ["hi"]
    assert composite._services.streams is not None
    assert composite._services.streams.max_stream_bytes == 1 << 20
    second.handler.close()
    assert [event.text for event in feed] == ["hi"]
    # A part in the place of its composite has the same streams.
    alone = Run(second.handler)
    alone.token("a")
    alone.end("a")
    assert first.texts == second.texts == ["hi", "a"]


def test_a_meter_hands_its_listeners_on() -> None:
    """Every keyword of streams reaches `meter.streaming`."""
    heard: list[Any] = []
    meter = Meter(
        on_token_callback=heard.append,
        on_event=heard.append,
        on_complete=heard.append,
        on_error=heard.append,
        collect=True,
        delivery="queued",
    )
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    Run(meter).fail(ValueError())
    assert meter.streaming.flush()
    kinds = [type(what).__name__ for what in heard]
    assert kinds == ["StreamEvent", "str"] * 5 + ["StreamResult", "StreamFailure"]


@pytest.mark.parametrize("version", ["v1", pytest.param("v3", marks=needs_stream_events)])
def test_langchains_own_fakes(version: str) -> None:
    """A model that reports no tokens by itself, in both ways to stream."""
    heard = Heard()
    model = FakeListChatModel(responses=["abc"])
    config: Any = {"callbacks": [heard.handler]}
    if version == "v1":
        list(model.stream("hi", config=config))
    else:
        list(model.stream_events("hi", config=config, version="v3"))
    (result,) = heard.results
    assert (result.text, result.events, result.mismatches) == ("abc", 3, ())
    assert result.estimated
    assert heard.texts == ["a", "b", "c"]


class Words(LLM):
    """A text completion model that streams."""

    @property
    def _llm_type(self) -> str:
        return "words"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return prompt

    def _stream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        for word in prompt.split():
            run_manager.on_llm_new_token(word, chunk=GenerationChunk(text=word))
            yield GenerationChunk(text=word)


def test_a_text_completion_is_a_stream_like_any_other() -> None:
    """It has no message; its text is held to the pieces all the same."""
    heard = Heard()
    chain = PromptTemplate.from_template("{x}") | Words()
    list(chain.stream({"x": "a b c"}, config={"callbacks": [heard.handler]}))
    (result,) = heard.results
    assert (result.text, result.mismatches, result.events) == ("abc", (), 3)


def test_wrong_values_are_refused_at_once() -> None:
    """With the value, the range and the remedy."""
    later: Any = 5
    for wrong, match in (
        (
            {"on_event": "print"},
            "on_event must be a function of one argument, or None, got",
        ),
        ({"collect": "yes"}, "collect must be True, False or a Collect .*, got 'yes'"),
        ({"delivery": "soon"}, "delivery must be 'inline', 'queued' or a Queued .*, got 'soon'"),
        ({"max_failures": 0}, "max_failures must be a whole number from 1 up, got 0"),
        ({"max_serie": 5}, "unknown setting max_serie = 5; did you mean 'max_series'"),
    ):
        with pytest.raises(ConfigError, match=match):
            StreamingCallback(**wrong)
    bounds: dict[str, Any]
    for bounds in ({"max_bytes": 0}, {"max_stream_bytes": 1.5}):
        with pytest.raises(ConfigError, match="must be a whole number from 1 to"):
            Collect(**bounds)
    with pytest.raises(ConfigError, match="queue_size must be"):
        StreamingCallback().events(queue_size=0)
    assert later


def test_a_message_that_raises_when_looked_at_ends_its_run() -> None:
    """Whatever its answer is, a call that ended is counted, and its stream forgotten."""

    class Odd:
        generations = [[object()]]  # noqa: RUF012

        @property
        def message(self) -> Any:
            raise ValueError("look away")

    handler = StreamingCallback(collect=True)
    for answer in (Odd(), Odd.generations[0][0], None):
        run = Run(handler)
        run.token("a")
        response: Any = LLMResult(generations=[]) if answer is None else Odd()
        if isinstance(answer, Odd):
            response.generations = [[answer]]
        handler.on_llm_end(response, run_id=run.run_id)
    assert handler.snapshot().totals.outcomes["ok"] == 3
    assert handler._streams._open == (0, 0)


def test_an_end_that_never_began_here_is_tolerated() -> None:
    """LangChain may drop a start: no stream, nothing kept, the recorder counts it."""
    heard = Heard()
    run = Run(TokenCountingCallback())
    run.handler = heard.handler
    run.token("stray")
    run.end("stray")
    run.fail(ValueError())
    assert (heard.said, heard.results) == ([], [])
    assert heard.handler._streams._open == (0, 0)


def test_surrogates_neither_fail_nor_mismatch() -> None:
    """A lone half of a character, which is not UTF-8, is shown as the replacement character."""
    handler = StreamingCallback(collect=True)
    run = Run(handler)
    run.token("a\ud83d")
    assert handler.partial(run.run_id).startswith("a\ufffd")
    run.end("a\ud83d")
    assert not lost(handler)


def test_a_handler_is_collected_with_its_listeners() -> None:
    """A listener that refers to its handler does not leak."""

    class Page:
        def __init__(self) -> None:
            self.handler = StreamingCallback(self.show, on_event=self.show)

        def show(self, what: Any) -> None: ...

    page = Page()
    run = Run(page.handler)
    run.token("a")
    gone = weakref.ref(page), weakref.ref(page.handler._streams)
    del page, run
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_no_streams_of_its_parent() -> None:
    """It forgets them, and its queue has a worker of its own."""
    texts: list[str] = []
    handler = StreamingCallback(texts.append, collect=True, delivery="queued")
    run = Run(handler)
    run.token("parent")
    assert handler.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        before = handler._streams._open[0], handler.partial(run.run_id)
        child = Run(handler)
        child.token("child")
        told = handler.flush()
        os.write(write, repr((before, told, texts, handler.partial(child.run_id))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000).decode() == "((0, ''), True, ['parent', 'child'], 'child')"
    os.close(read)
    os.close(write)
    assert handler.partial(run.run_id) == "parent"
