"""OpenAI's Chat Completions: POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..reply import Choice, Reply, Text, ToolUse
from ..traffic import Request
from .common import Event, limit, objects, openai_error, pieces, prompt_tokens, sse

error = openai_error


def parse(body: Mapping[str, Any], path: str) -> Request:
    """Return what a request wants; Azure names the model in the path."""
    options = body.get("stream_options") or {}
    return Request(
        model=body.get("model") or path,
        prompt=prompt_tokens(objects(body, "messages")),
        body=body,
        n=body.get("n") or 1,
        limit=limit(body.get("max_completion_tokens") or body.get("max_tokens")),
        streamed=bool(body.get("stream")),
        usage=bool(options.get("include_usage")),
    )


def whole(reply: Reply, request: Request) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    choices = []
    for index, choice in enumerate(reply.choices):
        message: dict[str, Any] = {"role": "assistant", "content": _text(choice)}
        if choice.tools:
            message["tool_calls"] = [
                {
                    "id": part.id,
                    "type": "function",
                    "function": {"name": part.name, "arguments": "".join(part.pieces)},
                }
                for part in choice.parts
                if isinstance(part, ToolUse)
            ]
        finish = _finish(choice)
        choices.append(
            {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
        )
    head = _head(reply, request, "chat.completion")
    return {**head, "choices": choices, "usage": _usage(reply)}


def events(reply: Reply, request: Request) -> Iterator[Event]:
    """Yield the events of a stream: roles, pieces, reasons to finish, usage if requested."""
    head = _head(reply, request, "chat.completion.chunk")
    usage = {"usage": None} if request.usage else {}

    def chunk(index: int, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**head, "choices": [choice], **usage})

    # The roles come early and say nothing: a meter that takes them for tokens errs by half.
    for index in range(len(reply.choices)):
        yield Event(chunk(index, {"role": "assistant", "content": ""}))
    begun: set[tuple[int, int]] = set()
    for index, number, part, piece in pieces(reply):
        if isinstance(part, Text):
            yield Event(chunk(index, {"content": piece}), piece=True)
        elif isinstance(part, ToolUse):
            place = _tool_index(reply.choices[index], part)
            delta: dict[str, Any] = {"index": place, "function": {"arguments": piece}}
            if (index, number) not in begun:
                begun.add((index, number))
                delta |= {"id": part.id, "type": "function"}
                delta["function"] = {"name": part.name, "arguments": piece}
            yield Event(chunk(index, {"tool_calls": [delta]}), piece=True)
    for index, choice in enumerate(reply.choices):
        yield Event(chunk(index, {}, _finish(choice)), last=True)
    if request.usage:
        yield Event(sse({**head, "choices": [], "usage": _usage(reply)}), last=True)
    yield Event(b"data: [DONE]\n\n", last=True)


def error_event(message: str) -> bytes:
    """Return an error as an event of a stream."""
    return sse(error(500, message))


def _head(reply: Reply, request: Request, kind: str) -> dict[str, Any]:
    model = reply.model or request.dated
    return {"id": reply.id, "object": kind, "created": int(time.time()), "model": model}


def _text(choice: Choice) -> str:
    return "".join("".join(part.pieces) for part in choice.parts if isinstance(part, Text))


def _tool_index(choice: Choice, part: ToolUse) -> int:
    return [each for each in choice.parts if isinstance(each, ToolUse)].index(part)


def _finish(choice: Choice) -> str:
    return "tool_calls" if choice.tools and choice.finish == "stop" else choice.finish


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input,
        "completion_tokens": reply.output,
        "total_tokens": reply.input + reply.output,
        "prompt_tokens_details": {"cached_tokens": reply.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reply.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
