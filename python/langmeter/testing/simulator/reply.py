"""Replies: what the simulator says to one request, whichever provider's format it is sent in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Fault: TypeAlias = Literal[
    "rate_limited", "server_error", "broken", "stall", "truncated", "error_event"
]
#: What can go wrong with a reply. Traffic draws the first three at random; all can be requested
#: with the header `x-simulate`:
#: status 429, status 500, a connection that breaks, silence until the client gives up, a stream
#: that ends without its last events, and an error sent as an event of the stream.
FAULTS: Final[tuple[Fault, ...]] = (
    "rate_limited",
    "server_error",
    "broken",
    "stall",
    "truncated",
    "error_event",
)
_STATUS: Final[Mapping[str | None, int]] = {"rate_limited": 429, "server_error": 500}


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text, in the pieces in which a stream sends it."""

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """Visible reasoning in pieces. Chat completions leave it out, as OpenAI does."""

    pieces: tuple[str, ...]
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One tool call; the pieces are the JSON text of its arguments."""

    id: str
    name: str
    pieces: tuple[str, ...]


Part: TypeAlias = Text | Thought | ToolUse


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers of a reply. `length` tells that the token limit cut it."""

    parts: tuple[Part, ...]
    finish: Literal["stop", "length"] = "stop"

    @property
    def tools(self) -> bool:
        """Whether it ends with the request to call a tool."""
        return any(isinstance(part, ToolUse) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, decided before its first byte.

    Args:
        choices: the answers; formats that have one only send the first.
        input: tokens of the prompt, `cache_read` included.
        output: tokens of all answers, `reasoning` included.
        cache_read: tokens of the prompt that came from a cache.
        reasoning: tokens of reasoning.
        model: the name in the reply; "" for the dated name of the requested model.
        id: the identifier in the reply.
        fault: what goes wrong; None if nothing does.
        status: 0, or the HTTP status with which the request is refused.
        cut: how many pieces a stream sends before its fault. A stall after 0 pieces sends not even
            the head of the response.
        delays: seconds before each piece, the choices interleaved; missing ones are 0.
        retry_after: seconds in the headers of status 429.
    """

    choices: tuple[Choice, ...] = ()
    input: int = 0
    output: int = 0
    cache_read: int = 0
    reasoning: int = 0
    model: str = ""
    id: str = "reply-1"
    fault: Fault | None = None
    status: int = 0
    cut: int = 0
    delays: tuple[float, ...] = ()
    retry_after: float = 0.001

    @property
    def refused(self) -> int:
        """HTTP status of the refusal; 0 if the request is answered."""
        return self.status or _STATUS.get(self.fault, 0)


@dataclass(frozen=True, slots=True)
class Raw:
    """Bodies sent as they are given, for formats of a provider that `Reply` does not express.

    They are not part of the ground truth.

    Args:
        whole: the JSON body for a request that is not streamed.
        events: the server-sent events for one that is; those with a `type` carry its name.
    """

    whole: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
