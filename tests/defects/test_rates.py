"""Rates of fixes beside scipy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Meter
from tests.support.laws import examples
from tests.support.repairs import attempted, only


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=40))
def test_rates_and_intervals_are_those_of_scipy_and_numpy(results: list[tuple[int, bool]]) -> None:
    """Wilson's by defect, the clustered one by the residuals of each defect."""
    meter = Meter()
    for defect, right in results:
        attempt = attempted(meter, f"D{defect}")
        meter.defects.record(attempt.id, "fixed" if right else "failed")
    row = only(meter.snapshot())
    clusters: dict[int, list[bool]] = {}
    for defect, right in results:
        clusters.setdefault(defect, []).append(right)
    k = np.array([sum(each) for each in clusters.values()], float)
    m = np.array([len(each) for each in clusters.values()], float)
    exact = scipy.stats.binomtest(int((k > 0).sum()), len(k)).proportion_ci(0.95, method="wilson")
    assert row.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    rate, n = k.sum() / m.sum(), len(k)
    assert row.attempt_rate == pytest.approx(rate)
    residuals = k - rate * m
    if n > 1 and (residuals**2).sum() > 1e-6:
        error = math.sqrt(n / (n - 1) * (residuals**2).sum()) / m.sum()
        low, high = rate - 1.959964 * error, rate + 1.959964 * error
        assert row.attempt_interval == pytest.approx((max(0, low), min(1, high)), abs=1e-6)
    else:
        assert row.attempt_interval[0] < row.attempt_interval[1]


@examples(30)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_candidate(
    attempts: list[list[bool]],
) -> None:
    """By counting every subset of k candidates."""
    from itertools import combinations

    meter = Meter()
    for n, rights in enumerate(attempts):
        with meter.defects.attempt(f"D{n}") as attempt:
            for index, right in enumerate(rights):
                candidate = attempt.candidate(index)
                candidate.succeeded() if right else candidate.failed()
    row = only(meter.snapshot())
    for k in (1, 2, 3):
        subsets = [list(combinations(rights, k)) for rights in attempts if len(rights) >= k]
        for measure, holds in ((row.pass_at, any), (row.pass_all, all)):
            if subsets:
                expected = np.mean([np.mean([holds(s) for s in each]) for each in subsets])
                assert measure(k) == pytest.approx(expected)
            else:
                assert math.isnan(measure(k))
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 16, got 0"):
        row.pass_at(0)
