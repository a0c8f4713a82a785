"""Streams of real clients over loopback: the oracle is what we serve."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI

from langmeter import Meter
from langmeter.streaming import StreamEvent, StreamFailure, StreamResult, ToolCall

TEXT = ["It ", "is é", "!"]
THOUGHT = ["let me ", "see"]
ARGS = ['{"city":', ' "Oslo"}']
CALLS = (ToolCall("call_1", "weather", "".join(ARGS)),)


def lost(handler: Any) -> dict[str, int]:
    """What was dropped; a run without a provider is so fast that its figures may be clamped."""
    return {k: n for k, n in handler.snapshot().dropped.items() if k != "clamped"}


def sse(events: list[dict[str, Any]], named: bool) -> list[bytes]:
    """Server-sent events, each a piece that is sent by itself."""
    return [
        (f"event: {event['type']}\n" if named else "").encode()
        + b"data: "
        + json.dumps(event).encode()
        + b"\n\n"
        for event in events
    ]


def openai_chat() -> list[bytes]:
    """Reasoning is DeepSeek's word, which ChatOpenAI does not read; the rest is OpenAI's."""
    tool = {"index": 0, "id": "call_1", "type": "function"}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        *({"content": text} for text in TEXT),
        {"tool_calls": [{**tool, "function": {"name": "weather", "arguments": ""}}]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ARGS),
    ]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-dated"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    usage = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    chunks.append({**head, "choices": [], "usage": usage})
    return [*sse(chunks, named=False), b"data: [DONE]\n\n"]


def openai_responses() -> list[bytes]:
    reasoning = {"id": "rs_1", "type": "reasoning", "summary": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
    call: dict[str, Any] = {"id": "fc_1", "type": "function_call", "call_id": "call_1"}
    call |= {"name": "weather", "arguments": "", "status": "in_progress"}
    part = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    text = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-dated",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "in_progress",
    }
    summary = {"type": "summary_text", "text": "".join(THOUGHT)}
    said = {"type": "output_text", "text": "".join(TEXT), "annotations": []}
    done = [
        {**reasoning, "summary": [summary]},
        {**message, "status": "completed", "content": [said]},
        {**call, "arguments": "".join(ARGS), "status": "completed"},
    ]
    usage = {
        "input_tokens": 10,
        "output_tokens": 7,
        "total_tokens": 17,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    completed = {**response, "status": "completed", "output": done, "usage": usage}
    begun = {**part, "part": {"type": "summary_text", "text": ""}}
    empty = {"type": "output_text", "text": "", "annotations": []}
    added = "response.output_item.added"
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": added, "output_index": 0, "item": reasoning},
        {"type": "response.reasoning_summary_part.added", **begun},
        *({"type": "response.reasoning_summary_text.delta", **part, "delta": t} for t in THOUGHT),
        {"type": "response.output_item.done", "output_index": 0, "item": done[0]},
        {"type": added, "output_index": 1, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **text, "part": empty},
        *({"type": "response.output_text.delta", **text, "delta": t, "logprobs": []} for t in TEXT),
        {"type": "response.output_text.done", **text, "text": "".join(TEXT), "logprobs": []},
        {"type": "response.output_item.done", "output_index": 1, "item": done[1]},
        {"type": added, "output_index": 2, "item": call},
        *(
            {
                "type": "response.function_call_arguments.delta",
                "item_id": "fc_1",
                "output_index": 2,
                "delta": piece,
            }
            for piece in ARGS
        ),
        {"type": "response.output_item.done", "output_index": 2, "item": done[2]},
        {"type": "response.completed", "response": completed},
    ]
    return sse([{**event, "sequence_number": n} for n, event in enumerate(events)], named=True)


def anthropic() -> list[bytes]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-dated",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    tool = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                *({"type": "thinking_delta", "thinking": text} for text in THOUGHT),
                {"type": "signature_delta", "signature": "abc"},
            ],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in TEXT]),
        (tool, [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *ARGS)]),
    ]
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (start, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": "tool_use", "stop_sequence": None}
    usage = {"input_tokens": 10, "output_tokens": 7}
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    return sse([*events, {"type": "message_stop"}], named=True)


class Service:
    """Serves an answer piece by piece; may cut it, say an error, or stop half way."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.status = 200
        self.cut: int | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                with suppress(ConnectionError):
                    self.answer()

            def answer(self) -> None:
                self.send_response(service.status)
                if service.status != 200:
                    body = b'{"error": {"message": "no", "type": "overloaded_error"}}'
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for n, piece in enumerate(service.pieces):
                    if n == service.cut:
                        service.go_on.wait(60)
                        self.close_connection = True
                        return
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that leaves is part of the tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def chat(url: str, **more: Any) -> BaseChatModel:
    return ChatOpenAI(
        model="gpt-4o",
        base_url=f"{url}/v1",
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        stream_usage=True,
        **more,
    )


