"""Subscriptions: differences of snapshots, handed to functions of users'."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from langmeter import ConfigError, Meter, Snapshot, TokenCountingCallback
from langmeter._base.delivery import notices
from tests.support.models import call
from tests.support.waiting import eventually

NEVER = 86_400.0


def count(differences: list[Snapshot]) -> int:
    return sum(difference.totals.calls for difference in differences)


def test_the_differences_of_each_observer_add_up() -> None:
    """Two observers of one recorder get differences of their own, and lose nothing."""
    meter = Meter()
    call(meter, 3)  # before: in no difference
    before = meter.snapshot()
    fast: list[Snapshot] = []
    slow: list[Snapshot] = []
    ends = [meter.subscribe(0.005, fast.append), meter.subscribe(NEVER, slow.append)]
    for expected in (5, 12):
        call(meter, expected - count(fast))
        assert eventually(lambda expected=expected: count(fast) == expected)  # type: ignore[misc]
    assert slow == []
    for end in ends:
        end()
    assert notices.flush(60)
    assert count(fast) == count(slow) == 12
    assert len(slow) == 1
    for differences in (fast, slow):
        total = sum(differences, Snapshot())
        assert total.totals.tokens == (meter.snapshot() - before).totals.tokens
        assert total.totals.latency == (meter.snapshot() - before).totals.latency


def test_nothing_comes_after_the_end() -> None:
    """The last call is made at the end; ending twice does nothing more."""
    meter = Meter()
    differences: list[Snapshot] = []
    end = meter.subscribe(0.002, differences.append)
    call(meter)
    end()
    assert notices.flush(60)
    number = len(differences)
    end()
    call(meter)
    assert notices.flush(60)
    assert len(differences) == number
    assert count(differences) == 1


def test_a_slow_function_gets_longer_differences() -> None:
    """While the function runs nothing piles up; the next difference has it all."""
    meter = Meter()
    gate, entered = threading.Event(), threading.Event()
    differences: list[Snapshot] = []

    def slow(difference: Snapshot) -> None:
        differences.append(difference)
        entered.set()
        gate.wait(60)

    end = meter.subscribe(0.002, slow)
    call(meter)
    assert entered.wait(60)
    call(meter, 9)
    end()
    gate.set()
    assert notices.flush(60)
    assert count(differences) == 10
    assert len(differences) <= 3


def test_a_function_that_fails_harms_neither_the_call_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its failures are counted, logged once, and it is called again."""
    meter = Meter()
    calls: list[int] = []
    good: list[Snapshot] = []

    def fails(difference: Snapshot) -> None:
        calls.append(difference.totals.calls)
        raise RuntimeError("mine")

    ends = [meter.subscribe(0.002, fails), meter.subscribe(0.002, good.append)]
    call(meter, 2)
    assert eventually(lambda: len(calls) >= 3 and count(good) == 2)
    for end in ends:
        end()
    assert notices.flush(60)
    assert meter.snapshot().dropped["callback_errors"] == len(calls)
    assert sum("mine" in str(record.exc_info) for record in caplog.records) == 1
    assert "fails" in caplog.text


def test_no_thread_begins_before_the_first_call() -> None:
    """A server that forks its workers afterwards must not have one."""
    meter = Meter()
    end = meter.subscribe(0.005, lambda _: None)
    (observer,) = meter._services.subscriptions
    assert observer._task is None
    call(meter)
    assert observer._task is not None
    end()
    assert observer._task is None


def test_a_meter_that_goes_takes_its_subscriptions_along() -> None:
    """Neither the thread nor the function holds the meter."""
    meter = Meter()
    meter.subscribe(0.005, lambda _: None)
    call(meter)
    services = weakref.ref(meter._services)
    del meter
    gc.collect()
    assert services() is None


def test_any_handler_has_it() -> None:
    """A handler of one kind has differences of its recorder, too."""
    handler = TokenCountingCallback()
    differences: list[Snapshot] = []
    end = handler.subscribe(NEVER, differences.append)
    call(handler)
    end()
    assert notices.flush(60)
    assert differences[0].totals.tokens.total == 140


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_its_own_differences() -> None:
    """The child's first difference is what the child counted, and none of its parent's calls."""
    meter = Meter()
    differences: list[Snapshot] = []
    meter.subscribe(0.005, differences.append)
    call(meter, 3)
    assert eventually(lambda: count(differences) == 3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            differences.clear()
            call(meter, 2)
            code = 0 if eventually(lambda: count(differences) == 2) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert count(differences) == 3


async def _coroutine(difference: Snapshot) -> None: ...


@pytest.mark.parametrize(
    ("seconds", "function", "message"),
    [
        (0, print, "seconds must be"),
        ("1", print, "seconds must be"),
        (1, None, "function must be a plain function of one Snapshot"),
        (1, _coroutine, "never be awaited"),
    ],
)
def test_bad_arguments_are_refused(
    seconds: Any, function: Callable[..., Any], message: str
) -> None:
    """Seconds must be in range, and the function a plain one."""
    with pytest.raises(ConfigError, match=message):
        Meter().subscribe(seconds, function)
