"""Callbacks that no call waits for: a bounded queue, one thread, and every loss counted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from langmeter import _core
from langmeter._base import delivery
from langmeter._base.delivery import Listener, Queue, Queued, notice_listener


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue with room for two in the place of the shared one."""
    queue = Queue(Queued(queue_size=2, when_full="drop_newest"))
    monkeypatch.setattr(delivery, "notices", queue)
    return queue


def listener(recorder: _core.Recorder, function: Callable[[Any], Any]) -> Listener:
    return notice_listener("on_test", function, recorder.dropped)


def dropped(recorder: _core.Recorder) -> dict[str, int]:
    return {name: n for name, n in recorder.snapshot().dropped.items() if n}


def test_a_call_that_finds_no_room_is_dropped_and_counted(small: Queue) -> None:
    """One call runs, two wait, the next is counted as `callback_errors`; the three are made."""
    recorder, go, begun, seen = _core.Recorder(), threading.Event(), threading.Event(), []

    def slow(argument: int) -> None:
        begun.set()
        go.wait(30)
        seen.append(argument)

    slow_listener = listener(recorder, slow)
    slow_listener.notify(0)
    assert begun.wait(30)
    for argument in (1, 2, 3):
        slow_listener.notify(argument)
    go.set()
    assert small.flush(30)
    assert seen == [0, 1, 2]
    assert dropped(recorder) == {"callback_errors": 1}


def test_failures_are_counted_and_logged_once(
    small: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit is caught too: the thread belongs to langmeter, and the next callback needs it."""
    recorder, done = _core.Recorder(), threading.Event()

    def fail(error: BaseException) -> None:
        raise error

    failing = listener(recorder, fail)
    with caplog.at_level(logging.WARNING, "langmeter"):
        failing.notify(SystemExit(1))
        failing.notify(ValueError("no"))
        assert small.flush(30)
        listener(recorder, lambda _: done.set()).notify(None)
        assert done.wait(30)
    assert dropped(recorder) == {"callback_errors": 2}
    assert [record.getMessage().split(" failed")[1] for record in caplog.records] == [
        "; the call goes on, and further failures are only counted"
    ]


def test_an_async_callback_is_awaited(small: Queue) -> None:
    """A coroutine function is run to its end in the worker thread."""
    recorder, seen = _core.Recorder(), []

    async def note(argument: int) -> None:
        seen.append(argument)

    listener(recorder, note).notify(5)
    assert small.flush(30)
    assert seen == [5]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    """The parent's thread does not exist in the child, and its lock may be held there for ever."""
    recorder, done = _core.Recorder(), threading.Event()
    listener(recorder, lambda _: done.set()).notify(None)
    assert done.wait(30)
    out, into = os.pipe()
    with delivery.notices._thread._changed:
        child = os.fork()
        if child == 0:
            told = threading.Event()
            listener(recorder, lambda _: told.set()).notify(None)
            os.write(into, b"yes" if told.wait(30) else b"no")
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(out, 10) == b"yes"
    os.close(out)
    os.close(into)


def test_a_reset_queue_holds_nothing(small: Queue) -> None:
    """Calls that wait in the parent are made in the parent alone."""
    small._thread.items.append((listener(_core.Recorder(), print), 1, False))
    small.reset()
    assert not small._thread.items
    assert small._thread._thread is None
