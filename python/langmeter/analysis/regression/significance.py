"""Two-sample tests on histograms and counts. The sums are native, 2,000 models take a second.

Every test answers with the p-values of "nothing changed" against a rise and against a fall, and
holds its level whatever the distribution, however skewed, tied or rounded into buckets. Tails are
sums of exact masses at any size; Kolmogorov-Smirnov goes over to its limit at `KS_EXACT`.

A `Sample` is the values of a histogram, by its buckets.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Final, NamedTuple

from langmeter._core import Discrete, Sample

#: Product of two sample sizes up to which Kolmogorov-Smirnov counts lattice paths, 50 µs of work.
#: Beyond it the asymptotic p is at least the exact p, and less than 1.5 times as large.
KS_EXACT: Final = 20_000
_NORMAL: Final = NormalDist()


class Tails(NamedTuple):
    """The p-values of figures at least as far up, or down, where nothing changed."""

    increase: float
    decrease: float

    @property
    def p(self) -> float:
        """Two-sided: twice the smaller."""
        return min(1.0, 2.0 * min(self))


# --- counts --------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def binomial(n: int, q: float) -> Discrete:
    """Return the law of successes among `n` trials, each with probability `q`, 0 < q < 1."""
    return Discrete.binomial(n, q)


@lru_cache(maxsize=64)
def hypergeometric(marked: int, n: int, m: int) -> Discrete:
    """Return the law of how many of `marked` among `n + m` fall into the `m`."""
    return Discrete.hypergeometric(marked, n, m)


# --- quantiles -----------------------------------------------------------------------------------


def quantile_test(base: Sample, now: Sample, q: float) -> Tails:
    """Test whether the q-quantile moved, by binomial ranks; distribution-free and valid under ties.

    Null hypothesis: both samples have the same q-quantile c. Then the number of values of `base`
    below c and of `now` at or below it are binomial. The p-value for c is the product of the two
    tails, and the largest over all c is reported.
    """
    return Tails(_risen(base, now, q), _risen(now, base, q))


def quantile_interval(base: Sample, now: Sample, q: float, level: float) -> tuple[float, float]:
    """Confidence interval of (q-quantile of `now`) / (that of `base`), at least 1 - `level`.

    The ratios that `quantile_test` would not refuse at `level`; 0 and inf where the samples set no
    bound. Buckets count as wide as they are.
    """
    bound = _lowest_ratio(now, base, q, level / 2)
    return _lowest_ratio(base, now, q, level / 2), 1 / bound if bound else math.inf


@lru_cache(maxsize=1024)
def quantile_floor(n: int, m: int, q: float) -> float:
    """The p that two samples of these sizes can reach for a rise as well as for a fall."""
    fewest = min(n, m)
    return min(1.0, 2.0 * _product_p_value(max(q, 1.0 - q) ** fewest))


def _product_p_value(product: float) -> float:
    """P of a largest product at most this.

    As c goes up, one p-value falls as the other rises: in large samples their normal quantiles add
    up to the same for all c, and the product is largest where they are equal. So p is that of twice
    the quantile of its root, against a variance of 2. That is exact where both distributions are
    equally dense at c, and careful where not, and in small samples. (Fisher's law of the product at
    one given c would be valid, too, and is more careful still.)
    """
    if not 0.0 < product < 1.0:
        return max(0.0, min(1.0, product))
    return _NORMAL.cdf(math.sqrt(2.0) * _NORMAL.inv_cdf(math.sqrt(product)))


def _product(p: float) -> float:
    """Inverse of `_product_p_value`."""
    return _NORMAL.cdf(_NORMAL.inv_cdf(p) / math.sqrt(2.0)) ** 2


def _risen(base: Sample, now: Sample, q: float) -> float:
    laws = binomial(base.n, q), binomial(now.n, q)
    return _product_p_value(base.risen(now, q, *laws))


def _lowest_ratio(base: Sample, now: Sample, q: float, p: float) -> float:
    """The greatest r such that all ratios below r are refused for being too low."""
    return base.lowest_ratio(now, _product(p), binomial(base.n, q), binomial(now.n, q))


# --- the whole distribution ----------------------------------------------------------------------


class Gap(NamedTuple):
    """The two-sample Kolmogorov-Smirnov test.

    Attributes:
        tails: of a rise (fewer of `now` lie below some value) and of a fall.
        at: upper end of the bucket where the distributions are furthest apart,
        before: and the share of `base` above it,
        after: and that of `now`.
    """

    tails: Tails
    at: float
    before: float
    after: float


def ks_test(base: Sample, now: Sample) -> Gap:
    """Whether anything about the distribution changed (Kolmogorov-Smirnov), and where most.

    Exact given the ties while sizes multiply to at most `KS_EXACT`; then by the limit
    exp(-2 d² nm / (n + m)), which ties only make more careful.
    """
    n, m = base.n, now.n
    distances, end, (i, j), parts = base.apart(now, KS_EXACT)
    if parts is None:
        parts = [math.exp(-2.0 * d * (d / (n * m * (n + m)))) for d in distances]
    return Gap(Tails(*parts), end, 1 - i / n, 1 - j / m)


@lru_cache(maxsize=1024)
def ks_floor(n: int, m: int) -> float:
    """The least p that any two samples of these sizes can give."""
    return min(1.0, 2.0 * _one_of(n, m))


def _one_of(n: int, m: int) -> float:
    """1 / (n + m choose n)."""
    return math.exp(math.lgamma(n + 1) + math.lgamma(m + 1) - math.lgamma(n + m + 1))


# --- shares and rates ----------------------------------------------------------------------------


def share_test(x: int, n: int, y: int, m: int) -> Tails:
    """`x` of `n` before, `y` of `m` now: Fisher's exact test."""
    drawn = hypergeometric(x + y, n, m)
    return Tails(drawn.at_least(y), drawn.at_most(y))


