"""The tests' arithmetic against scipy, against every order of small samples, and their laws."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from langmeter._core import Sample
from langmeter.analysis.regression import significance as ours
from langmeter.analysis.regression.significance import binomial, hypergeometric
from tests.support.laws import examples

QUICK = examples(25)
values = st.lists(st.integers(1, 60), min_size=1, max_size=40)
probabilities = st.floats(0.001, 0.999)


def histogram(sample: Sequence[int]) -> Sample:
    """Buckets as narrow as they can be."""
    return Sample([(value, value, count) for value, count in sorted(Counter(sample).items())])


# --- tails ---------------------------------------------------------------------------------------


@QUICK
@given(n=st.integers(1, 3000), q=probabilities, part=st.floats(0, 1))
def test_binomial_tails_are_those_of_scipy(n: int, q: float, part: float) -> None:
    """Both tails to ten digits, and never less than nothing."""
    law, k = binomial(n, q), round(part * n)
    assert law.at_most(k) == pytest.approx(scipy.stats.binom.cdf(k, n, q), rel=1e-8, abs=1e-30)
    assert law.at_least(k) == pytest.approx(scipy.stats.binom.sf(k - 1, n, q), rel=1e-8, abs=1e-30)


@QUICK
@given(n=st.integers(1, 400), m=st.integers(1, 400), data=st.data())
def test_hypergeometric_tails_are_those_of_scipy(n: int, m: int, data: st.DataObject) -> None:
    """Both tails to ten digits."""
    marked = data.draw(st.integers(0, n + m))
    law = hypergeometric(marked, n, m)
    k = data.draw(st.integers(law.low, law.high))
    scipys = scipy.stats.hypergeom(n + m, marked, m)
    assert law.at_most(k) == pytest.approx(scipys.cdf(k), rel=1e-8, abs=1e-30)
    assert law.at_least(k) == pytest.approx(scipys.sf(k - 1), rel=1e-8, abs=1e-30)


def test_ten_million_coins_are_summed_as_exactly() -> None:
    """The greatest sample is not a special case."""
    n, k = 10_000_000, 5_003_000
    law = binomial(n, 0.5)
    assert law.at_least(k) == pytest.approx(scipy.stats.binom.sf(k - 1, n, 0.5), rel=1e-8)
    assert law.at_least(0) == law.at_most(n) == 1.0
    # Far out a tail is not summed, but is never taken for smaller than it is.
    assert 0.0 < law.at_most(10) < 1e-39
    assert 0.0 < law.at_least(n - 10) < 1e-39


def test_beyond_what_can_be_tails_are_nothing_and_all() -> None:
    """Fewer than none or more than all never happen."""
    law = binomial(10, 0.3)
    assert (law.at_most(-1), law.at_least(11)) == (0.0, 0.0)
    assert (law.at_most(11), law.at_least(-1)) == (1.0, 1.0)


@QUICK
@given(n=st.integers(1, 300), q=probabilities, p=st.floats(0, 1.2))
def test_largest_inverts_the_lower_tail(n: int, q: float, p: float) -> None:
    """It is the last count whose tail is within p."""
    law = binomial(n, q)
    fitting = [k for k in range(n + 1) if law.at_most(k) <= p]
    assert law.largest(p) == max(fitting, default=-1)


# --- quantiles -----------------------------------------------------------------------------------


def brute_quantile_p(base: Sequence[int], now: Sequence[int], q: float) -> float:
    """The definition, for every c that tells another story, in scipy's words."""
    candidates = sorted({*base, *now})
    between = [(a + b) / 2 for a, b in pairwise(candidates)]
    worst = 0.0
    for c in [candidates[0] - 1, *candidates, *between, candidates[-1] + 1]:
        u = scipy.stats.binom.sf(sum(x < c for x in base) - 1, len(base), q)
        v = scipy.stats.binom.cdf(sum(y <= c for y in now), len(now), q)
        worst = max(worst, u * v)
    return float(scipy.stats.norm.sf(math.sqrt(2) * scipy.stats.norm.isf(math.sqrt(worst))))


