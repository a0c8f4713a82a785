"""As much of HTTP/1.1 as an OpenAI client speaks: read a request, frame a response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

LARGEST: Final = 64 << 20  # bytes of a request

#: The head of a stream of server-sent events; what follows is framed by `chunk`.
STREAM: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Request(NamedTuple):
    """One request as read: header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


async def read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None when the client has left.

    Raises:
        ValueError: it is no HTTP/1.1 request with a length.
        asyncio.IncompleteReadError: the client left in the middle of it.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    except asyncio.LimitOverrunError as error:
        raise ValueError("the head of the request is too long") from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    if "transfer-encoding" in headers:
        raise ValueError("send the request with a content-length")
    length = int(headers.get("content-length", 0))
    if not 0 <= length <= LARGEST:
        raise ValueError(f"content-length {length} is not within 0 and {LARGEST}")
    return Request(method, path, headers, await reader.readexactly(length))


def response(status: int, data: object, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole response with a JSON body."""
    body = json.dumps(data, separators=(",", ":")).encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "content-type: application/json"]
    lines += (f"{name}: {value}" for name, value in (headers or {}).items())
    lines += (f"content-length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


def error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> bytes:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return response(status, body, headers)


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event in a chunk of its own."""
    return chunk(b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)