def share_interval(x: int, n: int, y: int, m: int, level: float) -> tuple[float, float]:
    """Confidence interval of y/m - x/n: Newcombe's of two Wilson intervals; approximate."""
    z = -_NORMAL.inv_cdf(level / 2)
    (a, low_a, high_a), (b, low_b, high_b) = _wilson(x, n, z), _wilson(y, m, z)
    return (
        max(-1.0, b - a - math.hypot(b - low_b, high_a - a)),
        min(1.0, b - a + math.hypot(high_b - b, a - low_a)),
    )


def share_floor(marked: int, n: int, m: int) -> float:
    """The least p that `marked` cases among these can give for a rise."""
    drawn = hypergeometric(marked, n, m)
    return min(1.0, 2.0 * drawn.at_least(drawn.high))


def share_floor_of_sizes(n: int, m: int) -> float:
    """The least p that these sizes can give, whatever the cases: none before, all now."""
    return min(1.0, 2.0 * _one_of(n, m))


def _wilson(x: int, n: int, z: float) -> tuple[float, float, float]:
    share, wide = x / n, z * z / n
    middle = (share + wide / 2) / (1 + wide)
    half = z / (1 + wide) * math.sqrt(share * (1 - share) / n + wide / (4 * n))
    return share, max(0.0, middle - half), min(1.0, middle + half)


def rate_test(x: int, n: int, y: int, m: int) -> Tails:
    """`x` events in `n` calls before, `y` in `m` now, Poisson: binomial given their sum."""
    drawn = binomial(x + y, m / (n + m))
    return Tails(drawn.at_least(y), drawn.at_most(y))


@lru_cache(maxsize=1024)
def rate_interval(x: int, n: int, y: int, m: int, level: float) -> tuple[float, float]:
    """Confidence interval of (y/m) / (x/n), at least 1 - `level`: Clopper-Pearson given x + y."""
    low, high = 0.0, math.inf
    if y:
        share = _least_share(y, x + y, level / 2)
        low = share / (1 - share) * n / m
    if x:
        share = _least_share(x, x + y, level / 2)
        high = (1 - share) / share * n / m
    return low, high


def _least_share(k: int, n: int, p: float) -> float:
    """The share with which `k` or more of `n` have the probability `p`, k > 0 and p <= 0.5.

    By Newton's method between logarithms, where the tail is concave: 5 steps where halving took 60.
    """
    low, high, share = 0.0, 1.0, k / (n + 1)
    for _ in range(60):
        # Not `binomial`, whose cache these would fill.
        law = binomial.__wrapped__(n, share)
        tail = law.at_least(k)
        low, high = (share, high) if tail <= p else (low, share)
        slope = k * (tail - law.at_least(k + 1)) / tail
        step = share * math.exp(math.log(p / tail) / slope) if slope else 0.0
        last, share = share, step if low < step < high else (low + high) / 2
        if abs(share - last) <= 1e-13 * share:
            break
    return share


def rate_floor(events: int, n: int, m: int) -> float:
    """The least p that so many events in all can give for a rise."""
    return min(1.0, 2.0 * (m / (n + m)) ** events)


# --- many comparisons ----------------------------------------------------------------------------


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): whatever is below the level may be believed.

    The probability of even one false alarm among them is at most the level, dependent or not.
    """
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = least
    return corrected


def testable(floors: Sequence[float], level: float) -> list[bool]:
    """Return the comparisons that can be significant (Tarone 1990), by their least p.

    The rest is left out of the correction. That is sound because a floor tells nothing of how the
    figures fell, only how many there are.
    """
    ascending = sorted(floors)
    # The least k with at most k floors below level / k. Both sides are monotone in k: the search
    # took most of a comparison of 2,000 models one by one, and takes milliseconds by halves.
    candidates = range(1, max(1, len(ascending)) + 1)
    k = 1 + bisect_left(candidates, True, key=lambda k: bisect_right(ascending, level / k) <= k)
    return [floor <= level / k for floor in floors]


def required_sample_size(min_p_value: Callable[[int], float], level: float) -> int:
    """Return the least n for which `min_p_value(n)`, falling, is at most `level`."""
    high = 1
    while min_p_value(high) > level:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if min_p_value(middle) <= level else (middle, high)
    return high
