"""Streams: when the first token came, how long the next ones took, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias
from uuid import UUID

from langmeter import _core
from langmeter._base.check import whole_number
from langmeter._base.delivery import Listener, Queue, is_async
from langmeter._base.observer import RecorderObserver
from langmeter.callbacks.base import Callback, Share
from langmeter.callbacks.services import Services
from langmeter.callbacks.views import StreamingView
from langmeter.config import Config
from langmeter.errors import ConfigError
from langmeter.monitors.stalls import Stall, StallObserver, checked
from langmeter.snapshot import Snapshot
from langmeter.streaming import (
    Collect,
    EventIterator,
    Queued,
    StreamEvent,
    StreamFailure,
    StreamResult,
    Streams,
)

#: How listeners are told.
Delivery: TypeAlias = Literal["inline", "queued"] | Queued


class StreamingCallback(Callback, StreamingView):
    """Measures streamed calls token by token, those of `stream_events(version="v3")` too.

    Listeners are plain functions of one argument, or coroutine functions. What they raise is logged
    once, counted in `dropped["callback_errors"]`, and does not end the stream; after `max_failures`
    in a row a listener is not called any more.

    `output_tokens_per_second` and each distribution take a whole snapshot; `of(snapshot)` reads
    them of one moment.

    Args:
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
        max_failures: in a row, 1 or more.
        on_stall: gets a `Stall` when a stream that has begun goes silent, while it is, in a thread
            of its own; a plain function.
        stall_after: seconds of silence that are a stall, 0.05 to 86,400; by default 10, or 8 times
            the 99th percentile of that model's gaps between tokens, if that is more.

    Raises:
        TypeError: a listener is not a function.
        ValueError: `stall_after` is outside its range.
        ConfigError: another value cannot be.
    """

    def __init__(
        self,
        on_token_callback: Callable[[str], Any] | None = None,
        *,
        on_event: Callable[[StreamEvent], Any] | None = None,
        on_complete: Callable[[StreamResult], Any] | None = None,
        on_error: Callable[[StreamFailure], Any] | None = None,
        collect: bool | Collect | None = None,
        delivery: Delivery | None = None,
        max_failures: int = 10,
        on_stall: Callable[[Stall], Any] | None = None,
        stall_after: float | None = None,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        stall = checked(on_stall, stall_after)
        limits = collect if isinstance(collect, Collect) else Collect()
        if not (collect is None or isinstance(collect, bool | Collect)):
            raise ConfigError(f"collect = {collect!r}: must be True, False or a Collect")
        if not (delivery in (None, "inline", "queued") or isinstance(delivery, Queued)):
            raise ConfigError(f"delivery = {delivery!r}: must be 'inline', 'queued' or a Queued")
        whole_number("max_failures", max_failures, 1)
        streams = Streams(limits.max_stream_bytes, limits.max_bytes)
        settled = delivery if isinstance(delivery, Queued) else Queued()
        queue = Queue(settled)
        streams.queues.append(queue)
        listeners = streams.listeners
        for name, function, among in (
            ("on_token_callback", on_token_callback, listeners.text),
            ("on_event", on_event, listeners.event),
            ("on_complete", on_complete, listeners.complete),
            ("on_error", on_error, listeners.error),
        ):
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{name} = {function!r}: must be a function of one argument")
            inline = delivery in (None, "inline")
            if is_async(function):
                if delivery == "inline":
                    raise ConfigError(
                        f"{name} = {function!r} is async and cannot run inline, where it is not "
                        "awaited; leave out delivery='inline', or pass a plain function"
                    )
                inline = False
            among.append(
                Listener(name, function, None if inline else queue, streams.count, max_failures)
            )
        wants_text = on_complete is not None or on_error is not None
        streams.listen(collect=wants_text if collect is None else bool(collect))
        share: Share = {"streams": streams, "observers": (partial(_stalls, *stall),)}
        share["keep_prompts"] = on_stall is not None  # a stall names its run
        super().__init__(share, config=config, **settings)

    @staticmethod
    def of(snapshot: Snapshot) -> StreamingView:
        """Return the same figures of a snapshot: `meter.streaming.of(snapshot)`."""
        return StreamingView(snapshot)

    @property
    def _streams(self) -> Streams:
        streams = self._services.streams
        assert streams is not None
        return streams

    @property
    def failures(self) -> tuple[StreamFailure, ...]:
        """The last failures with what had come by then, oldest first; empty unless collecting.

        At most 64, with at most 8 million characters in all.
        """
        return tuple(self._streams.failures)

    def partial(self, run_id: UUID) -> str:
        """The text of a stream in flight so far; "" where there is none, or unless collecting."""
        partial = self._streams.peek(run_id)
        return "" if partial is None else partial.text

    def events(self, run_id: UUID | None = None, *, queue_size: int = 1024) -> EventIterator:
        """The events from now on, as an iterator: `for` and `async for` both go.

        Those of one model call, until it ends, or of all; `close()` ends both, and is the only end
        of a call that never began or has ended before. At most `queue_size` wait for their reader;
        beyond that the oldest go and are counted. Raises ConfigError.
        """
        Queued(queue_size=queue_size)  # the same limits
        return self._streams.feed(run_id, queue_size)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until queued listeners in threads have heard everything; False if that takes longer.

        A program that ends sooner takes what waits with it. `timeout` in seconds, for each queue.
        """
        done = [queue.flush(timeout) for queue in self._streams.queues]
        return all(done)

    async def aflush(self) -> None:
        """Wait until coroutine functions have heard everything from the streams of this loop."""
        for queue in self._streams.queues:
            await queue.aflush()

    def close(self) -> None:
        """End every iterator that `events()` gave."""
        self._streams.close()


def _stalls(
    on_stall: Callable[[Stall], Any] | None, stall_after: float | None, services: Services
) -> RecorderObserver[Any]:
    run_id = partial(_run_of, services.prompts)
    return StallObserver(services.recorder, on_stall, stall_after, run_id=run_id)


def _run_of(prompts: Mapping[Any, Any], key: int) -> Any:
    """Return the id of the run in flight with this key; None where its prompt is not kept."""
    for number in list(prompts):
        run_id = UUID(int=number) if isinstance(number, int) else number[0]
        if _core.Recorder.key(run_id) == key:
            return run_id
    return None
