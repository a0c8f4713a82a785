"""Changes that last: the test itself, levels, the detector, and the watch over a recorder."""

from __future__ import annotations

import gc
import math
import os
import random
import weakref
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift

from langmeter import _core
from langmeter._base.periodic import PeriodicTasks
from langmeter.monitors.anomalies import (
    Anomaly,
    AnomalyDetector,
    AnomalyObserver,
    FixRow,
    Row,
)
from langmeter.monitors.change_point import (
    Change,
    ChangeDetector,
    MeanDetector,
    PageHinkley,
    ProportionDetector,
    Segment,
    Sensitivity,
)
from langmeter.snapshot import Snapshot

TICK = 5_000_000_000
BEGIN = 1_800_000_000 * 10**9


def decisions(stream: Iterable[float], delta: float, threshold: float, warm_up: int) -> list[int]:
    """Where our test finds a change, begun anew after each."""
    test, found = PageHinkley(delta, threshold, warm_up), []
    for i, x in enumerate(stream):
        if test.update(x):
            found.append(i)
            test = PageHinkley(delta, threshold, warm_up)
    return found


def oracle(stream: Iterable[float], delta: float, threshold: float, warm_up: int) -> list[int]:
    """Where river's does."""
    test = drift.PageHinkley(
        min_instances=warm_up, delta=delta, threshold=threshold, alpha=1.0, mode="both"
    )
    found = []
    for i, x in enumerate(stream):
        test.update(x)
        if test.drift_detected:
            found.append(i)
    return found


@given(
    seed=st.integers(0, 2**32),
    delta=st.floats(0.005, 2),
    threshold=st.floats(1, 30),
    warm_up=st.integers(1, 40),
    shifts=st.lists(st.floats(-5, 5), min_size=1, max_size=4),
)
def test_decisions_are_those_of_river(
    seed: int, delta: float, threshold: float, warm_up: int, shifts: list[float]
) -> None:
    """On random streams with changes of any size, for any parameters, sample by sample."""
    random_ = random.Random(seed)
    stream = [random_.gauss(shift, 1) for shift in shifts for _ in range(60)]
    assert decisions(stream, delta, threshold, warm_up) == oracle(stream, delta, threshold, warm_up)


def test_streams_with_changes_are_among_them() -> None:
    """The comparison with river is of decisions, up and down, not of silence."""
    random_ = random.Random(1)
    stream = [random_.gauss(level, 1) for level in (0, 4, 0) for _ in range(100)]
    found = decisions(stream, 0.5, 15, 30)
    assert found == oracle(stream, 0.5, 15, 30)
    assert len(found) == 2
    assert 100 <= found[0] < 115
    assert 200 <= found[1] < 215
    assert PageHinkley(0.5, 1).update(1e9) == 0  # the first sample is its own mean
    assert PageHinkley(0.5, 1, samples=1).update(5) == 1
    assert PageHinkley(0.5, 1, samples=1).update(-5) == -1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delta": 0}, r"delta must be a number from 0.01 to 4.0, got 0"),
        ({"delta": 5.0}, r"delta must be .* got 5.0"),
        ({"threshold": float("nan")}, r"threshold must be a number from 1.0 to 1,000.0, got nan"),
        ({"warm_up": 4}, r"warm_up must be a whole number from 5 to 10,000, got 4"),
        ({"warm_up": 30.0}, r"warm_up must be a whole number from 5 to 10,000, got 30.0"),
        ({"min_std": True}, r"min_std must be a number from 0.001 to 1.0, got True"),
    ],
)
def test_a_sensitivity_outside_its_range_is_refused(wrong: Any, message: str) -> None:
    """By name, with the range."""
    with pytest.raises(ValueError, match=message):
        Sensitivity(**wrong)


def changes(
    level: ChangeDetector, batches: Iterable[tuple[int, float]]
) -> list[tuple[int, Change]]:
    """Where a level changes; batch i begins at i."""
    found = ((i, level.update(i, *batch)) for i, batch in enumerate(batches))
    return [(i, change) for i, change in found if change is not None]


def noisy(seed: int, mean: float, n: int, calls: int = 20, sigma: float = 0.5) -> list[Any]:
    """Batches of lognormal calls."""
    random_ = random.Random(seed)
    draw = lambda: random_.lognormvariate(-(sigma**2) / 2, sigma)  # noqa: E731
    return [(calls, mean * sum(draw() for _ in range(calls))) for _ in range(n)]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_mean_that_changes_is_told_with_what_it_was_and_is(factor: float, scale: float) -> None:
    """In any unit, both ways, with the batch it began in and each call on one of the two sides."""
    batches = noisy(1, scale, 100) + noisy(2, scale * factor, 20)
    ((at, (before, after)),) = changes(MeanDetector(Sensitivity()), batches)
    assert 100 <= at < 108
    assert abs(after.begin - 100) <= 2
    assert before.batches + after.batches == at + 1
    assert before.calls + after.calls == 20 * (at + 1)
    total = sum(total for _, total in batches[: at + 1])
    assert before.total + after.total == pytest.approx(total)
    assert before.total / before.calls == pytest.approx(scale, rel=0.05)
    assert after.total / after.calls == pytest.approx(scale * factor, rel=0.15)


