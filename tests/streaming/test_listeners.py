"""How listeners are told: inline or queued, and that none of them harms a stream."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from langmeter import StreamingCallback
from langmeter._base.delivery import Queued, is_async
from langmeter.errors import ConfigError
from langmeter.streaming import StreamEvent, StreamResult
from tests.support.models import chat_model

ANSWER = "alpha beta gamma"
PIECES = ["alpha", " ", "beta", " ", "gamma"]


def lost(handler: Any) -> dict[str, int]:
    """What was dropped; a run without a provider is so fast that its figures may be clamped."""
    return {k: n for k, n in handler.snapshot().dropped.items() if k != "clamped"}


def stream(handler: StreamingCallback, run_id: uuid.UUID | None = None) -> str:
    """The text of one whole stream."""
    config: Any = {"callbacks": [handler], "run_id": run_id}
    return "".join(str(chunk.content) for chunk in chat_model().stream("hi", config=config))


async def astream(handler: StreamingCallback, run_id: uuid.UUID | None = None) -> str:
    config: Any = {"callbacks": [handler], "run_id": run_id}
    return "".join([str(c.content) async for c in chat_model().astream("hi", config=config)])


def until(condition: Any) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Closed: a listener that waits for it stands still until the test opens it."""
    event = threading.Event()
    yield event
    event.set()


def test_inline_listeners_run_in_the_thread_that_streams() -> None:
    """Before the next token comes, and in the order of the tokens."""
    threads = set()
    heard: list[str] = []

    def show(text: str) -> None:
        threads.add(threading.get_ident())
        heard.append(text)

    handler = StreamingCallback(show)
    for n, chunk in enumerate(chat_model().stream("hi", config={"callbacks": [handler]})):
        if chunk.content:
            assert len(heard) == n + 1
    assert threads == {threading.get_ident()}
    assert heard == PIECES


def test_a_slow_listener_ends_after_the_stream() -> None:
    """Queued, the stream is complete before the listener has taken its first token."""
    heard: list[str] = []
    gate = threading.Event()

    def slow(text: str) -> None:
        gate.wait(60)
        heard.append(text)

    handler = StreamingCallback(slow, delivery="queued")
    assert stream(handler) == ANSWER
    assert heard == []
    assert not handler.flush(timeout=0.01)
    gate.set()
    assert handler.flush(timeout=60)
    assert heard == PIECES
    assert not lost(handler)


