"""The detector of anomalies, and the watch over a recorder."""

from __future__ import annotations

import gc
import os
import random
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from langmeter import _core
from langmeter._base.periodic import PeriodicTasks
from langmeter.monitors.anomalies import Anomaly, AnomalyDetector, AnomalyObserver, FixRow, Row
from langmeter.snapshot import Snapshot
from tests.support.changes import BEGIN, TICK, at


class Sums(NamedTuple):
    """What one model's calls are like: their number a tick, and each one's figures."""

    calls: int = 20
    errors: float = 0.05
    tokens: int = 300
    cost: int = 600_000
    latency: float = 1.0


def rows(*stretches: tuple[int, Sums], model: str = "m", seed: int = 0) -> Iterator[Row]:
    """Cumulative figures: so many ticks of each kind, with some noise."""
    random_ = random.Random(seed)
    calls = errors = tokens = cost = 0
    latency = 0.0
    yield ("p", model, 0, 0, 0, 0, 0.0)
    for ticks, one in stretches:
        for _ in range(ticks):
            failed = sum(random_.random() < one.errors for _ in range(one.calls))
            some = round(one.tokens * (one.calls - failed) * random_.uniform(0.9, 1.1))
            calls, errors, tokens = calls + one.calls, errors + failed, tokens + some
            cost += some * one.cost
            latency += one.latency * one.calls * random_.uniform(0.9, 1.1)
            yield ("p", model, calls, errors, tokens, cost, latency)


def play(detector: AnomalyDetector, stream: Iterable[Row]) -> list[Anomaly]:
    return [
        found
        for tick, row in enumerate(stream)
        for found in detector.observe([row], BEGIN + tick * TICK)
    ]


def test_a_slower_model_is_told_with_its_times() -> None:
    """When it began and was certain, in UTC; means in seconds; every call is on a side."""
    stream = rows((100, Sums()), (20, Sums(latency=1.6)))
    (found,) = play(AnomalyDetector(), stream)
    assert (found.provider, found.model, found.metric) == ("p", "m", "latency")
    assert found.before == pytest.approx(1.0, rel=0.05)
    assert found.after == pytest.approx(1.6, rel=0.05)
    assert found.at == at(100)
    assert at(102) < found.detected_at <= at(106)
    assert found.calls_before == 2000
    assert found.calls_after == (found.detected_at - found.at).total_seconds() / 5 * 20


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (Sums(errors=0.5), [("error_rate", 0.05, 0.5)]),
        (Sums(tokens=600), [("cost_per_call", 18e-5, 36e-5), ("tokens_per_call", 300, 600)]),
        (Sums(cost=300_000), [("cost_per_call", 18e-5, 9e-5)]),
        (Sums(calls=200), []),
        (Sums(calls=2), []),
    ],
)
def test_each_figure_is_told_in_its_unit(changed: Sums, expected: list[Any]) -> None:
    """A share, tokens, US dollars. Failures do not make calls cheaper."""
    found = play(AnomalyDetector(), rows((100, Sums()), (60, changed), seed=1))
    assert sorted((one.metric, one.before, one.after) for one in found) == [
        (metric, pytest.approx(before, rel=0.2), pytest.approx(after, rel=0.2))
        for metric, before, after in expected
    ]


def test_a_rarely_called_model_is_watched_batch_by_batch() -> None:
    """Two calls a tick make a batch in ten; it begins where the first of them can have ended."""
    stream = rows((600, Sums(calls=2)), (200, Sums(calls=2, latency=2.0)))
    (found,) = play(AnomalyDetector(), stream)
    assert abs((found.at - at(600)).total_seconds()) <= 50
    assert found.calls_after % 20 == 0
    # Ticks without calls belong to no batch: a change after a quiet hour did not begin in it.
    quiet = (720, Sums(calls=0))
    stream = rows((100, Sums()), quiet, (20, Sums(latency=2.0)))
    (found,) = play(AnomalyDetector(), stream)
    assert found.at == at(820)


