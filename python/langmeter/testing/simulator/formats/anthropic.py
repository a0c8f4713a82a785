"""Anthropic's Messages: POST /v1/messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..reply import Choice, Part, Reply, Text, Thought
from ..traffic import Request
from .common import Event, limit, objects, prompt_tokens, sse

_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def parse(body: Mapping[str, Any], path: str) -> Request:
    """Return what a request wants."""
    return Request(
        model=body.get("model", ""),
        prompt=prompt_tokens(body.get("system"), objects(body, "messages")),
        body=body,
        limit=limit(body.get("max_tokens")),
        streamed=bool(body.get("stream")),
    )


def whole(reply: Reply, request: Request) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    (choice, *_) = reply.choices
    return {
        **_head(reply, request),
        "content": [_block(part, "".join(part.pieces)) for part in choice.parts],
        "stop_reason": _stop(choice),
        "stop_sequence": None,
        "usage": _usage(reply, reply.output),
    }


def events(reply: Reply, request: Request) -> Iterator[Event]:
    """Yield the events of a stream."""
    (choice, *_) = reply.choices
    begun: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(reply, 1),
    }
    message = {**_head(reply, request), **begun}
    yield Event(_event("message_start", message=message))
    for index, part in enumerate(choice.parts):
        yield Event(_event("content_block_start", index=index, content_block=_block(part, "")))
        kind, key = _delta(part)
        for piece in part.pieces:
            delta = {"type": kind, key: piece}
            yield Event(_event("content_block_delta", index=index, delta=delta), piece=True)
        if isinstance(part, Thought) and part.signature:
            signature = {"type": "signature_delta", "signature": part.signature}
            yield Event(_event("content_block_delta", index=index, delta=signature))
        yield Event(_event("content_block_stop", index=index))
    stop = {"stop_reason": _stop(choice), "stop_sequence": None}
    usage = _usage(reply, reply.output)
    yield Event(_event("message_delta", delta=stop, usage=usage), last=True)
    yield Event(_event("message_stop"), last=True)


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    kind = _KINDS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def error_event(message: str) -> bytes:
    """Return an error as an event of a stream."""
    return sse(error(529, message), "error")


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _head(reply: Reply, request: Request) -> dict[str, Any]:
    model = reply.model or request.dated
    return {"id": reply.id, "type": "message", "role": "assistant", "model": model}


def _block(part: Part, text: str) -> dict[str, Any]:
    """Return a block of the content; with "" as it is when it begins."""
    if isinstance(part, Text):
        return {"type": "text", "text": text}
    if isinstance(part, Thought):
        signature = part.signature if text else ""
        return {"type": "thinking", "thinking": text, "signature": signature}
    arguments = json.loads(text) if text else {}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}


def _delta(part: Part) -> tuple[str, str]:
    if isinstance(part, Text):
        return "text_delta", "text"
    if isinstance(part, Thought):
        return "thinking_delta", "thinking"
    return "input_json_delta", "partial_json"


def _stop(choice: Choice) -> str:
    if choice.finish == "length":
        return "max_tokens"
    return "tool_use" if choice.tools else "end_turn"


def _usage(reply: Reply, output: int) -> dict[str, int]:
    """Return usage: Anthropic's `input_tokens` leave out what came from the cache."""
    return {
        "input_tokens": reply.input - reply.cache_read,
        "cache_read_input_tokens": reply.cache_read,
        "cache_creation_input_tokens": 0,
        "output_tokens": output,
    }
