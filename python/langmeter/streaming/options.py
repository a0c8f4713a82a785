"""Settings of streams: who listens, how it is called, and how much text is collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias

from langmeter._base.check import Refusals, refusal
from langmeter._base.delivery import Queued, is_async
from langmeter._base.options import check_options, function, group, whole
from langmeter.monitors.stalls import ON_STALL, STALL_AFTER, Stall
from langmeter.streaming.events import StreamEvent, StreamFailure, StreamResult

#: How listeners are called.
Delivery: TypeAlias = Literal["inline", "queued"] | Queued

#: Bytes that are collected of one stream, and of all, unless a `Collect` says otherwise.
MAX_STREAM_BYTES: Final = 1 << 20
MAX_BYTES: Final = 1 << 26
_MOST_BYTES: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Collect:
    """Limits of the text that is kept of streams in flight.

    Attributes:
        max_stream_bytes: of one stream, 1 to 2^40; what comes then is cut.
        max_bytes: of all, 1 to 2^40; the streams that have been silent longest are dropped first.

    What is missing is counted in bytes, in `dropped["stream_text_cut"]`. Raises ConfigError.
    """

    max_stream_bytes: int = field(
        default=MAX_STREAM_BYTES, metadata=whole(1, _MOST_BYTES, "it is in bytes")
    )
    max_bytes: int = field(default=MAX_BYTES, metadata=whole(1, _MOST_BYTES, "it is in bytes"))

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The listeners of streams.

    Listeners are plain functions of one argument, or coroutine functions. They are given by keyword
    alone; a file has the rest.

    Attributes:
        on_token_callback: gets each piece of the answer's text.
        on_event: gets a `StreamEvent` for each piece of output: text, reasoning, tool calls.
        on_complete: gets a `StreamResult` for each stream that gave its whole answer.
        on_error: gets a `StreamFailure` for each call that failed, was cancelled or, as soon as it
            is known, abandoned; also before its first token, when it is unknown whether it
            would have streamed.
        collect: keep what each stream says until it ends: True, False or a `Collect` with limits.
            By default only for `on_complete` and `on_error`, which hand it over.
        delivery: "inline", in the thread that streams; "queued", through a bounded queue by a
            worker, or a `Queued` that says more. By default inline for plain functions. Coroutine
            functions are always queued: they run in the event loop in which the stream runs, else
            in one of the worker.
        max_failures: failures in a row, 1 or more, after which a listener is not called any more.
        on_stall: gets a `Stall` when a stream that has begun goes silent, while it is, in a thread
            of its own; a plain function.
        stall_after: seconds of silence that are a stall, 0.05 to 86,400; by default 10, or 8 times
            the 99th percentile of that model's gaps between tokens, if that is more.

    Raises:
        ConfigError: values are of the wrong type, out of range, or contradict each other.
    """

    on_token_callback: Callable[[str], Any] | None = field(default=None, metadata=function())
    on_event: Callable[[StreamEvent], Any] | None = field(default=None, metadata=function())
    on_complete: Callable[[StreamResult], Any] | None = field(default=None, metadata=function())
    on_error: Callable[[StreamFailure], Any] | None = field(default=None, metadata=function())
    collect: bool | Collect | None = field(
        default=None, metadata=group(Collect, True, False, optional=True)
    )
    delivery: Delivery | None = field(
        default=None, metadata=group(Queued, "inline", "queued", optional=True)
    )
    max_failures: int = field(default=10, metadata=whole(1))
    on_stall: Callable[[Stall], Any] | None = field(default=None, metadata=ON_STALL)
    stall_after: float | None = field(default=None, metadata=STALL_AFTER)

    def __post_init__(self) -> None:
        check_options(self)
        refusals = Refusals()
        for name, listener in self.listeners().items():
            with refusals.collect():
                if self.delivery == "inline" and is_async(listener):
                    raise refusal(
                        name,
                        "a plain function with delivery='inline', where a coroutine is not awaited",
                        listener,
                        "leave out delivery, or pass a plain function",
                    )
        refusals.raise_all()

    def listeners(self) -> dict[str, Callable[[Any], Any]]:
        """Return the listeners of streams that are given, by the name of their option."""
        names = ("on_token_callback", "on_event", "on_complete", "on_error")
        given = {name: getattr(self, name) for name in names}
        return {name: listener for name, listener in given.items() if listener is not None}

    @property
    def collects(self) -> bool:
        """Whether the text of streams is kept until they end."""
        wanted = self.on_complete is not None or self.on_error is not None
        return wanted if self.collect is None else bool(self.collect)


#: Names of the options, each a keyword of `Meter` too.
STREAM_OPTIONS: Final = tuple(each.name for each in fields(StreamOptions))