def test_models_do_not_mix_and_are_capped() -> None:
    """Each has levels of its own; those beyond the cap are counted, not watched."""
    steady, slower, third = (
        list(rows((100, Sums()), (20, Sums(latency=factor)), model=name))
        for name, factor in (("a", 1.0), ("b", 2.0), ("c", 2.0))
    )
    detector = AnomalyDetector(max_models=2)
    found = []
    for tick, row in enumerate(zip(steady, slower, third, strict=True)):
        found += detector.observe(row, BEGIN + tick * TICK)
    assert [one.model for one in found] == ["b"]
    assert (detector.watched, detector.unwatched) == (2, 1)
    assert detector.observe([], BEGIN) == []
    assert (detector.watched, detector.unwatched) == (2, 0)


def test_figures_that_fall_begin_anew() -> None:
    """Those of another recorder are not compared with those of the first."""
    detector = AnomalyDetector()
    assert play(detector, rows((100, Sums()))) == []
    assert play(detector, rows((100, Sums(latency=9.0)))) == []
    (found,) = play(detector, rows((100, Sums()), (20, Sums(latency=2.0)))) or [None]  # type: ignore[list-item]
    assert found is not None
    assert found.calls_before == 2000


def test_a_detector_that_begins_late_counts_from_there() -> None:
    """What was before its first tick is not a batch."""
    stream = list(rows((100, Sums(latency=5.0)), (100, Sums()), (10, Sums(latency=2.0))))
    (found,) = play(AnomalyDetector(), stream[100:])
    assert found.calls_before == 2000