def test_a_short_trouble_is_told_both_ways() -> None:
    """What was learned of the spread outlives a change, so its end is not learned away."""
    batches = noisy(1, 1.0, 100) + noisy(2, 3.0, 10) + noisy(3, 1.0, 40)
    (up, rise), (down, fall) = changes(MeanDetector(Sensitivity()), batches)
    assert 100 <= up < 110 <= down < 120
    assert fall.before.total / fall.before.calls == pytest.approx(
        rise.after.total / rise.after.calls, rel=0.2
    )


def test_an_outlier_is_no_change() -> None:
    """However far out, one batch alone or two; a permanent change by a thousandfold is."""
    quiet = noisy(1, 1.0, 60)
    wild = noisy(2, 1000.0, 1)
    assert changes(MeanDetector(Sensitivity()), quiet + wild + quiet + wild * 2 + quiet) == []
    assert len(changes(MeanDetector(Sensitivity()), quiet + wild * 6)) == 1


def test_an_even_mean_is_given_some_spread() -> None:
    """A constant figure that rises by 1 % is not an anomaly; by 20 % it is."""
    even = [(20, 20.0)] * 60
    assert changes(MeanDetector(Sensitivity()), even + [(20, 20.2)] * 400) == []
    assert len(changes(MeanDetector(Sensitivity()), even + [(20, 24.0)] * 30)) == 1


def test_smaller_batches_are_trusted_less() -> None:
    """A model whose traffic fades to single calls does not alarm at each of them."""
    random_ = random.Random(5)
    single = [(1, random_.lognormvariate(-0.125, 0.5)) for _ in range(300)]
    assert changes(MeanDetector(Sensitivity()), noisy(1, 1.0, 60, calls=100) + single) == []


def test_nothing_is_a_fall_but_not_a_level() -> None:
    """Tokens that stop coming are told; a model that never sent any is not, nor its first ones."""
    none = [(20, 0.0)] * 60
    ((at, (before, after)),) = changes(MeanDetector(Sensitivity()), noisy(1, 300.0, 60) + none)
    assert 60 <= at < 66
    assert (after.begin, after.total) == (60, 0.0)
    assert before == Segment(before.begin, 1200, before.total, 60)
    assert changes(MeanDetector(Sensitivity()), none + noisy(1, 300.0, 200)) == []
    # What follows nothing is learned anew, and watched.
    level = MeanDetector(Sensitivity())
    assert len(changes(level, noisy(1, 300.0, 60) + none + noisy(2, 100.0, 60))) == 1
    assert len(changes(level, noisy(3, 300.0, 10))) == 1


def shares(seed: int, share: float, n: int, calls: int = 100) -> list[Any]:
    """Batches of calls that fail at random."""
    random_ = random.Random(seed)
    return [(calls, sum(random_.random() < share for _ in range(calls))) for _ in range(n)]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.05), (0.01, 0.05), (0.1, 0.3), (0.5, 0.9)])
def test_an_error_rate_that_changes_is_told(low: float, high: float) -> None:
    """Up, and down again, from no error at all too."""
    batches = shares(1, low, 100) + shares(2, high, 60) + shares(3, low, 100)
    found = changes(ProportionDetector(Sensitivity()), batches)
    assert [c.after.total / c.after.calls > c.before.total / c.before.calls for _, c in found] == [
        True,
        False,
    ]
    assert 100 <= found[0][0] < 130
    assert 160 <= found[1][0] < 220


def test_rare_errors_are_no_change() -> None:
    """One in ten thousand calls, in batches of 20: most have none, none counts for much."""
    assert changes(ProportionDetector(Sensitivity()), shares(1, 0.0001, 3000, calls=20)) == []


def test_what_batches_have_in_common_is_no_change_for_long() -> None:
    """A mean that wanders by 20 % in minutes is soon known to, and a tripling is still told."""
    random_, level = random.Random(3), 0.0
    batches = []
    for calls, total in noisy(4, 1.0, 3000):
        level = 0.9 * level + random_.gauss(0, 0.2 * (1 - 0.9**2) ** 0.5)
        batches.append((calls, total * math.exp(level)))
    at_first = changes(MeanDetector(Sensitivity()), batches)
    assert len([i for i, _ in at_first if i >= 500]) <= 2
    tripled = [(calls, 3 * total) for calls, total in batches[:50]]
    assert any(i >= 3000 for i, _ in changes(MeanDetector(Sensitivity()), batches + tripled))


