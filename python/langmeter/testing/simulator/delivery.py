"""The way of one reply to its client: head, pieces, faults, and what is counted as sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from .formats import Format
from .ground_truth import Sent, Tally
from .reply import Reply
from .traffic import Request

#: Seconds; a longer pause ends as soon as the client leaves. A sleep is cheaper, and there is one
#: for each token.
_LONG: Final = 0.1


class _GoneError(Exception):
    """The client has left."""


class Delivery:
    """One reply as an ASGI application.

    Args:
        reply: what to send; it is not refused.
        request: what the client requested.
        format: how it is written.
        tally: where it is counted.
    """

    def __init__(self, reply: Reply, request: Request, format: Format, tally: Tally) -> None:
        self._reply = reply
        self._request = request
        self._format = format
        self._tally = tally
        self._pieces = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply, and count it once."""
        # uvicorn sends into nothing once the client has left: only `receive` says so.
        self._gone = asyncio.create_task(_gone(receive))
        try:
            await (self._stream(send) if self._request.streamed else self._whole(send))
        except _GoneError:
            self._count("disconnected")
        finally:
            self._gone.cancel()

    async def _whole(self, send: Send) -> None:
        """Send the reply in one piece, after the time that it takes to make."""
        reply = self._reply
        if reply.fault == "stall":
            await self._stall()
        await self._wait(sum(reply.delays))
        data = json.dumps(self._format.whole(reply, self._request), separators=(",", ":")).encode()
        head = {"content-type": "application/json", "content-length": str(len(data))}
        if reply.fault is not None:
            self._count("broken")
            await _begin(send, head)
            # An application that returns before its response is complete: the connection closes.
            await _send(send, data[: len(data) // 2])
            return
        # Counted before the bytes leave: a client that has the reply finds it in the truth.
        self._count("ok")
        await _begin(send, head)
        await _send(send, data, more=False)

    async def _stream(self, send: Send) -> None:
        """Send server-sent events; the time to the first piece is shared with the head."""
        reply, counted = self._reply, False
        if reply.fault == "stall" and not reply.cut:
            await self._stall()
        await _begin(send, {"content-type": "text/event-stream"})
        delays = iter(reply.delays)
        first = next(delays, 0.0) / 2
        await self._wait(first)
        for data, piece, last in self._format.events(reply, self._request):
            if reply.fault is not None and (last or (piece and self._pieces == reply.cut)):
                await self._fail(send)
                return
            if piece:
                await self._wait(next(delays, 0.0) if self._pieces else first)
                self._pieces += 1
            elif last and not counted:
                await self._wait(0.0)
                self._count("ok" if self._request.usage else "unreported")
                counted = True
            await _send(send, data)
        await _send(send, b"", more=False)

    async def _fail(self, send: Send) -> None:
        """End a stream by its fault."""
        fault = self._reply.fault
        if fault == "stall":
            await self._stall()
        self._count("broken")
        if fault == "error_event":
            await _send(send, self._format.error_event("The server had an error."), more=False)
        elif fault == "truncated":
            await _send(send, b"", more=False)

    async def _stall(self) -> None:
        """Send nothing more until the client gives up."""
        await self._gone
        raise _GoneError

    async def _wait(self, seconds: float) -> None:
        if seconds > _LONG:
            await asyncio.wait((self._gone,), timeout=seconds)
        elif seconds > 0:
            await asyncio.sleep(seconds)
        if self._gone.done():
            raise _GoneError

    def _count(self, outcome: str) -> None:
        reply, complete = self._reply, outcome in ("ok", "unreported")
        sent = Sent(
            calls=1,
            input=reply.input,
            output=reply.output if complete else self._pieces,
            cache_read=reply.cache_read if complete else 0,
            reasoning=reply.reasoning if complete else 0,
        )
        self._tally.add(reply.model or self._request.dated, outcome, sent)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _begin(send: Send, headers: Mapping[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _send(send: Send, data: bytes, *, more: bool = True) -> None:
    message: dict[str, Any] = {"type": "http.response.body", "body": data, "more_body": more}
    await send(message)
