"""OpenAI's embeddings: POST /v1/embeddings, and Azure's path for the same.

The vector of a text is its number of characters and 1.0, so that a client can tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..reply import Reply
from ..traffic import Request
from .common import Event, openai_error

error = openai_error


def parse(body: Mapping[str, Any], path: str) -> Request:
    """Return what a request wants; Azure names the model in the path.

    Raises:
        ValueError: `input` is not a text, a list of texts or lists of tokens.
    """
    texts = _texts(body)
    if not all(isinstance(text, str | list) for text in texts):
        raise ValueError("input must be a text, a list of texts or of lists of tokens")
    tokens = sum(len(text.split() if isinstance(text, str) else text) for text in texts)
    return Request(model=body.get("model") or path, prompt=tokens, body=body, n=0)


def whole(reply: Reply, request: Request) -> dict[str, Any]:
    """Return the vectors and the usage."""
    data = [
        {"object": "embedding", "index": index, "embedding": [float(len(text)), 1.0]}
        for index, text in enumerate(_texts(request.body))
    ]
    usage = {"prompt_tokens": reply.input, "total_tokens": reply.input}
    model = reply.model or request.dated
    return {"object": "list", "model": model, "data": data, "usage": usage}


def events(reply: Reply, request: Request) -> Iterator[Event]:
    """Yield nothing: embeddings are never streamed."""
    yield from ()


def error_event(message: str) -> bytes:
    """Return nothing: embeddings are never streamed."""
    return b""


def _texts(body: Mapping[str, Any]) -> list[Any]:
    given = body.get("input")
    return given if isinstance(given, list) else [given]