def test_a_thousand_quiet_batches_of_any_size_are_quiet() -> None:
    """Means and shares, with traffic that goes from 20 to 200 calls a batch and back."""
    random_ = random.Random(7)
    sizes = [20 + abs(i % 360 - 180) for i in range(1000)]
    means, rates = MeanDetector(Sensitivity()), ProportionDetector(Sensitivity())
    for i, calls in enumerate(sizes):
        total = sum(random_.lognormvariate(-0.125, 0.5) for _ in range(calls))
        assert means.update(i, calls, total) is None
        assert rates.update(i, calls, sum(random_.random() < 0.02 for _ in range(calls))) is None


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


def at(tick: int) -> datetime:
    return datetime.fromtimestamp(BEGIN / 10**9, UTC) + timedelta(seconds=5 * tick)


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


def fix_rows(*stretches: tuple[int, float, int], seed: int = 0) -> Iterator[FixRow]:
    """Cumulative figures of fixes: ticks of five defects, the share fixed, cost of an attempt."""
    random_ = random.Random(seed)
    closed = fixed = cost = 0
    yield ("p", "m", 0, 0, 0, 0)
    for ticks, rate, price in stretches:
        for _ in range(ticks):
            closed += 5
            fixed += sum(random_.random() < rate for _ in range(5))
            cost += sum(round(price * random_.uniform(0.8, 1.2)) for _ in range(5))
            yield ("p", "m", closed, fixed, fixed, cost)


def play_fixes(stream: Iterable[FixRow]) -> list[Anomaly]:
    detector = AnomalyDetector()
    return [
        anomaly
        for tick, row in enumerate(stream)
        for anomaly in detector.observe([], BEGIN + tick * TICK, [row])
    ]


def test_a_fall_of_the_success_rate_is_reported() -> None:
    """It is the share of the defects with a verdict that are fixed."""
    stream = fix_rows((200, 0.8, 10**9), (60, 0.3, 10**9))
    (anomaly,) = (a for a in play_fixes(stream) if a.metric == "success_rate")
    assert (anomaly.before, anomaly.after) == (
        pytest.approx(0.8, abs=0.05),
        pytest.approx(0.3, abs=0.15),
    )
    assert anomaly.calls_before == pytest.approx(1000, abs=50)
    assert abs(anomaly.at - at(200)) < timedelta(minutes=2)


def test_a_rise_of_the_cost_per_fixed_defect_is_reported() -> None:
    """Each attempt costs three times as much, and as many defects are fixed."""
    stream = fix_rows((300, 0.7, 10**9), (60, 0.7, 3 * 10**9))
    (anomaly,) = play_fixes(stream)
    assert anomaly.metric == "cost_per_fixed"
    assert anomaly.before == pytest.approx(0.001 / 0.7, rel=0.1)
    assert anomaly.after == pytest.approx(0.003 / 0.7, rel=0.3)


def test_steady_fixes_raise_no_alarm() -> None:
    """Twenty models of 20,000 defects each, of unequal rates."""
    for seed in range(20):
        assert play_fixes(fix_rows((4000, 0.05 * seed, 10**9), seed=seed)) == []


def test_fixes_that_later_verdicts_revoke_are_a_fall_and_not_a_new_recorder() -> None:
    """The number of fixed defects falls while a re-scan revokes them; that of closed ones grows."""
    stream = list(fix_rows((120, 0.8, 10**9), seed=3))
    last = stream[-1]
    for n in range(1, 61):
        revoked = last[3] - 2 * n
        stream.append(("p", "m", last[2] + 5 * n, revoked, last[4], last[5]))
    anomalies = play_fixes(stream)
    assert [a.metric for a in anomalies][:1] == ["success_rate"]
    assert anomalies[0].after == 0 < anomalies[0].before


def test_a_real_recorders_fixes_are_understood() -> None:
    """Attempts of two types at the defects of one model are one row; what left is subtracted."""
    recorder = _core.Recorder(max_series=64, max_runs=8)
    attempts = _core.Attempts(recorder)
    usage, llm, ok = (100, 200, 300) + (0,) * 9, _core.KINDS.index("llm"), 0
    for number, kind in enumerate(("leak", "leak", "race")):
        opened = attempts.open(f"CID-{number}", kind)
        run = uuid4()
        recorder.run_started(run, None, llm, "Chat", "openai", "gpt-4o")
        attempts.join(run, opened)
        recorder.run_ended(run, llm, ok, "openai", "gpt-4o", usage, 10**9)
        attempts.judge(opened, "fixed", "tests")
        attempts.close(opened, "unverified")
    attempts.judge(1, "regressed", "reviewer")
    assert recorder.fix_pulse() == [("openai", "gpt-4o", 3, 2, 3, 3 * 10**9)]
