"""Parts of every format: events, the text of prompts, errors in OpenAI's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from ..reply import Part, Reply
from ..traffic import LONGEST

_CODES: Final = {429: "rate_limit_exceeded", 404: "not_found"}


class Event(NamedTuple):
    """One server-sent event.

    Args:
        data: its bytes.
        piece: whether it carries a piece of an answer, which counts as one token.
        last: whether it belongs to those that end the reply, the first of which has the usage.
    """

    data: bytes
    piece: bool = False
    last: bool = False


def sse(data: Mapping[str, Any], name: str = "") -> bytes:
    """Return a server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def pieces(reply: Reply) -> Iterator[tuple[int, int, Part, str]]:
    """Yield (choice, part number, part, piece) of every piece, the choices in turn."""
    each = (
        [
            (index, number, part, piece)
            for number, part in enumerate(choice.parts)
            for piece in part.pieces
        ]
        for index, choice in enumerate(reply.choices)
    )
    for row in zip_longest(*each):
        yield from filter(None, row)


def prompt_tokens(*contents: Any) -> int:
    """Return the tokens of a prompt as billed here: its words, 4 a message and 3 for the whole.

    Args:
        *contents: system prompts, messages and lists of messages; None and "" count as absent.
    """
    messages = [
        message
        for content in contents
        if content
        for message in (content if isinstance(content, list) else [content])
    ]
    return sum(map(_words, messages)) + 4 * len(messages) + 3


def _words(content: Any) -> int:
    """Return the number of words in a text, and in the texts inside messages and parts."""
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        return sum(map(_words, content))
    if isinstance(content, Mapping):
        return sum(_words(content.get(key)) for key in ("text", "content", "parts"))
    return 0


def objects(body: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list of objects from a request.

    Raises:
        ValueError: it is not one.
    """
    value = body.get(key)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{key} must be a list of objects")
    return value


def limit(value: Any) -> Any:
    """Return a requested limit of output tokens, at most `LONGEST`; None and 0 set none."""
    return min(value or LONGEST, LONGEST) if isinstance(value, int | None) else value


def openai_error(status: int, message: str) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    code = _CODES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": code, "param": None, "code": code}}
