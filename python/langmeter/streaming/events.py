"""Events for listeners of streams: a piece of output, an answer, a failure.

What a model wrote stands in no `repr`, so that none of it gets into a log by accident.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import UUID

from langmeter import _core
from langmeter.snapshot import Tokens
from langmeter.usage import Usage

Kind = Literal["text", "reasoning", "tool_call"]
#: By the native code.
KINDS: Final = cast("tuple[Kind, ...]", _core.STREAM_KINDS)


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One piece of output.

    Attributes:
        run_id: the model call's.
        model: as requested.
        text: what is new: of the answer, of the reasoning, or of a tool call's arguments (JSON).
        index: its number in the stream, from 0, over all kinds.
        elapsed: seconds since the call's start.
        kind: "text", "reasoning" or "tool_call".
        call: of a tool call, which of those in the answer, from 0.
        name: of a tool call, the tool's, in the piece that begins the call.
    """

    run_id: UUID
    model: str
    text: str = field(repr=False)
    index: int
    elapsed: float
    kind: Kind
    call: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as its pieces gave it; `args` is JSON, whole only if the stream is."""

    id: str
    name: str
    args: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Streamed:
    run_id: UUID
    provider: str
    model: str
    text: str = field(default="", repr=False)
    reasoning: str = field(default="", repr=False)
    tool_calls: tuple[ToolCall, ...] = field(default=(), repr=False)
    events: int = 0
    elapsed: float = 0.0
    time_to_first_token: float | None = None
    tokens: Tokens | None = None
    cost: Decimal | None = None
    cut: bool = False

    @property
    def estimated(self) -> bool:
        """Whether `tokens` were counted here because the provider told none."""
        return self.tokens is not None and self.tokens.estimated > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult(_Streamed):
    """A stream that gave its whole answer.

    Attributes:
        run_id: the model call's.
        provider, model: as answered.
        text, reasoning, tool_calls: what came, apart; empty unless collected.
        events: pieces of output.
        elapsed, time_to_first_token: seconds since the call's start.
        tokens: None where neither the provider nor we can tell.
        cost: US dollars; None without a price.
        cut: some of what came found no room and is missing.
        finish_reason: in the provider's word; "" if it does not say.
        mismatches: in what the pieces and the final message differ: "text", "tool_calls", "usage".
    """

    finish_reason: str = ""
    mismatches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFailure(_Streamed):
    """A model call that did not give its whole answer; the fields of `StreamResult` up to then.

    Attributes:
        outcome: "error", "cancelled", "interrupted" or "abandoned".
        error: class of the exception; "" when abandoned, which no exception reports.
        status: HTTP status, where the exception carries one.
    """

    outcome: str
    error: str = ""
    status: int | None = None


class Partial(NamedTuple):
    """A stream in flight, as the native side shows it."""

    provider: str
    model: str
    text: str
    reasoning: str
    calls: list[tuple[str, str, str]]
    events: int
    first: float | None
    elapsed: float
    cut: bool

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Its tool calls in the order in which they began."""
        return tuple(ToolCall(*call) for call in self.calls)

    @property
    def has_content(self) -> bool:
        """Whether anything of it is kept."""
        return bool(self.text or self.reasoning or self.calls)

    def fields(self) -> dict[str, Any]:
        """Return the fields that answers and failures share."""
        return {
            "text": self.text,
            "reasoning": self.reasoning,
            "tool_calls": self.tool_calls,
            "events": self.events,
            "elapsed": self.elapsed,
            "time_to_first_token": self.first if self.events else None,
            "cut": self.cut,
        }


def tokens_of(usage: Usage | None) -> Tokens | None:
    """Usage as snapshots show it."""
    if usage is None:
        return None
    return Tokens(
        input=usage.input,
        output=usage.output,
        total=usage.total,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        cache_write_1h=usage.cache_write_1h,
        reasoning=usage.reasoning,
        audio_input=usage.audio_input,
        audio_output=usage.audio_output,
        image_input=usage.image_input,
        image_output=usage.image_output,
        video_input=usage.video_input,
        video_output=usage.video_output,
        cached_audio=usage.cached_audio,
        cached_image=usage.cached_image,
        citation=usage.citation,
        estimated=usage.estimated,
    )
