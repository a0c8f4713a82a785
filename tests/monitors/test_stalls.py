"""Streams that have gone silent."""

from __future__ import annotations

import gc
import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from langmeter import ConfigError, _core
from langmeter._base import delivery
from langmeter._base.periodic import PeriodicTasks
from langmeter.monitors import stalls
from langmeter.monitors.stalls import Stall, StallObserver
from langmeter.snapshot import Snapshot

BEGIN = 1_800_000_000 * 10**9
LLM = _core.KINDS.index("llm")
OK = _core.OUTCOMES.index("ok")


class Recorder:
    """Streams that are told of by hand, and a clock for them."""

    def __init__(self) -> None:
        self.now = BEGIN
        #: Provider, model, start, last token, token events; by key.
        self.runs: dict[int, list[Any]] = {}
        self.asked: list[float] = []
        self.noted: list[tuple[str, str]] = []
        self.lost: list[str] = []
        self.snapshots = 0
        self.native = _core.Snapshot()

    def clock(self) -> int:
        return self.now

    def seconds(self) -> float:
        return (self.now - BEGIN) / 1e9

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def begin(self, key: int, model: str = "m", provider: str = "p") -> None:
        self.runs[key] = [provider, model, self.now, self.now, 0]

    def token(self, key: int) -> None:
        self.runs[key][3] = self.now
        self.runs[key][4] += 1

    def silent(self, silence: float) -> list[tuple[int, str, str, int, int, int]]:
        self.asked.append(silence)
        return [
            (key, *run)
            for key, run in self.runs.items()
            if run[4] and self.now - run[3] >= silence * 1e9
        ]

    def stalled(self, provider: str, model: str) -> None:
        self.noted.append((provider, model))

    def snapshot(self) -> _core.Snapshot:
        self.snapshots += 1
        return self.native

    def dropped(self, name: str, n: int = 1) -> None:
        self.lost += [name] * n


def streamed(gap: float, model: str = "m", provider: str = "p", n: int = 20) -> _core.Snapshot:
    """A real snapshot of a stream with such gaps between its tokens."""
    clock = _core.ManualClock()
    recorder, run = _core.Recorder(max_series=8, max_runs=8, clock=clock), uuid4()
    recorder.run_started(run, None, LLM, "Chat", provider, model)
    for _ in range(n):
        recorder.token(run)
        clock.advance(gap)
    recorder.run_ended(run, LLM, OK, provider, model)
    return recorder.snapshot()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Stall]:
    """What was told, without waiting for the thread that tells."""

    def inline(name: str, function: Callable[[Stall], Any], count: Any) -> delivery.Listener:
        return delivery.Listener(name, function, None, count)

    monkeypatch.setattr(stalls, "notice_listener", inline)
    return []


def test_a_stream_that_goes_silent_is_told_once(recorder: Recorder, told: list[Stall]) -> None:
    """With how long it is silent, how old it is and how far it came; and counted."""
    run = uuid4()
    watch = StallObserver(
        recorder, told.append, 2, run_id=lambda key: run if key == 7 else None, clock=recorder.clock
    )
    recorder.begin(7, "gpt-4o", "openai")
    recorder.wait(1)
    for _ in range(3):
        recorder.token(7)
        recorder.wait(0.5)
    for _ in range(9):
        watch.tick()
        recorder.wait(0.5)
    assert told == [Stall(run, "openai", "gpt-4o", 2.0, 4.0, 3)]
    assert recorder.noted == [("openai", "gpt-4o")]
    assert set(recorder.asked) == {2.0}
    assert recorder.snapshots == 0


def test_it_is_told_again_after_more_tokens(recorder: Recorder, told: list[Stall]) -> None:
    """Whether or not the watch looked in between."""
    watch = StallObserver(recorder, told.append, 1, clock=recorder.clock)
    recorder.begin(1)
    for look_between in (True, False, True):
        recorder.token(1)
        if look_between:
            watch.tick()
        recorder.wait(1)
        watch.tick()
        watch.tick()
    assert [stall.token_events for stall in told] == [1, 2, 3]
    assert {stall.run_id for stall in told} == {None}


def test_a_key_that_another_run_has_now_is_that_runs(recorder: Recorder, told: list[Stall]) -> None:
    """The second stalls at the same number of tokens, in the place of the first."""
    watch = StallObserver(recorder, told.append, 1, clock=recorder.clock)
    for _ in range(2):
        recorder.begin(1)
        recorder.token(1)
        recorder.wait(1)
        watch.tick()
    assert [stall.token_events for stall in told] == [1, 1]


