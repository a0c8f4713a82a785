"""Streams: when the first token came, how long the next ones took, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from langmeter import _core
from langmeter._base.delivery import Listener, Queue, is_async
from langmeter._base.observer import RecorderObserver
from langmeter.callbacks.base import Callback, Share
from langmeter.callbacks.services import Services
from langmeter.callbacks.views import StreamingView
from langmeter.config import MeterConfig
from langmeter.monitors.stalls import Stall, StallObserver
from langmeter.snapshot import Snapshot
from langmeter.streaming import (
    Collect,
    Delivery,
    EventIterator,
    Queued,
    StreamEvent,
    StreamFailure,
    StreamOptions,
    StreamResult,
    Streams,
)
from langmeter.streaming.options import STREAM_OPTIONS


class StreamingCallback(Callback, StreamingView):
    """Measures streamed calls token by token, those of `stream_events(version="v3")` too.

    Keywords are the options of `langmeter.streaming.StreamOptions`, or `config` has them. What a
    listener raises is logged once, counted in `dropped["callback_errors"]`, and does not end the
    stream; after `max_failures` in a row a listener is not called any more.

    `output_tokens_per_second` and each distribution take a whole snapshot; `of(snapshot)` reads
    them of one moment.

    Raises:
        ConfigError: an option is of the wrong type, out of range, or contradicts another.
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
        max_failures: int | None = None,
        on_stall: Callable[[Stall], Any] | None = None,
        stall_after: float | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        settings |= {
            "on_token_callback": on_token_callback,
            "on_event": on_event,
            "on_complete": on_complete,
            "on_error": on_error,
            "collect": collect,
            "delivery": delivery,
            "max_failures": max_failures,
            "on_stall": on_stall,
            "stall_after": stall_after,
        }
        config = MeterConfig.chosen(config, settings, *STREAM_OPTIONS)
        options = config.streams if isinstance(config.streams, StreamOptions) else StreamOptions()
        share: Share = {
            "streams": _streams(options),
            "observers": (partial(_stalls, options),),
            "keep_prompts": options.on_stall is not None,  # a stall names its run
        }
        super().__init__(share, config=config)

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


def _streams(options: StreamOptions) -> Streams:
    limits = options.collect if isinstance(options.collect, Collect) else Collect()
    streams = Streams(limits.max_stream_bytes, limits.max_bytes)
    queue = Queue(options.delivery if isinstance(options.delivery, Queued) else Queued())
    streams.queues.append(queue)
    lists = {
        "on_token_callback": streams.listeners.text,
        "on_event": streams.listeners.event,
        "on_complete": streams.listeners.complete,
        "on_error": streams.listeners.error,
    }
    for name, function in options.listeners().items():
        inline = options.delivery in (None, "inline") and not is_async(function)
        where = None if inline else queue
        lists[name].append(Listener(name, function, where, streams.count, options.max_failures))
    streams.listen(collect=options.collects)
    return streams


def _stalls(options: StreamOptions, services: Services) -> RecorderObserver[Any]:
    run_id = partial(_run_of, services.prompts)
    return StallObserver(services.recorder, options.on_stall, options.stall_after, run_id=run_id)


def _run_of(prompts: Mapping[Any, Any], key: int) -> Any:
    """Return the id of the run in flight with this key; None where its prompt is not kept."""
    for number in list(prompts):
        run_id = UUID(int=number) if isinstance(number, int) else number[0]
        if _core.Recorder.key(run_id) == key:
            return run_id
    return None