def responses(url: str, **more: Any) -> BaseChatModel:
    return chat(url, use_responses_api=True, output_version="responses/v1", **more)


def claude(url: str, **more: Any) -> BaseChatModel:
    return ChatAnthropic(
        model_name="claude-test",
        base_url=url,
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        max_tokens_to_sample=2048,
        thinking={"type": "enabled", "budget_tokens": 1024},
        **more,
    )


#: Client, what it is served, whether it reads reasoning.
APIS: dict[str, tuple[Callable[..., BaseChatModel], Callable[[], list[bytes]], bool]] = {
    "chat": (chat, openai_chat, False),
    "responses": (responses, openai_responses, True),
    "anthropic": (claude, anthropic, True),
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
        stream: Any = await model.astream_events(  # type: ignore[misc]
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
async def test_every_way_to_stream_tells_the_same(api: str, way: str, service: Service) -> None:
    """Text, reasoning, tool calls, the pieces and the counts; the final message agrees."""
    make, pieces, thinks = APIS[api]
    service.pieces = pieces()
    texts: list[str] = []
    events: list[StreamEvent] = []
    results: list[StreamResult] = []
    meter = Meter(
        on_token_callback=texts.append, on_event=events.append, on_complete=results.append
    )
    model = make(service.url, **({"streaming": True} if way == "invoke" else {}))
    await ways(model, way, {"callbacks": [meter]})
    (result,) = results
    assert texts == TEXT
    assert (result.text, result.tool_calls) == ("".join(TEXT), CALLS)
    assert result.reasoning == "".join(THOUGHT) * thinks
    assert result.mismatches == ()
    kinds = ["reasoning"] * 2 * thinks + ["text"] * 3 + ["tool_call"] * 3
    assert [event.kind for event in events] == kinds
    assert [event.text for event in events if event.kind == "tool_call"] == ["", *ARGS]
    assert result.tokens is not None
    assert (result.tokens.input, result.tokens.output, result.estimated) == (10, 7, False)
    assert result.model.endswith("-dated")
    snapshot = meter.snapshot()
    assert snapshot.totals.token_events == len(kinds) == result.events
    assert not lost(meter)
    assert snapshot.in_flight == 0


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("way", ["stream", "astream", "invoke", "v3", "av3"])
@pytest.mark.parametrize("api", APIS)
async def test_a_connection_that_breaks_leaves_what_had_come(
    api: str, way: str, service: Service
) -> None:
    """An error with the client's class, the text so far, and its tokens, marked as estimated."""
    make, pieces, _ = APIS[api]
    service.pieces = pieces()
    service.cut = next(n for n, piece in enumerate(service.pieces) if rb"is \u00e9" in piece) + 1
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    model = make(service.url, **({"streaming": True} if way == "invoke" else {}))
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
def test_a_refusal_has_its_status(api: str, service: Service) -> None:
    """Before the first token."""
    service.status = 529
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    with pytest.raises(Exception, match=r"no|529"):
        list(APIS[api][0](service.url).stream("hi", config={"callbacks": [meter]}))
    (failure,) = failures
    assert (failure.status, failure.text, failure.tokens) == (529, "", None)


@pytest.mark.parametrize("api", APIS)
def test_a_stream_that_is_left_is_cancelled(api: str, service: Service) -> None:
    """`break`: what had come is there, and the outcome is no error."""
    make, pieces, _ = APIS[api]
    service.pieces = pieces()
    failures: list[StreamFailure] = []
    meter = Meter(on_error=failures.append)
    stream = make(service.url).stream("hi", config={"callbacks": [meter]})
    while not meter.streaming._streams._open[1]:
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    (failure,) = failures
    assert (failure.outcome, failure.error) == ("cancelled", "GeneratorExit")
    assert failure.text or failure.reasoning
    assert meter.snapshot().totals.outcomes["cancelled"] == 1
