"""How listeners are told: inline or queued, and that none of them harms a stream."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from langmeter import StreamingCallback
from langmeter._base.delivery import Queued, is_async
from langmeter.errors import ConfigError
from langmeter.streaming import StreamEvent, StreamResult
from tests.support.listened import ANSWER, PIECES, astream, stream
from tests.support.models import chat_model
from tests.support.streamed import lost


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