def test_many_streams_are_told_apart(recorder: Recorder, told: list[Stall]) -> None:
    """Each once; one that never sent anything has not stalled; what ended is forgotten."""
    watch = StallObserver(recorder, told.append, 1, clock=recorder.clock)
    for key in range(100):
        recorder.begin(key, f"m{key}")
        if key % 2:
            recorder.token(key)
    recorder.wait(1)
    watch.tick()
    recorder.token(1)
    recorder.wait(0.5)
    watch.tick()
    assert sorted(stall.model for stall in told) == sorted(f"m{key}" for key in range(1, 100, 2))
    assert len(watch._told) == 49
    recorder.runs.clear()
    watch.tick()
    assert watch._told == {}


def test_by_default_a_stall_is_ten_seconds(recorder: Recorder, told: list[Stall]) -> None:
    """For a model whose gaps are short, or not known."""
    recorder.native = streamed(0.1)
    watch = StallObserver(recorder, told.append, clock=recorder.clock)
    for key, model in enumerate(("m", "unknown")):
        recorder.begin(key, model)
        recorder.token(key)
    recorder.wait(9.9)
    watch.tick()
    assert told == []
    assert recorder.snapshots == 0
    recorder.wait(0.1)
    watch.tick()
    assert [(stall.model, stall.silent_for) for stall in told] == [("m", 10), ("unknown", 10)]


@pytest.mark.parametrize("model", ["slow", "slow-2026-01-31"])
def test_a_slow_model_may_be_silent_for_eight_of_its_gaps(
    recorder: Recorder, told: list[Stall], model: str
) -> None:
    """By the 99th percentile; also where the answer names the model more exactly."""
    recorder.native = streamed(4.0, model) + streamed(9.0, "slow", "another")
    watch = StallObserver(recorder, told.append, clock=recorder.clock)
    recorder.begin(1, "slow")
    recorder.token(1)
    for _ in range(31):
        recorder.wait(1)
        watch.tick()
    assert told == []
    for _ in range(4):
        recorder.wait(1)
        watch.tick()
    (stall,) = told
    assert stall.silent_for == pytest.approx(32, abs=1)


def test_gaps_are_asked_for_at_most_every_half_minute(recorder: Recorder) -> None:
    """And only while something is silent that was not told of."""
    recorder.native = streamed(20.0)
    watch = StallObserver(recorder, clock=recorder.clock)
    recorder.begin(1)
    recorder.token(1)
    for _ in range(99):
        recorder.wait(1)
        watch.tick()
    assert recorder.snapshots == 3  # after 10, 40 and 70 seconds
    recorder.runs.clear()
    for _ in range(99):
        recorder.wait(1)
        watch.tick()
    assert recorder.snapshots == 3


def test_a_clock_set_back_delays_no_stall(recorder: Recorder, told: list[Stall]) -> None:
    """The recorder decides whether a stream is silent, by its own clock."""
    watch = StallObserver(recorder, told.append, 1, clock=lambda: BEGIN - 3600 * 10**9)
    default = StallObserver(recorder, told.append, clock=lambda: BEGIN - 3600 * 10**9)
    recorder.begin(1)
    recorder.token(1)
    recorder.wait(10)
    watch.tick()
    default.tick()
    assert told == [Stall(None, "p", "m", 0.0, 0.0, 1)] * 2


def test_without_a_callback_stalls_are_counted(recorder: Recorder) -> None:
    """All that a snapshot needs."""
    watch = StallObserver(recorder, clock=recorder.clock)
    recorder.begin(1)
    recorder.token(1)
    recorder.wait(10)
    watch.tick()
    assert recorder.noted == [("p", "m")]
    assert recorder.lost == []


def stall_once(recorder: Recorder, on_stall: Callable[[Stall], Any]) -> None:
    watch = StallObserver(recorder, on_stall, 1, clock=recorder.clock)
    recorder.begin(1)
    recorder.token(1)
    recorder.wait(1)
    watch.tick()


def test_it_is_told_in_a_thread_of_its_own(recorder: Recorder) -> None:
    """Not in the one that looks, which a slow callback would hold up."""
    heard: queue.Queue[tuple[Stall, threading.Thread]] = queue.Queue()
    stall_once(recorder, lambda stall: heard.put((stall, threading.current_thread())))
    stall, thread = heard.get(timeout=10)
    assert stall.silent_for == 1
    assert thread is not threading.current_thread()
    assert thread.name == "langmeter-callbacks"