@QUICK
@given(base=values, now=values, q=st.sampled_from([0.25, 0.5, 0.9]))
def test_quantile_test_is_its_definition(base: list[int], now: list[int], q: float) -> None:
    """Largest product over all values that could be the quantile of both."""
    found = ours.quantile_test(histogram(base), histogram(now), q)
    assert found.increase == pytest.approx(brute_quantile_p(base, now, q), rel=1e-7, abs=1e-30)
    assert found.decrease == pytest.approx(brute_quantile_p(now, base, q), rel=1e-7, abs=1e-30)


@QUICK
@given(base=values, now=values, q=st.sampled_from([0.5, 0.8]), level=st.sampled_from([0.05, 0.3]))
def test_the_interval_holds_the_ratios_that_the_test_would_not_refuse(
    base: list[int], now: list[int], q: float, level: float
) -> None:
    """A ratio a hair inside is not significant, a hair outside it is."""
    low, high = ours.quantile_interval(histogram(base), histogram(now), q, level)
    assert low <= high

    def p(ratio: float) -> float:
        # Times the ratio, not divided by it, and in floats: buckets need not be whole.
        scaled = Sample([(c * ratio, c * ratio, 1) for c in sorted(base)])
        return ours.quantile_test(scaled, histogram(now), q).p

    for end, inside, outside in ((low, 1 + 1e-9, 1 - 1e-9), (high, 1 - 1e-9, 1 + 1e-9)):
        if 0 < end < math.inf:
            assert p(end * outside) <= level
            assert p(end * inside) > level
        else:
            assert p(1e9 if end else 1e-9) > level


def orders(n: int, m: int) -> list[tuple[Sample, Sample]]:
    """Every order in which two samples can fall; all are as probable when nothing changed."""
    found = []
    for chosen in combinations(range(n + m), n):
        base, now = set(chosen), set(range(n + m)) - set(chosen)
        found.append((histogram([i + 1 for i in base]), histogram([i + 1 for i in now])))
    return found


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 8), (9, 4)])
def test_no_test_of_durations_exceeds_its_level(n: int, m: int) -> None:
    """Over every order of two small samples, p is at most α in at most α of them, for every α."""
    pairs = orders(n, m)
    for one in (
        lambda base, now: ours.quantile_test(base, now, 0.5).p,
        lambda base, now: ours.quantile_test(base, now, 0.75).p,
        lambda base, now: ours.ks_test(base, now).tails.p,
    ):
        ps = sorted(one(*pair) for pair in pairs)
        assert all(rank / len(ps) <= p + 1e-12 for rank, p in enumerate(ps, 1) if p < 1)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (80, 30), (20, 90)])
@pytest.mark.parametrize("q", [0.25, 0.5, 0.9])
def test_the_test_of_quantiles_holds_its_level_over_every_order(n: int, m: int, q: float) -> None:
    """The part of all orders of n and m values whose p is at most α is at most α."""
    below = [float(p) for p in scipy.stats.binom.sf(range(-1, n), n, q)]
    above = [float(p) for p in scipy.stats.binom.cdf(range(m + 1), m, q)]
    for alpha in (0.001, 0.025, 0.05, 0.1):
        most = float(scipy.stats.norm.sf(scipy.stats.norm.isf(alpha) / math.sqrt(2)) ** 2)
        # Of all ways to a cell: the part that never came to a cell of greater product.
        row = [0.0] * (m + 1)
        for i in range(n + 1):
            for j in range(m + 1):
                ways = i * row[j] + (j * row[j - 1] if j else 0.0)
                kept = ways / (i + j) if i + j else 1.0
                row[j] = kept if below[i] * above[j] <= most else 0.0
        assert row[m] <= alpha


