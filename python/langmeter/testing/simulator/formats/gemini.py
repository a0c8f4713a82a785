"""Google's Gemini: POST /v1beta/models/NAME:generateContent and :streamGenerateContent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..reply import Choice, Part, Reply, Text, Thought
from ..traffic import Request
from .common import Event, limit, objects, pieces, prompt_tokens, sse

_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}


def parse(body: Mapping[str, Any], path: str) -> Request:
    """Return what a request wants; the path has the model and the method.

    Raises:
        ValueError: the method is neither generateContent nor streamGenerateContent.
    """
    model, _, method = path.rpartition(":")
    if method not in ("generateContent", "streamGenerateContent"):
        raise ValueError(f"method must generate content, got {method!r}")
    config = body.get("generationConfig") or {}
    return Request(
        model=model,
        prompt=prompt_tokens(body.get("systemInstruction"), objects(body, "contents")),
        body={**body, "model": model, "method": method},
        n=config.get("candidateCount") or 1,
        limit=limit(config.get("maxOutputTokens")),
        streamed=method == "streamGenerateContent",
    )


def whole(reply: Reply, request: Request) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    candidates = [
        _candidate(index, [_part(part, "".join(part.pieces)) for part in choice.parts], choice)
        for index, choice in enumerate(reply.choices)
    ]
    return _body(reply, request, candidates, usage=True)


def events(reply: Reply, request: Request) -> Iterator[Event]:
    """Yield the events of a stream; the arguments of a tool call come in one piece."""
    sent: set[tuple[int, int]] = set()
    for index, number, part, piece in pieces(reply):
        text = piece
        if not isinstance(part, Text | Thought):
            if (index, number) in sent:
                continue
            text = "".join(part.pieces)
        sent.add((index, number))
        candidate = _candidate(index, [_part(part, text)])
        yield Event(sse(_body(reply, request, [candidate])), piece=True)
    ends = [_candidate(i, [{"text": ""}], choice) for i, choice in enumerate(reply.choices)]
    yield Event(sse(_body(reply, request, ends, usage=True)), last=True)


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    name = _STATUS.get(status, "INTERNAL")
    return {"error": {"code": status, "message": message, "status": name}}


def error_event(message: str) -> bytes:
    """Return an error as an event of a stream."""
    return sse(error(500, message))


def _body(
    reply: Reply, request: Request, candidates: Sequence[Mapping[str, Any]], *, usage: bool = False
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "candidates": candidates,
        "modelVersion": reply.model or request.dated,
        "responseId": reply.id,
    }
    if usage:
        # Unlike OpenAI's, these tokens of the candidates leave out the reasoning.
        body["usageMetadata"] = {
            "promptTokenCount": reply.input,
            "cachedContentTokenCount": reply.cache_read,
            "candidatesTokenCount": reply.output - reply.reasoning,
            "thoughtsTokenCount": reply.reasoning,
            "totalTokenCount": reply.input + reply.output,
        }
    return body


def _candidate(
    index: int, parts: Sequence[Mapping[str, Any]], ended: Choice | None = None
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": index, "content": {"role": "model", "parts": parts}}
    if ended is not None:
        candidate["finishReason"] = "MAX_TOKENS" if ended.finish == "length" else "STOP"
    return candidate


def _part(part: Part, text: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": text}
    if isinstance(part, Thought):
        return {"text": text, "thought": True}
    call = {"id": part.id, "name": part.name, "args": json.loads(text or "{}")}
    return {"functionCall": call}
