"""What counts as output: text, reasoning and tool calls, by both hooks alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.outputs import GenerationChunk

from langmeter.streaming import ToolCall
from tests.support.streamed import Heard, Run, call, lost

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
