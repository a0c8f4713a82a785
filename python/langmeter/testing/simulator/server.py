"""The service on asyncio streams: connections, routes and the way of one reply to its client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from . import http1
from .ground_truth import Books, Sent
from .traffic import FAULTS, MODELS, Choice, Dice, Reply, Traffic

#: The answers repeat this; each word is billed as one token.
SENTENCE: Final = (
    "the service holds every stream open until its last token has left and then it says how "
    "many there were so that a meter on the other side can be checked against these books"
)
WORDS: Final = tuple(SENTENCE.split())


class Server:
    """Answers connections and keeps the books. Belongs to one event loop."""

    def __init__(self, traffic: Traffic) -> None:
        self.books = Books()
        self._dice = Dice(traffic)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request, until either side has enough of it."""
        try:
            while (request := await http1.read(reader)) is not None:
                if not await self._answer(request, reader, writer):
                    break
                await writer.drain()
        except ValueError as error:
            writer.write(self._refuse(str(error)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left between two replies: nothing was lost
        except asyncio.CancelledError:
            pass  # the service ends; Python 3.11's streams would log a traceback per connection
        finally:
            writer.close()

    async def _answer(
        self, request: http1.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False when the connection is of no more use."""
        route = f"{request.method} {request.path.partition('?')[0]}"
        if route == "GET /truth":
            writer.write(http1.response(200, self.books.truth().to_dict()))
        elif route == "GET /v1/models":
            models = [{"id": name, "object": "model", "owned_by": "langmeter"} for name in MODELS]
            writer.write(http1.response(200, {"object": "list", "data": models}))
        elif route == "POST /v1/chat/completions":
            return await self._complete(request, reader, writer)
        else:
            writer.write(http1.error(404, f"no such route: {route}", "not_found"))
        return True

    async def _complete(
        self, request: http1.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        force = request.headers.get("x-simulate")
        try:
            body = json.loads(request.body)
            if not isinstance(body, dict):
                raise ValueError("the body must be an object")
            if force not in (None, "ok", *FAULTS):
                raise ValueError(f"x-simulate is one of ok, {', '.join(FAULTS)}, not {force}")
            reply = self._dice.reply(body, force)
        except ValueError as error:
            writer.write(self._refuse(str(error)))
            return True
        if reply.fault == "rate_limited":
            self.books.write(reply.model, "rate_limited")
            wait = {
                "retry-after": f"{max(1, round(reply.retry_after))}",
                "retry-after-ms": f"{reply.retry_after * 1000:.3f}",
            }
            message = "Rate limit reached. Please try again later."
            writer.write(http1.error(429, message, "rate_limit_exceeded", wait))
            return True
        if reply.fault == "server_error":
            self.books.write(reply.model, "server_error")
            writer.write(http1.error(500, "The server had an error.", "server_error"))
            return True
        return await _Delivery(reply, body, reader, writer, self.books).run()

    def _refuse(self, why: str) -> bytes:
        self.books.write("", "invalid")
        return http1.error(400, why, "invalid_request_error")


class _Delivery:
    """One reply on its way out."""

    def __init__(
        self,
        reply: Reply,
        body: Mapping[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        books: Books,
    ) -> None:
        self._reply = reply
        self._streamed = bool(body.get("stream"))
        self._usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._reader = reader
        self._writer = writer
        self._books = books
        self._sent = 0  # visible tokens
        kind = "chat.completion.chunk" if self._streamed else "chat.completion"
        self._head = {
            "id": reply.id,
            "object": kind,
            "created": int(time.time()),
            "model": reply.model,
        }

    async def run(self) -> bool:
        """Deliver; False when the connection is of no more use."""
        try:
            await (self._stream() if self._streamed else self._whole())
        except ConnectionResetError:
            self._close("disconnected")
            return False
        return self._reply.fault is None

    async def _whole(self) -> None:
        """In one piece, after the time it took to make."""
        reply = self._reply
        if reply.fault == "stall":
            await self._stall()
        await asyncio.sleep(sum(reply.delays))
        self._still_there()
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": "".join(map(_word, range(c.tokens)))},
                "logprobs": None,
                "finish_reason": c.finish,
            }
            for index, c in enumerate(reply.choices)
        ]
        data = http1.response(200, {**self._head, "choices": choices, "usage": self._bill()})
        if reply.fault == "broken":
            self._writer.write(data[: len(data) // 2])
            self._close("broken")
            return
        # Into the books before the bytes leave: who has the whole reply finds it in the truth.
        self._close("ok")
        self._writer.write(data)

    async def _stream(self) -> None:
        """As server-sent events, one visible token each."""
        reply = self._reply
        self._writer.write(http1.STREAM)
        first, *gaps = reply.delays
        # The roles come early and say nothing: a meter that takes them for tokens errs by half.
        await asyncio.sleep(first / 2)
        for index in range(len(reply.choices)):
            self._event(index, {"role": "assistant", "content": ""})
        delays = (first / 2, *gaps)
        for (index, word), delay in zip(_words(reply.choices), delays, strict=False):
            if reply.fault and self._sent == reply.cut:
                break
            if delay > 0:
                await asyncio.sleep(delay)
            self._still_there()
            self._event(index, {"content": word})
            self._sent += 1
            await self._writer.drain()
        if reply.fault == "stall":
            await self._stall()
        if reply.fault == "broken":
            self._close("broken")
            return
        self._still_there()
        for index, choice in enumerate(reply.choices):
            self._event(index, {}, choice.finish)
        self._close("ok" if self._usage else "unreported")
        if self._usage:
            usage = {**self._head, "choices": [], "usage": self._bill()}
            self._writer.write(http1.event(usage))
        self._writer.write(http1.chunk(b"data: [DONE]\n\n") + http1.chunk(b""))

    def _event(self, index: int, delta: Mapping[str, str], finish: str | None = None) -> None:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._usage else {}
        self._writer.write(http1.event({**self._head, "choices": [choice], **usage}))

    async def _stall(self) -> None:
        """Say nothing more until the client, who has nothing to say either, gives up."""
        await self._reader.read(1)
        raise ConnectionResetError

    def _still_there(self) -> None:
        if self._reader.at_eof() or self._writer.is_closing():
            raise ConnectionResetError

    def _close(self, outcome: str) -> None:
        reply, whole = self._reply, outcome in ("ok", "unreported")
        sent = Sent(
            calls=1,
            input=reply.input,
            output=reply.output if whole else self._sent,
            cache_read=reply.cache_read if whole else 0,
            reasoning=reply.reasoning if whole else 0,
        )
        self._books.write(reply.model, outcome, sent)

    def _bill(self) -> dict[str, Any]:
        reply = self._reply
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


def _words(choices: tuple[Choice, ...]) -> Iterator[tuple[int, str]]:
    """(index, word) of every visible token, the choices in turn."""
    for position in range(max(choice.tokens for choice in choices)):
        for index, choice in enumerate(choices):
            if position < choice.tokens:
                yield index, _word(position)


def _word(position: int) -> str:
    word = WORDS[position % len(WORDS)]
    return f" {word}" if position else word.capitalize()
