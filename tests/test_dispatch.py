"""Callbacks that nobody waits for: a bounded queue, one thread, and nothing lost unseen."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from langmeter import _core, _dispatch


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> _dispatch._Dispatcher:
    """A dispatcher with room for two, and nothing of other tests in it."""
    monkeypatch.setattr(_dispatch, "_ROOM", 2)
    monkeypatch.setattr(_dispatch, "_dispatcher", _dispatch._Dispatcher())
    return _dispatch._dispatcher


def dropped(recorder: _core.Recorder) -> dict[str, int]:
    return {name: n for name, n in recorder.snapshot().dropped.items() if n}


def test_what_finds_no_room_is_refused_at_once(fresh: _dispatch._Dispatcher) -> None:
    """One is being called, two wait, the next is told so; those before it are all called."""
    recorder, go, begun, seen = _core.Recorder(), threading.Event(), threading.Event(), []

    def slow(argument: int) -> None:
        begun.set()
        go.wait(30)
        seen.append(argument)
        if argument == 2:
            done.set()

    done = threading.Event()
    assert _dispatch.dispatch(slow, 0, recorder)
    assert begun.wait(30)
    assert [_dispatch.dispatch(slow, n, recorder) for n in (1, 2, 3)] == [True, True, False]
    go.set()
    assert done.wait(30)
    assert seen == [0, 1, 2]


def test_failures_are_counted_and_said_once(
    fresh: _dispatch._Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit too: the thread is its own, and the next callback wants it."""
    recorder, done = _core.Recorder(), threading.Event()

    def fail(error: BaseException) -> None:
        raise error

    with caplog.at_level(logging.WARNING, "langmeter"):
        assert _dispatch.dispatch(fail, SystemExit(1), recorder)
        assert _dispatch.dispatch(fail, ValueError("no"), recorder)
        while not _dispatch.dispatch(lambda _: done.set(), None, recorder):
            pass
        assert done.wait(30)
    assert dropped(recorder) == {"callback_errors": 2}
    assert [record.getMessage().split(" failed")[1] for record in caplog.records] == [
        "; further failures are only counted"
    ]


def test_many_threads_start_one(fresh: _dispatch._Dispatcher) -> None:
    """Whoever comes while the thread is being started finds it started."""
    recorder, called = _core.Recorder(), threading.Semaphore(0)
    fresh._lock.acquire()
    first = threading.Thread(target=fresh.put, args=(lambda _: called.release(), 0, recorder))
    second = threading.Thread(target=fresh.put, args=(lambda _: called.release(), 1, recorder))
    first.start()
    second.start()
    while fresh._queue.qsize() < 2:
        pass
    fresh._lock.release()
    first.join(30)
    second.join(30)
    assert called.acquire(timeout=30)
    assert called.acquire(timeout=30)
    assert not called.acquire(blocking=False)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own(fresh: _dispatch._Dispatcher) -> None:
    """Its parent's is not there, and its lock may be held for ever."""
    recorder, done = _core.Recorder(), threading.Event()
    assert _dispatch.dispatch(lambda _: done.set(), None, recorder)
    assert done.wait(30)
    out, into = os.pipe()
    fresh._lock.acquire()
    child = os.fork()
    if child == 0:
        told = threading.Event()
        accepted = _dispatch.dispatch(lambda _: told.set(), None, recorder)
        os.write(into, b"yes" if accepted and told.wait(30) else b"no")
        os._exit(0)
    fresh._lock.release()
    os.waitpid(child, 0)
    assert os.read(out, 10) == b"yes"


def test_after_a_fork_nothing_of_the_parents_waits(fresh: _dispatch._Dispatcher) -> None:
    """What was queued there is called there."""
    _dispatch._after_fork()
    assert _dispatch._dispatcher is not fresh
    assert _dispatch._dispatcher._thread is None