@pytest.mark.parametrize("name", ["min_calls", "max_models"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3", 10**9])
def test_a_detector_refuses_what_it_cannot_do(name: str, wrong: Any) -> None:
    """By name, with the range."""
    with pytest.raises(ValueError, match=rf"{name} must be a whole number from 1 to .*, got "):
        AnomalyDetector(**{name: wrong})


class Recorder:
    """Plays rows, and keeps what it is told."""

    def __init__(self, stream: Iterable[Row] = ()) -> None:
        self.stream = iter(stream)
        self.lost: list[str] = []

    def pulse(self) -> list[tuple[str, str, int, int, int, int, int]]:
        row = next(self.stream)
        return [(*row[:6], round(row[6] * 1e9))]

    def fix_pulse(self) -> list[FixRow]:
        return []

    def dropped(self, name: str, n: int = 1) -> None:
        self.lost += [name] * n


class Clock:
    """Time of one's own: nanoseconds for the watch, seconds for the ticker."""

    def __init__(self) -> None:
        self.ns = BEGIN

    def seconds(self) -> float:
        return (self.ns - BEGIN) / 1e9

    def __call__(self) -> int:
        return self.ns


def test_the_watch_keeps_what_it_finds_for_snapshots() -> None:
    """Asked every five seconds by the ticker; what goes into a snapshot comes out of it."""
    recorder = Recorder(rows((100, Sums()), (20, Sums(latency=1.6))))
    clock = Clock()
    tasks = PeriodicTasks(clock.seconds, by_hand=True)
    watch = AnomalyObserver(recorder, clock=clock, tasks=tasks)
    assert tasks.run_due() is None
    watch.start()
    watch.start()
    for _ in range(120):
        clock.ns += TICK
        assert tasks.run_due() == 5
    (found,) = Snapshot(_core.Recorder().snapshot(watch.changes)).anomalies
    assert (found.provider, found.model, found.metric) == ("p", "m", "latency")
    # The first tick was after five seconds, with the figures of no call.
    assert found.at == at(101)
    assert found.detected_at == at(101 + found.calls_after // 20)
    assert found.before == pytest.approx(1.0, rel=0.05)
    assert found.after == pytest.approx(1.6, rel=0.05)
    assert found.calls_before == 2000
    assert recorder.lost == []
    watch.stop()
    watch.stop()
    assert tasks.run_due() is None
    watch.start()
    assert tasks.run_due() == 5


def test_the_watch_holds_no_recorder_and_nobody_holds_the_watch() -> None:
    """It ends with the recorder, or when it is let go of."""
    clock = Clock()
    tasks = PeriodicTasks(clock.seconds, by_hand=True)
    recorder = Recorder()
    watch = AnomalyObserver(recorder, tasks=tasks)
    watch.start()
    gone = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert gone() is None
    clock.ns += TICK
    assert tasks.run_due() is None
    recorder = Recorder()
    watch = AnomalyObserver(recorder, tasks=tasks)
    watch.start()
    assert tasks.run_due() == 5
    del watch
    gc.collect()
    assert tasks.run_due() is None


def test_what_goes_wrong_is_counted_and_goes_on() -> None:
    """In the recorder, and by the ticker, which logs it once."""
    clock = Clock()
    tasks = PeriodicTasks(clock.seconds, by_hand=True)
    recorder = Recorder()  # has no row to give
    watch = AnomalyObserver(recorder, seconds=1, clock=clock, tasks=tasks)
    watch.start()
    for _ in range(3):
        clock.ns += TICK
        assert tasks.run_due() == 1
    assert recorder.lost == ["hook_errors"] * 3
    with pytest.raises(StopIteration):
        watch.tick()


def test_a_forked_child_learns_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recorder begins from zero; what the parent learned is not compared with it."""
    stream = rows((40, Sums()), (80, Sums(latency=3.0)))
    recorder, clock = Recorder(stream), Clock()
    watch = AnomalyObserver(recorder, clock=clock, tasks=PeriodicTasks(by_hand=True))
    for tick in range(121):
        if tick == 40:
            monkeypatch.setattr(os, "getpid", lambda: -1)
        clock.ns += TICK
        watch.tick()
    assert watch.changes == ()


def test_a_forked_child_has_none_of_its_parents_anomalies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even before its first look."""
    recorder, clock = Recorder(rows((100, Sums()), (20, Sums(latency=3.0)))), Clock()
    watch = AnomalyObserver(recorder, clock=clock, tasks=PeriodicTasks(by_hand=True))
    for _ in range(121):
        clock.ns += TICK
        watch.tick()
    assert len(watch.changes) == 1
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert watch.changes == ()


def test_old_anomalies_are_forgotten_and_counted() -> None:
    """A figure that never rests fills no memory."""

    class Restless(AnomalyDetector):
        def observe(
            self, rows: Iterable[Row], at_ns: int, fixes: Iterable[FixRow] = ()
        ) -> list[Anomaly]:
            return [Anomaly(at(n), at(n), "p", "m", "latency", 1.0, 2.0, n, 1) for n in range(300)]

    recorder = Recorder(rows((9, Sums())))
    watch = AnomalyObserver(recorder, detector=Restless, tasks=PeriodicTasks(by_hand=True))
    for _ in range(4):
        watch.tick()
    assert [change[7] for change in watch.changes] == [*range(200, 300), *(3 * [*range(300)])]
    assert recorder.lost == ["anomalies_forgotten"] * 200


def test_a_real_recorders_pulse_is_understood() -> None:
    """Calls that slow down, in a recorder whose clock moves by hand."""
    clock, wall = _core.ManualClock(), Clock()
    recorder = _core.Recorder(max_series=8, max_runs=8, clock=clock)
    watch = AnomalyObserver(recorder, clock=wall, tasks=PeriodicTasks(by_hand=True))
    usage, llm, ok = (100, 200, 300) + (0,) * 9, _core.KINDS.index("llm"), 0
    for tick in range(60):
        for _ in range(20):
            run = uuid4()
            recorder.run_started(run, None, llm, "Chat", "openai", "gpt-4o")
            clock.advance(1.0 if tick < 50 else 1.5)
            recorder.run_ended(run, llm, ok, "openai", "gpt-4o", usage, 10**9)
        wall.ns += TICK
        watch.tick()
    (found,) = Snapshot(recorder.snapshot(watch.changes)).anomalies
    assert (found.metric, found.provider, found.model) == ("latency", "openai", "gpt-4o")
    assert (found.before, found.after) == (pytest.approx(1.0), pytest.approx(1.5))
    assert found.calls_before == 49 * 20  # what was before the first look is not a batch
