"""The test for changes: beside river, on even, noisy and rare figures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import drift

from langmeter.monitors.change_point import (
    Change,
    ChangeDetector,
    MeanDetector,
    PageHinkley,
    ProportionDetector,
    Segment,
    Sensitivity,
)


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