@pytest.mark.parametrize("alpha", [0.0001, 0.025, 0.2])
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.7, 1.0])
def test_the_test_of_quantiles_holds_its_level_for_unequal_densities(
    alpha: float, ratio: float
) -> None:
    """In the limit of large samples, where the standard error of one is `ratio` of the other's."""
    most = 2 * scipy.stats.norm.logsf(scipy.stats.norm.isf(alpha) / math.sqrt(2))
    split = np.linspace(-8, 8, 2001)

    def left(apart: float) -> float:
        favour = scipy.stats.norm.logsf(apart - ratio * split) + scipy.stats.norm.logsf(split)
        return float(np.max(favour) - most)

    refused = scipy.stats.norm.sf(scipy.optimize.brentq(left, -5, 20) / math.hypot(1, ratio))
    assert refused <= alpha * 1.001
    if ratio == 1.0:
        assert refused == pytest.approx(alpha, rel=1e-3)


@QUICK
@given(n=st.integers(1, 60), m=st.integers(1, 60), q=probabilities)
def test_floors_are_what_the_clearest_samples_give(n: int, m: int, q: float) -> None:
    """All of now above, or below, all of base gives the least p there is."""
    base, now = histogram(range(1, n + 1)), histogram(range(1000, 1000 + m))
    above, below = histogram(range(1000, 1000 + n)), histogram(range(1, m + 1))
    rise, fall = (
        ours.quantile_test(base, now, q).increase,
        ours.quantile_test(above, below, q).decrease,
    )
    assert min(1.0, 2 * max(rise, fall)) == pytest.approx(ours.quantile_floor(n, m, q))
    assert min(1.0, 2 * ours.ks_test(base, now).tails.increase) == pytest.approx(
        ours.ks_floor(n, m)
    )
    assert ours.share_test(0, n, m, m).p == pytest.approx(ours.share_floor_of_sizes(n, m))
    assert min(1.0, 2 * ours.share_test(0, n, 1, m).increase) == pytest.approx(
        ours.share_floor(1, n, m)
    )
    assert min(1.0, 2 * ours.rate_test(0, n, 3, m).increase) == pytest.approx(
        ours.rate_floor(3, n, m)
    )


@QUICK
@given(sample=values, data=st.data())
def test_thinned_keeps_the_shape(sample: list[int], data: st.DataObject) -> None:
    """So many values as asked for, each rank within half of where it was."""
    n = data.draw(st.integers(1, len(sample)))
    whole = histogram(sample)
    fewer = whole.downsampled(n)
    assert fewer.n == n
    for c in range(61):
        assert abs(whole.up_to(c) * n / len(sample) - fewer.up_to(c)) <= 0.5
    same = whole.downsampled(len(sample))
    assert (same.lows, same.highs, same.before) == (whole.lows, whole.highs, whole.before)


# --- Kolmogorov-Smirnov --------------------------------------------------------------------------


@QUICK
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60), m=st.integers(1, 60))
def test_without_ties_ks_is_scipys(seed: int, n: int, m: int) -> None:
    """Both directions, exact; and the place is where the distributions are furthest apart."""
    pool = random.Random(seed).sample(range(1, 10_000), n + m)
    base, now = pool[:n], pool[n:]
    found = ours.ks_test(histogram(base), histogram(now))
    up = scipy.stats.ks_2samp(base, now, alternative="greater", method="exact")
    down = scipy.stats.ks_2samp(base, now, alternative="less", method="exact")
    assert found.tails.increase == pytest.approx(up.pvalue, rel=1e-6)
    assert found.tails.decrease == pytest.approx(down.pvalue, rel=1e-6)
    assert abs(found.after - found.before) == pytest.approx(max(up.statistic, down.statistic))
    assert found.before == pytest.approx(sum(x > found.at for x in base) / n)
    assert found.after == pytest.approx(sum(y > found.at for y in now) / m)


@pytest.mark.parametrize(
    ("base", "now"),
    [([1, 1, 2, 3], [2, 3, 3, 3, 4]), ([1, 2, 2, 2, 5], [2, 2, 3, 3, 3]), ([1, 1, 1], [1, 1])],
)
def test_with_ties_ks_counts_every_permutation(base: list[int], now: list[int]) -> None:
    """P is the part of all ways to deal the same values whose gap is as great."""

    def gap(a: Sequence[int], b: Sequence[int]) -> float:
        return max(
            sum(x <= c for x in a) / len(a) - sum(y <= c for y in b) / len(b) for c in {0, *a, *b}
        )

    pool = base + now
    gaps = []
    for chosen in combinations(range(len(pool)), len(base)):
        a = [pool[i] for i in chosen]
        b = [pool[i] for i in range(len(pool)) if i not in chosen]
        gaps.append((gap(a, b), gap(b, a)))
    found = ours.ks_test(histogram(base), histogram(now)).tails
    up = sum(one >= gap(base, now) - 1e-12 for one, _ in gaps) / len(gaps)
    down = sum(other >= gap(now, base) - 1e-12 for _, other in gaps) / len(gaps)
    assert found == pytest.approx((up, down))


