"""The thread for what is done every few seconds."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from langmeter._base import periodic
from langmeter._base.periodic import PeriodicTasks


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Task:
    """Counts its calls; `hook` is called in each."""

    def __init__(self, hook: Callable[[], Any] | None = None) -> None:
        self.calls = 0
        self.hook = hook
        self.called = threading.Event()

    def tick(self) -> None:
        self.calls += 1
        self.called.set()
        if self.hook is not None:
            self.hook()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tasks(clock: Clock) -> PeriodicTasks:
    return PeriodicTasks(clock, by_hand=True)


@pytest.fixture
def threaded() -> Iterator[PeriodicTasks]:
    """A ticker with a thread of its own, which has ended when the test has."""
    tasks = PeriodicTasks()
    yield tasks
    for handle in list(tasks._tasks):
        handle.cancel()
    assert ended(tasks)


def ended(tasks: PeriodicTasks) -> bool:
    thread = tasks._thread
    if thread is not None:
        thread.join(10)
    return not tasks.running


def test_each_task_is_called_in_its_own_time(tasks: PeriodicTasks, clock: Clock) -> None:
    """First after its time, then every time; `run_due` says how long to wait for the next."""
    fast, slow = Task(), Task()
    tasks.every(1, fast.tick)
    tasks.every(2.5, slow.tick)
    waits = []
    for clock.now in (0, 0.5, 1, 2, 2.5, 3, 4):
        waits.append(tasks.run_due())
    assert (fast.calls, slow.calls) == (4, 1)
    assert waits == [1, 0.5, 1, 0.5, 0.5, 1, 1]


def test_the_first_call_may_be_sooner(tasks: PeriodicTasks, clock: Clock) -> None:
    """So that a task is called at whole minutes of the day."""
    task = Task()
    tasks.every(60, task.tick, first=13)
    calls = []
    for clock.now in (12.9, 13, 72.9, 73, 133):
        tasks.run_due()
        calls.append(task.calls)
    assert calls == [0, 1, 1, 2, 3]


def test_what_was_missed_is_not_made_up_for(tasks: PeriodicTasks, clock: Clock) -> None:
    """After an hour of sleep a task runs once, and next after its own time."""
    task = Task()
    tasks.every(1, task.tick)
    clock.now = 3600
    assert tasks.run_due() == 1
    assert tasks.run_due() == 1
    assert task.calls == 1


def test_a_task_slower_than_its_time_leaves_time_to_the_others(
    tasks: PeriodicTasks, clock: Clock
) -> None:
    """It is due again only its own time after it ended."""

    def slow() -> None:
        clock.now += 5

    task = Task(slow)
    tasks.every(1, task.tick)
    clock.now = 1
    assert tasks.run_due() == 1
    assert (clock.now, task.calls) == (6, 1)


def test_a_cancelled_task_is_called_no_more(tasks: PeriodicTasks, clock: Clock) -> None:
    """And with the last task there is nothing to wait for."""
    task = Task()
    handle = tasks.every(1, task.tick)
    assert handle.active
    handle.cancel()
    handle.cancel()
    clock.now = 5
    assert tasks.run_due() is None
    assert task.calls == 0
    assert not handle.active


def test_a_task_may_cancel_itself_and_others(tasks: PeriodicTasks, clock: Clock) -> None:
    """From within its call; a task that was due in the same step is not called any more."""
    second = Task()

    def both() -> None:
        for handle in handles:
            handle.cancel()

    first = Task(both)
    handles = [tasks.every(1, first.tick), tasks.every(1, second.tick)]
    clock.now = 1
    assert tasks.run_due() is None
    assert (first.calls, second.calls) == (1, 0)


def test_a_task_goes_with_its_object(tasks: PeriodicTasks, clock: Clock) -> None:
    """The ticker keeps nothing alive, not even an object whose method has run and failed."""
    task = Task()
    seen = weakref.ref(task)
    handle = tasks.every(1, task.tick)
    clock.now = 1
    assert tasks.run_due() == 1
    del task
    gc.collect()
    assert seen() is None
    assert not handle.active
    clock.now = 2
    assert tasks.run_due() is None
    assert tasks._tasks == []


def test_a_failing_task_harms_no_other(
    tasks: PeriodicTasks, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each failure is counted, the first is logged, and all tasks go on."""

    def fail() -> None:
        raise SystemExit("no more")

    bad, good = Task(fail), Task()
    failing, fine = tasks.every(1, bad.tick), tasks.every(1, good.tick)
    with caplog.at_level(logging.WARNING, "langmeter"):
        for clock.now in (1, 2, 3):
            assert tasks.run_due() == 1
    assert (bad.calls, good.calls) == (3, 3)
    assert (failing.failures, fine.failures) == (3, 0)
    (record,) = caplog.records
    assert "Task.tick failed; further failures are only counted" in record.message
    assert record.exc_info is not None
    assert record.exc_info[0] is SystemExit


