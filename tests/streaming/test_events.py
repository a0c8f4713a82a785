"""`events()`: pieces of streams for readers in threads, tasks and loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
import weakref

import pytest

from langmeter import StreamingCallback
from langmeter.streaming import StreamEvent
from tests.support.listened import ANSWER, PIECES, astream, stream
from tests.support.models import chat_model
from tests.support.streamed import lost


def test_events_are_read_in_another_thread() -> None:
    """Of all streams, until closed; what came before the end is still read after it."""
    handler = StreamingCallback()
    feed = handler.events()
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.extend(event.text for event in feed))
    reader.start()
    stream(handler)
    stream(handler)
    handler.close()
    reader.join(60)
    assert heard == PIECES * 2
    assert list(feed) == []
    stream(handler)  # no listener is left
    assert handler._streams._open == (0, 0)


def test_events_of_a_run_end_with_it() -> None:
    """However it ends; other runs are not in them."""
    handler = StreamingCallback()
    mine, failing, whole = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    feeds = [handler.events(run_id) for run_id in (mine, failing, whole)]
    stream(handler)
    stream(handler, mine)
    assert [event.text for event in feeds[0]] == PIECES
    assert {event.run_id for event in feeds[0]} == set()
    left = chat_model().stream("hi", config={"callbacks": [handler], "run_id": failing})
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert [event.text for event in feeds[1]] == ["alpha"]
    chat_model().invoke("hi", config={"callbacks": [handler], "run_id": whole})
    assert list(feeds[2]) == []


async def test_events_are_read_in_a_task() -> None:
    """While the stream runs in the same loop."""
    handler = StreamingCallback()
    run_id = uuid.uuid4()
    async with handler.events(run_id) as feed:
        task = asyncio.create_task(astream(handler, run_id))
        assert [event.text async for event in feed] == PIECES
        assert await task == ANSWER
    assert [event.text async for event in feed] == []


async def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    """It may time out as often as it likes, and go on."""
    handler = StreamingCallback()
    feed = handler.events()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(feed), 0.001)
    assert not feed._waiting
    await astream(handler)
    heard = [(await asyncio.wait_for(anext(feed), 60)).text for _ in PIECES]
    assert heard == PIECES
    await feed.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


def test_a_reader_whose_loop_is_closed_is_nobody() -> None:
    """A token finds it gone and goes on."""
    handler = StreamingCallback()
    feed = handler.events()
    loop = asyncio.new_event_loop()
    task = loop.create_task(anext(feed))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert stream(handler) == ANSWER
    assert not lost(handler)
    with feed:
        assert next(feed).text == "alpha"
    assert len(list(feed)) == 4
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_streams_in_threads_wake_readers_in_loops() -> None:
    """The web page's case: a sync chain in a thread, its events in the loop."""
    handler = StreamingCallback()
    feed = handler.events()
    work = asyncio.create_task(asyncio.to_thread(stream, handler))
    heard = [(await anext(feed)).text for _ in PIECES]
    assert heard == PIECES
    assert await work == ANSWER
    feed.close()


def test_events_that_nobody_reads_are_bounded() -> None:
    """The oldest go and are counted; a feed without references is not a listener."""
    handler = StreamingCallback()
    feed = handler.events(queue_size=3)
    stream(handler)
    assert lost(handler) == {"stream_events_dropped": 2}
    assert [next(feed).text for _ in range(3)] == PIECES[2:]
    gone = weakref.ref(feed)
    del feed
    gc.collect()
    assert gone() is None
    assert handler._streams._feeds == {}
    closed = handler.events()
    closed.put(next(iter(_events(handler))))
    closed.close()
    closed.put(None)  # type: ignore[arg-type]
    assert len(list(closed)) == 6


def _events(handler: StreamingCallback) -> list[StreamEvent]:
    with handler.events() as feed:
        stream(handler)
        return [next(feed) for _ in PIECES]
