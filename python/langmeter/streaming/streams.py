"""Listeners of a handler's streams, and the results of these streams."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from weakref import WeakSet, ref

from langmeter import _core
from langmeter._base.delivery import Listener, Queue
from langmeter._base.failures import status_of
from langmeter._base.forks import at_fork
from langmeter._base.log import log
from langmeter._base.money import usd
from langmeter.streaming.events import (
    KINDS,
    Partial,
    StreamEvent,
    StreamFailure,
    StreamResult,
    tokens_of,
)
from langmeter.streaming.final_message import (
    completed,
    finish_reason,
    message_of,
    mismatches,
)
from langmeter.streaming.iterator import EventIterator
from langmeter.streaming.options import MAX_BYTES, MAX_STREAM_BYTES
from langmeter.usage import Usage

#: What the native side is asked to do, by bit.
_COLLECT, _EVENTS, _TEXTS, _ENDS = (1 << bit for bit in range(len(_core.STREAM_WANTS)))
_OK: Final = _core.OUTCOMES.index("ok")
#: Failures kept for later readers: this many, with this many characters in all.
_FAILURES: Final = 64
_FAILURE_CHARS: Final = 1 << 23

_all: WeakSet[Streams] = WeakSet()


class Listeners:
    """The user's functions, by what they are told of."""

    def __init__(self) -> None:
        self.text: list[Listener] = []
        self.event: list[Listener] = []
        self.complete: list[Listener] = []
        self.error: list[Listener] = []

    def join(self, other: Listeners) -> None:
        """Take over those of another."""
        for name, listeners in vars(other).items():
            getattr(self, name).extend(listeners)


class Losses:
    """Counts what listeners lose, in the recorder that there is by then.

    Apart from `Streams`, which holds the queues and listeners that hold this.
    """

    recorder: _core.Recorder | None = None

    def count(self, name: str, n: int) -> None:
        """Count what was lost."""
        if self.recorder is not None:
            self.recorder.dropped(name, n)


