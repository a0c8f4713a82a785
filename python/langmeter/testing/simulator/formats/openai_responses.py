"""OpenAI's Responses: POST /v1/responses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..reply import Part, Reply, Text, Thought
from ..traffic import Request
from .common import Event, limit, openai_error, prompt_tokens, sse

error = openai_error

#: Events of a part that comes in pieces: what opens it, each piece, what closes it.
_TEXT: Final = ("response.content_part", "response.output_text", "text")
_SUMMARY: Final = ("response.reasoning_summary_part", "response.reasoning_summary_text", "text")


def parse(body: Mapping[str, Any], path: str) -> Request:
    """Return what a request wants.

    Raises:
        ValueError: `input` is neither a text nor a list.
    """
    given = body.get("input")
    if not isinstance(given, str | list):
        raise ValueError("input must be a text or a list of items")
    return Request(
        model=body.get("model", ""),
        prompt=prompt_tokens(body.get("instructions"), given),
        body=body,
        limit=limit(body.get("max_output_tokens")),
        streamed=bool(body.get("stream")),
    )


def whole(reply: Reply, request: Request) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    (choice, *_) = reply.choices
    body = {
        **_head(reply, request),
        "status": "completed",
        "output": [_item(reply, number, part) for number, part in enumerate(choice.parts)],
        "usage": {
            "input_tokens": reply.input,
            "output_tokens": reply.output,
            "total_tokens": reply.input + reply.output,
            "input_tokens_details": {"cached_tokens": reply.cache_read},
            "output_tokens_details": {"reasoning_tokens": reply.reasoning},
        },
    }
    if choice.finish == "length":
        body |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return body


def events(reply: Reply, request: Request) -> Iterator[Event]:
    """Yield the events of a stream, numbered."""
    for number, (event, piece, last) in enumerate(_events(reply, request)):
        data = sse({**event, "sequence_number": number}, event["type"])
        yield Event(data, piece, last)


def error_event(message: str) -> bytes:
    """Return an error as an event of a stream."""
    event = {"type": "error", "code": "server_error", "message": message, "param": None}
    return sse({**event, "sequence_number": 0}, "error")


def _events(reply: Reply, request: Request) -> Iterator[tuple[dict[str, Any], bool, bool]]:
    begun = {**_head(reply, request), "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}, False, False
    (choice, *_) = reply.choices
    for number, part in enumerate(choice.parts):
        item = _item(reply, number, part)
        at = {"output_index": number, "item_id": item["id"]}
        added = "response.output_item.added"
        yield {"type": added, "output_index": number, "item": _empty(item)}, False, False
        if isinstance(part, Text | Thought):
            thought = isinstance(part, Thought)
            (whole_part,) = item["summary" if thought else "content"]
            at["summary_index" if thought else "content_index"] = 0
            about, of_text, key = _SUMMARY if thought else _TEXT
            yield {"type": f"{about}.added", **at, "part": {**whole_part, key: ""}}, False, False
            more: dict[str, Any] = {} if thought else {"logprobs": []}
            for piece in part.pieces:
                yield {"type": f"{of_text}.delta", **at, "delta": piece, **more}, True, False
            text = "".join(part.pieces)
            yield {"type": f"{of_text}.done", **at, "text": text, **more}, False, False
            yield {"type": f"{about}.done", **at, "part": whole_part}, False, False
        else:
            about = "response.function_call_arguments"
            # The item itself is the empty first piece with which the other formats begin.
            for piece in filter(None, part.pieces):
                yield {"type": f"{about}.delta", **at, "delta": piece}, True, False
            arguments = item["arguments"]
            yield {"type": f"{about}.done", **at, "arguments": arguments}, False, False
        done = "response.output_item.done"
        yield {"type": done, "output_index": number, "item": item}, False, False
    body = whole(reply, request)
    yield {"type": f"response.{body['status']}", "response": body}, False, True


def _head(reply: Reply, request: Request) -> dict[str, Any]:
    return {
        "id": reply.id,
        "object": "response",
        "created_at": int(time.time()),
        "model": reply.model or request.dated,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _item(reply: Reply, number: int, part: Part) -> dict[str, Any]:
    """Return an item of the output as it is when it is complete."""
    text = "".join(part.pieces)
    if isinstance(part, Text):
        said = {"type": "output_text", "text": text, "annotations": []}
        head = {"type": "message", "id": f"msg_{reply.id}_{number}", "role": "assistant"}
        return {**head, "status": "completed", "content": [said]}
    if isinstance(part, Thought):
        summary = [{"type": "summary_text", "text": text}]
        return {"type": "reasoning", "id": f"rs_{reply.id}_{number}", "summary": summary}
    return {
        "type": "function_call",
        "id": f"fc_{reply.id}_{number}",
        "call_id": part.id,
        "name": part.name,
        "arguments": text,
        "status": "completed",
    }


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item as it is when it is added."""
    empty: Mapping[str, Any] = {"content": [], "summary": [], "arguments": ""}
    begun = {key: empty.get(key, value) for key, value in item.items()}
    return begun | ({"status": "in_progress"} if "status" in item else {})