@pytest.mark.parametrize(("n", "m"), [(150, 150), (120, 180), (400, 60), (300, 310)])
@pytest.mark.parametrize("shift", [0.15, 0.3, 0.45])
def test_the_limit_of_ks_errs_to_the_careful_side(n: int, m: int, shift: float) -> None:
    """Beyond `KS_EXACT` p is the exact one or greater, by less than half of it."""
    rng = random.Random(7)
    base = [round(1e9 * rng.gauss(10, 1)) for _ in range(n)]
    now = [round(1e9 * rng.gauss(10 + shift, 1)) for _ in range(m)]
    assert n * m > ours.KS_EXACT
    found = ours.ks_test(histogram(base), histogram(now)).tails.increase
    exact = scipy.stats.ks_2samp(base, now, alternative="greater", method="exact").pvalue
    assert exact <= found < 1.5 * exact


def test_buckets_of_two_precisions_are_compared_by_the_coarser() -> None:
    """A wide bucket ties with all the narrow ones that lie in it."""
    narrow = Sample([(10, 10, 3), (12, 12, 3), (30, 30, 1)])
    wide = Sample([(10, 14, 6), (30, 34, 1)])
    found = ours.ks_test(narrow, wide)
    assert found.tails == (1.0, 1.0)
    assert found.before == found.after
    low, high = ours.quantile_interval(narrow, wide, 0.5, 0.9)
    assert low <= 1 <= high


# --- shares and rates ----------------------------------------------------------------------------


@QUICK
@given(n=st.integers(1, 300), m=st.integers(1, 300), data=st.data())
def test_shares_are_compared_by_fishers_exact_test(n: int, m: int, data: st.DataObject) -> None:
    """Both directions are scipy's."""
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    table = [[y, m - y], [x, n - x]]
    found = ours.share_test(x, n, y, m)
    assert found.increase == pytest.approx(
        scipy.stats.fisher_exact(table, "greater").pvalue, rel=1e-6
    )
    assert found.decrease == pytest.approx(scipy.stats.fisher_exact(table, "less").pvalue, rel=1e-6)


def test_the_interval_of_two_shares_is_newcombes() -> None:
    """His own example (1998, method 10): 56 of 70 less 48 of 80."""
    low, high = ours.share_interval(48, 80, 56, 70, 0.05)
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@QUICK
@given(n=st.integers(1, 300), m=st.integers(1, 300), data=st.data())
def test_the_interval_of_two_shares_is_of_scipys_wilson_intervals(
    n: int, m: int, data: st.DataObject
) -> None:
    """Their distances from the shares add as squares."""
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    a, b = x / n, y / m
    before = scipy.stats.binomtest(x, n).proportion_ci(0.9, "wilson")
    after = scipy.stats.binomtest(y, m).proportion_ci(0.9, "wilson")
    found = ours.share_interval(x, n, y, m, 0.1)
    assert found[0] == pytest.approx(b - a - math.hypot(b - after.low, before.high - a), abs=1e-7)
    assert found[1] == pytest.approx(b - a + math.hypot(after.high - b, a - before.low), abs=1e-7)