class Streams(_core.Streams):
    """The streams in flight of one recorder, and who listens to them."""

    def __init__(
        self, max_stream_bytes: int = MAX_STREAM_BYTES, max_bytes: int = MAX_BYTES
    ) -> None:
        self.listeners = Listeners()
        self.collects = False
        self._has_listeners = False
        self.queues: list[Queue] = []
        self._losses = [Losses()]
        #: Counts what listeners lose.
        self.count = self._losses[0].count
        self.failures: deque[StreamFailure] = deque(maxlen=_FAILURES)
        #: By `run_number` of the run; None hears all.
        self._feeds: dict[Any, list[ref[EventIterator]]] = {}
        self._lock = threading.RLock()
        self._told: set[str] = set()
        _all.add(self)

    # What is wanted.

    def listen(self, *, collect: bool) -> None:
        """Ask the native side for what listeners want, and for nothing else."""
        with self._lock:
            self.collects |= collect
            for run_id, feeds in list(self._feeds.items()):
                alive = [feed for feed in feeds if feed() is not None]
                if alive:
                    self._feeds[run_id] = alive
                else:
                    self._feeds.pop(run_id, None)
            events = bool(self.listeners.event or self._feeds)
            ends = bool(self.listeners.complete or self._feeds)
            self._has_listeners = self.collects or events or ends or bool(self.listeners.error)
            self._want(
                _COLLECT * self.collects
                | _EVENTS * events
                | _TEXTS * bool(self.listeners.text)
                | _ENDS * ends
            )

    def merge(self, other: Streams) -> None:
        """Listen for those who listen to another, which is not used any more."""
        with self._lock:
            self.listeners.join(other.listeners)
            self.queues += other.queues
            self._losses += other._losses
            for run_id, feeds in other._feeds.items():
                self._feeds.setdefault(run_id, []).extend(feeds)
                for feed in filter(None, (reference() for reference in feeds)):
                    feed.on_close = self.forget
            self._raise_limits(other)
            self.listen(collect=other.collects)

    @property
    def recorder(self) -> _core.Recorder | None:
        """The recorder of these streams; None before the first model call."""
        return self._losses[0].recorder

    @recorder.setter
    def recorder(self, recorder: _core.Recorder) -> None:
        for losses in self._losses:
            losses.recorder = recorder

    def feed(self, run_id: UUID | None, queue_size: int) -> EventIterator:
        """The events of a run, or of all, from now on."""
        feed = EventIterator(run_id, queue_size, self.count, self.forget)
        with self._lock:
            reference = ref(feed, lambda _: self.listen(collect=False))
            self._feeds.setdefault(_number(run_id), []).append(reference)
            self.listen(collect=False)
        return feed

    def forget(self, feed: EventIterator) -> None:
        """Tell a feed nothing any more."""
        with self._lock:
            number = _number(feed.run_id)
            feeds = self._feeds.get(number, [])
            self._feeds[number] = [reference for reference in feeds if reference() is not feed]
            self.listen(collect=False)

    def _read_by(self, *numbers: Any) -> list[EventIterator]:
        live = (feed() for number in numbers for feed in self._feeds.get(number, ()))
        return [feed for feed in live if feed is not None]

    # Called natively: `_core.StreamSink`.

    def on_text(self, text: str) -> None:
        """Hand a visible text to the listeners for text."""
        for listener in self.listeners.text:
            listener.notify(text)

    def on_event(
        self,
        run_id: UUID,
        model: str,
        text: str,
        index: int,
        elapsed: float,
        kind: int,
        call: int | None,
        name: str,
    ) -> None:
        """Hand an event of a stream to its listeners and iterators."""
        event = StreamEvent(run_id, model, text, index, elapsed, KINDS[kind], call, name)
        for feed in self._read_by(None, _core.run_number(run_id)) if self._feeds else ():
            feed.put(event)
        for listener in self.listeners.event:
            listener.notify(event)

    def on_gone(self, run_id: UUID, shown: tuple[Any, ...]) -> None:
        """Report an abandoned stream: the recorder reaped its run without an end event."""
        partial = self._partial(shown)
        names = partial.provider, partial.model
        try:
            self._fail(run_id, names, "abandoned", partial, None, None, None)
        finally:
            self._end_feeds(run_id)

    # Ends.

    def take(self, run_id: UUID) -> Partial | None:
        """Return what a run that ends has sent; None where no listener wants it."""
        if not self._has_listeners or self.recorder is None:
            return None
        fields = self._take(self.recorder, run_id)
        return None if fields is None else self._partial(fields)

    def _partial(self, shown: tuple[Any, ...]) -> Partial:
        partial = Partial(*shown)
        # Which tool calls there are is known for the numbering of events; it is told on request.
        return partial if self.collects else partial._replace(calls=[])

    def peek(self, run_id: UUID) -> Partial | None:
        """Return what a run in flight has said so far."""
        fields = None if self.recorder is None else self._peek(self.recorder, run_id)
        return None if fields is None else self._partial(fields)

    def ended(
        self,
        run_id: UUID,
        names: tuple[str, str],
        outcome: int,
        partial: Partial | None,
        usage: Usage | None,
        cost: int | None,
        response: Any,
        error: BaseException | None,
    ) -> None:
        """A model call ended, streamed or not; `cost` in pico-dollars."""
        if not self._has_listeners:
            return
        try:
            if error is not None:
                name = _core.OUTCOMES[outcome]
                self._fail(run_id, names, name, partial, usage, cost, error)
            elif partial is not None and partial.events:
                self._complete(run_id, names, partial, usage, cost, response)
        finally:  # whatever a response or an exception raises when read, no iterator waits for ever
            self._end_feeds(run_id)

    def _complete(
        self,
        run_id: UUID,
        names: tuple[str, str],
        partial: Partial,
        usage: Usage | None,
        cost: int | None,
        response: Any,
    ) -> None:
        differences: tuple[str, ...] = ()
        if self.collects:
            message = message_of(response)
            partial = completed(partial, message)
            differences = mismatches(partial, message, usage)
            for kind in differences:
                self._mismatched(kind, names)
        if not self.listeners.complete:
            return
        result = StreamResult(
            run_id=run_id,
            provider=names[0],
            model=names[1],
            tokens=tokens_of(usage),
            cost=None if cost is None else usd(cost),
            finish_reason=finish_reason(response),
            mismatches=differences,
            **partial.fields(),
        )
        for listener in self.listeners.complete:
            listener.notify(result, end=True)

    def _mismatched(self, kind: str, names: tuple[str, str]) -> None:
        self.count("stream_mismatch", 1)
        if kind not in self._told:
            self._told.add(kind)
            log.warning(
                "a stream of %s differs from its final message in its %s; further ones are only "
                "counted",
                "/".join(filter(None, names)) or "a model",
                kind,
            )

    def _fail(
        self,
        run_id: UUID,
        names: tuple[str, str],
        outcome: str,
        partial: Partial | None,
        usage: Usage | None,
        cost: int | None,
        error: BaseException | None,
    ) -> None:
        if self.listeners.error or self.collects:
            failure = StreamFailure(
                run_id=run_id,
                provider=names[0],
                model=names[1],
                outcome=outcome,
                error="" if error is None else type(error).__name__,
                status=None if error is None else status_of(error),
                tokens=tokens_of(usage),
                cost=None if cost is None else usd(cost),
                **({} if partial is None else partial.fields()),
            )
            if self.collects:
                self._remember(failure)
            for listener in self.listeners.error:
                listener.notify(failure, end=True)

    def _remember(self, failure: StreamFailure) -> None:
        with self._lock:
            self.failures.append(failure)
            while len(self.failures) > 1 and sum(map(_size, self.failures)) > _FAILURE_CHARS:
                self.failures.popleft()

    def _end_feeds(self, run_id: UUID) -> None:
        if self._feeds:
            for feed in self._read_by(_core.run_number(run_id)):
                feed.end()

    # The rest of a life.

    def notify_abandoned(self) -> None:
        """Report the streams that the recorder has reaped as abandoned."""
        if self.recorder is not None:
            self._give_up(self.recorder)

    def close(self) -> None:
        """End every feed."""
        with self._lock:
            feeds = self._read_by(*self._feeds)
            self._feeds.clear()
            self.listen(collect=False)
        for feed in feeds:
            feed.end()

    def after_fork(self) -> None:
        """Forget the streams, threads and loops of the parent."""
        self._lock = threading.RLock()
        self._clear()
        self._feeds.clear()
        self.failures.clear()
        for queue in self.queues:
            queue.reset()
        self.listen(collect=False)


def _number(run_id: Any) -> Any:
    return None if run_id is None else _core.run_number(run_id)


def _size(failure: StreamFailure) -> int:
    calls = sum(len(call.args) for call in failure.tool_calls)
    return len(failure.text) + len(failure.reasoning) + calls


if TYPE_CHECKING:

    def _sink(streams: Streams) -> _core.StreamSink:
        return streams


def joined(all_streams: list[Streams]) -> Streams | None:
    """The first, listening for all of them; None where there is none."""
    if not all_streams:
        return None
    first, *others = all_streams
    for other in others:
        first.merge(other)
    return first


def _after_fork() -> None:
    for streams in list(_all):
        streams.after_fork()


at_fork(after_in_child=_after_fork)