@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_a_listener_that_raises_is_switched_off(
    delivery: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten failures in a row; both the first failure and the end are said once."""
    calls = []

    def broken(text: str) -> None:
        calls.append(text)
        raise RuntimeError("cannot show")

    other: list[StreamEvent] = []
    handler = StreamingCallback(broken, on_event=other.append, delivery=delivery)
    with caplog.at_level(logging.WARNING, logger="langmeter"):
        for _ in range(4):
            assert stream(handler) == ANSWER
            assert handler.flush()
    assert len(calls) == 10
    assert len(other) == 20
    assert lost(handler) == {"callback_errors": 10}
    said = [r.getMessage() for r in caplog.records if "on_token_callback=" in r.getMessage()]
    assert ["failed;" in text for text in said] == [True, False]
    assert "10 times in a row and is not called any more" in said[1]


@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_failures_now_and_then_are_forgiven(delivery: Any) -> None:
    """Only failures in a row count."""
    calls = []

    def sometimes(text: str) -> None:
        calls.append(text)
        if text != "gamma":
            raise RuntimeError

    handler = StreamingCallback(sometimes, delivery=delivery, max_failures=5)
    for _ in range(10):
        stream(handler)
    assert handler.flush()
    assert len(calls) == 50
    assert lost(handler) == {"callback_errors": 40}


def test_ctrl_c_in_an_inline_listener_is_the_hosts() -> None:
    """It passes; in the worker's thread it is a failure like any other."""

    def stop(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(StreamingCallback(stop))
    handler = StreamingCallback(stop, delivery="queued")
    assert stream(handler) == ANSWER
    assert handler.flush()
    assert lost(handler) == {"callback_errors": 5}


@pytest.mark.parametrize(
    ("when_full", "heard"),
    [
        ("drop_oldest", ["alpha", "beta", " ", "gamma"]),
        ("drop_newest", ["alpha", " ", "beta", " "]),
    ],
)
def test_a_full_queue_drops_by_its_policy(
    when_full: Any, heard: list[str], gate: threading.Event
) -> None:
    """One in the listener's hands and three waiting; what was dropped is counted."""
    got: list[str] = []
    begun = threading.Event()

    def show(text: str) -> None:
        begun.set()
        gate.wait()
        got.append(text)

    handler = StreamingCallback(show, delivery=Queued(queue_size=3, when_full=when_full))
    for n, _ in enumerate(chat_model().stream("hi", config={"callbacks": [handler]})):
        if n == 0:
            assert begun.wait(60)
    gate.set()
    assert handler.flush()
    assert got == heard
    assert lost(handler) == {"stream_events_dropped": 1}


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "block"])
def test_the_end_of_a_stream_outlives_its_pieces(when_full: Any, gate: threading.Event) -> None:
    """A result is dropped only where nothing but ends waits."""
    got: list[Any] = []
    begun = threading.Event()

    def show(what: Any) -> None:
        begun.set()
        gate.wait()
        got.append(what)

    queued = Queued(queue_size=2, when_full=when_full, timeout=0.0)
    handler = StreamingCallback(on_event=show, on_complete=show, delivery=queued)
    for n, _ in enumerate(chat_model().stream("hi", config={"callbacks": [handler]})):
        if n == 0:
            assert begun.wait(60)
    gate.set()
    assert handler.flush()
    assert [type(what) for what in got] == [StreamEvent, StreamEvent, StreamResult]
    assert got[-1].text == ANSWER
    assert lost(handler) == {"stream_events_dropped": 3}


def test_block_waits_for_room_and_loses_nothing() -> None:
    """The stream goes at the pace of its listener."""
    got: list[str] = []

    def show(text: str) -> None:
        time.sleep(0.002)
        got.append(text)

    queued = Queued(queue_size=1, when_full="block", timeout=60)
    handler = StreamingCallback(show, delivery=queued)
    for _ in range(5):
        stream(handler)
    assert handler.flush()
    assert got == PIECES * 5
    assert not lost(handler)


def test_block_waits_for_nobody_who_would_wait_for_it() -> None:
    """A listener that streams by itself, and an event loop, drop instead of standing still."""
    inner: list[str] = []

    def nested(text: str) -> None:
        if not inner:
            inner.append(text)
            stream(handler)
            assert not handler.flush()

    queued = Queued(queue_size=1, when_full="block", timeout=threading.TIMEOUT_MAX)
    handler = StreamingCallback(nested, delivery=queued)
    handler.on_chat_model_start({}, [[]], run_id=(run := uuid.uuid4()), batch_size=1)
    handler.on_llm_new_token("x", run_id=run)
    until(lambda: handler.snapshot().totals.outcomes["ok"])
    assert sum(lost(handler).values()) >= 4

    gate = threading.Event()
    stuck = StreamingCallback(lambda text: gate.wait(60), delivery=queued)
    assert asyncio.run(astream(stuck)) == ANSWER
    gate.set()
    assert sum(lost(stuck).values()) >= 3