@QUICK
@given(x=st.integers(0, 60), y=st.integers(0, 60), n=st.integers(1, 500), m=st.integers(1, 500))
def test_rates_are_compared_given_their_sum(x: int, y: int, n: int, m: int) -> None:
    """Poisson counts given their sum are binomial: tails and Clopper-Pearson are scipy's."""
    found = ours.rate_test(x, n, y, m)
    if not x + y:
        assert found == (1.0, 1.0)
        return
    up = scipy.stats.binomtest(y, x + y, m / (n + m), "greater")
    down = scipy.stats.binomtest(y, x + y, m / (n + m), "less")
    assert found.increase == pytest.approx(up.pvalue, rel=1e-6)
    assert found.decrease == pytest.approx(down.pvalue, rel=1e-6)
    part = scipy.stats.binomtest(y, x + y).proportion_ci(0.95, "exact")
    low, high = ours.rate_interval(x, n, y, m, 0.05)
    assert low == pytest.approx(part.low / (1 - part.low) * n / m, rel=1e-6, abs=1e-12)
    expected = part.high / (1 - part.high) * n / m if part.high < 1 else math.inf
    assert high == pytest.approx(expected, rel=1e-6)


# --- many comparisons ----------------------------------------------------------------------------


@QUICK
@given(ps=st.lists(st.floats(0, 1), max_size=7))
def test_holm_is_closed_testing_by_bonferroni(ps: list[float]) -> None:
    """A comparison is as sure as the least sure set of comparisons that it is part of."""
    for place, corrected in enumerate(ours.holm(ps)):
        sets = [
            chosen
            for size in range(1, len(ps) + 1)
            for chosen in combinations(range(len(ps)), size)
            if place in chosen
        ]
        worst = max(min(1.0, len(chosen) * min(ps[i] for i in chosen)) for chosen in sets)
        assert corrected == pytest.approx(worst)


def test_what_cannot_be_significant_costs_the_others_nothing() -> None:
    """Tarone's example: of nine comparisons, one can be significant once nine are corrected for."""
    assert ours.testable([0.04, 0.9, 1.0, math.inf], 0.05) == [True, False, False, False]
    assert ours.testable([0.04, 0.04], 0.05) == [False, False]
    assert ours.testable([0.02, 0.02, 0.02], 0.05) == [False, False, False]
    assert ours.testable([0.01, 0.02, 0.03], 0.05) == [True, True, False]
    assert ours.testable([], 0.05) == []


@QUICK
@given(floors=st.lists(st.floats(0, 1), max_size=12))
def test_all_that_are_tested_can_be_significant_together(floors: list[float]) -> None:
    """Each could pass the correction for the number of all that are tested."""
    chosen = ours.testable(floors, 0.05)
    for floor, tested in zip(floors, chosen, strict=True):
        assert not tested or floor * sum(chosen) <= 0.05


@QUICK
@given(floors=st.lists(st.floats(0, 1) | st.sampled_from([0.05, 0.025, math.inf]), max_size=12))
def test_the_number_that_is_tested_is_the_least_that_holds(floors: list[float]) -> None:
    """As the definition counts it, one after the other."""
    k = 1
    while sum(floor <= 0.05 / k for floor in floors) > k:
        k += 1
    assert ours.testable(floors, 0.05) == [floor <= 0.05 / k for floor in floors]


class _Counted(float):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: float) -> bool:
        _Counted.comparisons += 1
        return float(self) < other

    def __gt__(self, other: float) -> bool:
        _Counted.comparisons += 1
        return float(self) > other

    def __le__(self, other: float) -> bool:
        _Counted.comparisons += 1
        return float(self) <= other


def test_many_comparisons_are_sorted_not_searched() -> None:
    """The work grows as n log n: 20,000 comparisons took 400 million steps, one by one."""
    floors = [_Counted(1e-9 * place) for place in range(20_000)]
    ours.testable(floors, 0.05)
    assert _Counted.comparisons < 20 * len(floors)


@pytest.mark.parametrize(("q", "least"), [(0.5, 8), (0.95, 98), (0.99, 496)])
def test_enough_is_the_least_number(q: float, least: int) -> None:
    """With one call fewer no data whatever would be significant."""

    def floor(n: int) -> float:
        return ours.quantile_floor(n, n, q)

    assert ours.required_sample_size(floor, 0.05) == least
    assert floor(least) <= 0.05 < floor(least - 1)
    assert ours.required_sample_size(lambda n: 0.0, 0.05) == 1