def test_a_callback_that_fails_or_waits_too_long_is_counted(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As callback_errors of the recorder; what was not told is still noted."""
    done = threading.Event()
    monkeypatch.setattr(
        recorder,
        "dropped",
        lambda name, n=1: (recorder.lost.append(name), done.set()),  # type: ignore[func-returns-value]
    )
    with caplog.at_level(logging.WARNING, "langmeter"):
        stall_once(recorder, lambda stall: 1 // 0)
        assert done.wait(10)
    monkeypatch.setattr(delivery._Waiting, "full", True)
    stall_once(recorder, lambda stall: None)
    assert recorder.lost == ["callback_errors", "callback_errors"]
    assert len(recorder.noted) == 2


def test_the_ticker_looks_every_second_or_four_times_in_a_stall(recorder: Recorder) -> None:
    """From `start` to `stop`."""
    tasks = PeriodicTasks(recorder.seconds, by_hand=True)
    for limit, seconds in ((None, 1.0), (60, 1.0), (1, 0.25), (0.05, 0.0125)):
        watch = StallObserver(recorder, stall_after=limit, clock=recorder.clock, tasks=tasks)
        recorder.asked.clear()
        assert watch.seconds == seconds
        watch.start()
        watch.start()
        recorder.wait(seconds)
        assert tasks.run_due() == pytest.approx(seconds)
        assert len(recorder.asked) == 1
        watch.stop()
        watch.stop()
        assert tasks.run_due() is None


def test_the_watch_holds_no_recorder(recorder: Recorder) -> None:
    """It ends with it."""
    clock = iter(range(0, 1000, 10))
    tasks = PeriodicTasks(lambda: next(clock), by_hand=True)
    mortal = Recorder()
    gone = weakref.ref(mortal)
    watch = StallObserver(mortal, tasks=tasks)
    watch.start()
    del mortal
    gc.collect()
    assert gone() is None
    assert tasks.run_due() is None
    watch.tick()


def test_what_goes_wrong_is_counted_and_goes_on(recorder: Recorder, told: list[Stall]) -> None:
    """In the recorder and by the ticker; every other stall is told, and none twice."""

    def run_id(key: int) -> UUID | None:
        return dict.fromkeys((1, 3))[key]

    watch = StallObserver(recorder, told.append, 1, run_id=run_id, clock=recorder.clock)
    for key in (1, 2, 3):
        recorder.begin(key, f"m{key}")
        recorder.token(key)
    recorder.wait(1)
    with pytest.raises(KeyError):
        watch.tick()
    watch.tick()
    watch.tick()
    assert [stall.model for stall in told] == ["m1", "m3"]
    assert [model for _, model in recorder.noted] == ["m1", "m2", "m3"]
    assert recorder.lost == ["hook_errors"]


@pytest.mark.parametrize("wrong", [0, 0.049, -1, 86_401, float("nan"), float("inf"), "3", True])
def test_a_time_outside_its_range_is_refused(recorder: Recorder, wrong: Any) -> None:
    """By name, with the range and what None would be."""
    with pytest.raises(ValueError, match=r"stall_after must be seconds from 0.05 .*; leave it out"):
        StallObserver(recorder, stall_after=wrong)


class Async:
    async def __call__(self, stall: Stall) -> None: ...


async def tell(stall: Stall) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "a plain function"),
        (tell, "never be awaited"),
        (Async(), "never be awaited"),
    ],
)
def test_what_cannot_be_called_is_refused(recorder: Recorder, wrong: Any, message: str) -> None:
    """Also a coroutine, with what to do instead."""
    with pytest.raises(ConfigError, match=f"on_stall must be .*{message}"):
        StallObserver(recorder, wrong)


def test_a_real_recorder_counts_a_real_stall(told: list[Stall]) -> None:
    """With a clock that moves by hand, in the recorder's own names."""
    clock = _core.ManualClock()
    recorder = _core.Recorder(max_series=8, max_runs=8, clock=clock)
    quiet, busy = uuid4(), uuid4()
    ids = {hash(run.int): run for run in (quiet, busy)}
    watch = StallObserver(recorder, told.append, 2, run_id=ids.get)
    for run in (quiet, busy):
        recorder.run_started(run, None, LLM, "Chat", "openai", "gpt-4o")
        recorder.token(run)
    clock.advance(1.5)
    recorder.token(busy)
    clock.advance(1)
    watch.tick()
    watch.tick()
    assert [(stall.run_id, stall.model, stall.token_events) for stall in told] == [
        (quiet, "gpt-4o", 1)
    ]
    (stats,) = Snapshot(recorder.snapshot()).models.values()
    assert stats.stalls == 1