def test_order_is_kept_within_each_stream() -> None:
    """Many streams at once, one queue: pieces in order, the result after the last."""
    heard: dict[uuid.UUID, list[Any]] = {}

    def show(what: StreamEvent | StreamResult) -> None:
        heard.setdefault(what.run_id, []).append(what)

    handler = StreamingCallback(on_event=show, on_complete=show, delivery=Queued(queue_size=10_000))
    threads = [
        threading.Thread(target=lambda: [stream(handler) for _ in range(10)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.flush(timeout=60)
    assert len(heard) == 80
    for told in heard.values():
        assert [event.index for event in told[:-1]] == [0, 1, 2, 3, 4]
        assert [event.text for event in told[:-1]] == PIECES
        assert told[-1].text == ANSWER


async def test_coroutine_functions_run_in_the_loop_of_the_stream() -> None:
    """In order, each awaited before the next, with the stream not waiting for them."""
    heard: list[Any] = []
    loop = asyncio.get_running_loop()

    async def show(what: Any) -> None:
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        heard.append(what if isinstance(what, str) else type(what).__name__)

    handler = StreamingCallback(show, on_complete=show)
    assert await astream(handler) == ANSWER
    await handler.aflush()
    assert heard == [*PIECES, "StreamResult"]
    await handler.aflush()  # nothing to wait for
    assert len(asyncio.all_tasks()) == 1


def test_coroutine_functions_run_without_a_loop_too() -> None:
    """A sync stream has none: they run in one of the worker's."""
    heard: list[str] = []
    loops = set()

    async def show(text: str) -> None:
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        heard.append(text)

    class Later:
        async def __call__(self, event: StreamEvent) -> None:
            heard.append(event.text)

    handler = StreamingCallback(show, on_event=Later())
    stream(handler)
    assert handler.flush()
    assert heard == [text for text in PIECES for _ in range(2)]
    assert len(loops) == 1


def test_what_is_a_coroutine_function() -> None:
    """Functions, partials of them, and objects with an async `__call__`; such never run inline."""

    async def later(text: str) -> None: ...

    class Later:
        __call__ = staticmethod(later)

    function: Any
    for function in (later, partial(later), Later()):
        assert is_async(function)
        with pytest.raises(ConfigError, match=r"a plain function with delivery=.inline."):
            StreamingCallback(function, delivery="inline")
    for function in (print, partial(print), [].append, lambda text: None):
        assert not is_async(function)


async def test_a_coroutine_that_fails_or_hangs_harms_no_stream() -> None:
    """Failures are counted, a cancellation of its own too; what hangs loses what does not fit."""

    async def broken(text: str) -> None:
        if text == " ":
            raise asyncio.CancelledError
        raise RuntimeError

    handler = StreamingCallback(broken, max_failures=3)
    assert await astream(handler) == ANSWER
    await handler.aflush()
    assert lost(handler) == {"callback_errors": 3}

    never = asyncio.Event()

    async def hangs(text: str) -> None:
        await never.wait()

    stuck = StreamingCallback(hangs, delivery=Queued(queue_size=2, when_full="block"))
    for _ in range(3):
        assert await astream(stuck) == ANSWER
        await asyncio.sleep(0)
    assert sum(lost(stuck).values()) >= 11
    never.set()
    await stuck.aflush()


def test_a_loop_that_ends_takes_its_worker_along() -> None:
    """What still waits is dropped and counted; the next loop begins anew."""
    heard: list[str] = []

    async def show(text: str) -> None:
        heard.append(text)
        await asyncio.sleep(3600 if len(heard) == 1 else 0)

    async def work() -> None:
        await astream(handler)
        while not heard:
            await asyncio.sleep(0)

    handler = StreamingCallback(show)
    asyncio.run(work())
    assert heard == ["alpha"]
    assert lost(handler) == {"stream_events_dropped": 4}

    async def again() -> None:
        await astream(handler)
        await handler.aflush()

    asyncio.run(again())
    assert heard == ["alpha", *PIECES]


def test_the_worker_ends_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler for each request leaves no threads behind; the next token starts one again."""
    monkeypatch.setattr("langmeter._base.delivery._IDLE", 0.01)
    heard: list[str] = []
    handler = StreamingCallback(heard.append, delivery="queued")

    def workers() -> int:
        return sum(thread.name == "langmeter-streams" for thread in threading.enumerate())

    before = workers()
    for n in range(1, 4):
        stream(handler)
        until(lambda: len(heard) == 5 * n and workers() <= before)  # noqa: B023


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"queue_size": 0}, "queue_size must be a whole number from 1 to 1,000,000, got 0"),
        (
            {"when_full": "wait"},
            "when_full must be one of 'drop_oldest', .*, got 'wait'",
        ),
        ({"timeout": -1}, "timeout must be seconds from 0"),
    ],
)
def test_settings_of_a_queue_are_checked(wrong: dict[str, Any], match: str) -> None:
    """At once, with the range."""
    with pytest.raises(ConfigError, match=match):
        Queued(**wrong)


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
