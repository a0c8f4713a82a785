"""Events as an iterator, sync and async, for a terminal or a web page."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self
from uuid import UUID

from langmeter.streaming.events import StreamEvent


class EventIterator:
    """The events of streams as they come: `for event in feed` or `async for event in feed`.

    Bounded: when no reader takes them, the oldest are dropped and counted in
    `dropped["stream_events_dropped"]`. Waiting may be cancelled at any time and taken up again;
    what waits stays. One reader at a time gets each event. A feed without references is
    removed; `close()`, or a `with` block, ends it sooner.
    """

    def __init__(
        self,
        run_id: UUID | None,
        queue_size: int,
        count: Callable[[str, int], None],
        on_close: Callable[[EventIterator], None],
    ) -> None:
        self.run_id = run_id
        self._size = queue_size
        self._count = count
        self.on_close = on_close
        self._items: deque[StreamEvent] = deque()
        self._changed = threading.Condition()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._closed = False

    def put(self, event: StreamEvent) -> None:
        """Add an event; never waits."""
        with self._changed:
            if self._closed:
                return
            if len(self._items) >= self._size:
                self._items.popleft()
                self._count("stream_events_dropped", 1)
            self._items.append(event)
            self._wake()

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self._closed = True
            self._wake()

    def close(self) -> None:
        """Listen no more; what has come can still be read."""
        self.on_close(self)
        self.end()

    async def aclose(self) -> None:
        """Close the iterator, as `close` does."""
        self.close()

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, future in self._waiting:
            try:
                loop.call_soon_threadsafe(_done, future)
            except RuntimeError:  # the reader's loop is closed: no task waits there any more
                continue
        self._waiting.clear()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._items:
                return self._items.popleft()
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._items:
                    return self._items.popleft()
                if self._closed:
                    raise StopAsyncIteration
                waiter = loop, loop.create_future()
                self._waiting.add(waiter)
            try:
                await waiter[1]
            finally:
                with self._changed:
                    self._waiting.discard(waiter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