@pytest.mark.parametrize("wrong", [0, -1, 1e-9, 86_401, float("nan"), float("inf"), "1", True])
def test_a_time_outside_its_range_is_refused(tasks: PeriodicTasks, wrong: Any) -> None:
    """By name, with the range."""
    with pytest.raises(ValueError, match=r"seconds must be a number from 0.001 to 86,400.0, got "):
        tasks.every(wrong, Task().tick)


@pytest.mark.parametrize("wrong", [print, lambda: None, [].clear, None])
def test_only_bound_methods_are_taken(tasks: PeriodicTasks, wrong: Any) -> None:
    """Nothing says how long a plain function is needed."""
    with pytest.raises(TypeError, match="must be a bound method"):
        tasks.every(1, wrong)
    assert tasks.run_due() is None


def test_the_thread_is_there_while_it_is_needed(threaded: PeriodicTasks) -> None:
    """It starts with the first task, is a daemon, ends with the last one, and starts again."""
    assert not threaded.running
    for _ in range(2):
        one, two = Task(), Task()
        handles = [threaded.every(0.001, one.tick), threaded.every(0.001, two.tick)]
        assert one.called.wait(10)
        assert two.called.wait(10)
        thread = threaded._thread
        assert thread is not None
        assert thread.daemon
        handles[0].cancel()
        two.called.clear()
        assert two.called.wait(10)
        assert threaded._thread is thread
        handles[1].cancel()
        assert ended(threaded)
        assert not thread.is_alive()


def test_the_thread_ends_when_the_last_object_has_gone(threaded: PeriodicTasks) -> None:
    """At once, not after the day that its task had still to wait."""
    task = Task()
    threaded.every(86_400, task.tick)
    assert threaded.running
    del task
    gc.collect()
    assert ended(threaded)


def test_a_new_task_wakes_a_thread_that_waits_for_a_later_one(threaded: PeriodicTasks) -> None:
    """The soonest task sets how long it waits."""
    later, soon = Task(), Task()
    threaded.every(86_400, later.tick)
    threaded.every(0.001, soon.tick)
    assert soon.called.wait(10)
    assert later.calls == 0


def test_a_finaliser_may_begin_a_task_anywhere(tasks: PeriodicTasks) -> None:
    """Also one that runs while the ticker itself holds its lock."""
    task = Task()
    with tasks._lock:
        handle = tasks.every(1, task.tick)
        tasks.resume()
    assert tasks._tasks == [handle]


def test_where_no_thread_can_start_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and tried again with the next task."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    tasks, task = PeriodicTasks(), Task()
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "langmeter"):
        patched.setattr(threading.Thread, "start", refuse)
        handles = [tasks.every(0.001, task.tick) for _ in range(2)]
        assert not tasks.running
    assert [record.message for record in caplog.records] == [
        "no thread for what is done at times: can't start new thread"
    ]
    tasks.resume()
    assert task.called.wait(10)
    for handle in handles:
        handle.cancel()
    assert ended(tasks)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_resumes_its_parents_tasks() -> None:
    """It has no thread until it asks for one, though its parent forked with the lock taken."""
    task = Task()
    handle = periodic.every(0.001, task.tick)
    assert task.called.wait(10)
    read, write = os.pipe()
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with periodic.shared._lock:
            taken.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        before = periodic.shared.running
        task.called.clear()
        # Not forever, should the lock be taken here as well.
        signal.alarm(20)
        periodic.resume()
        os.write(write, f"{before} {task.called.wait(10)}".encode())
        os._exit(0)
    release.set()
    holder.join()
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"False True"
    os.close(read)
    os.close(write)
    handle.cancel()
    assert not handle.active  # others may go on: the whole process shares this ticker


@pytest.mark.process
def test_it_keeps_no_interpreter_from_its_exit() -> None:
    """A task that is due in a day, and one that runs for ever, die with the process."""
    script = (
        "import threading\n"
        "from langmeter._base import periodic\n"
        "class Task:\n"
        "    begun = threading.Event()\n"
        "    def later(self): pass\n"
        "    def ever(self):\n"
        "        self.begun.set()\n"
        "        threading.Event().wait()\n"
        "task = Task()\n"
        "periodic.every(86_400, task.later)\n"
        "periodic.every(0.001, task.ever)\n"
        "assert task.begun.wait(10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
