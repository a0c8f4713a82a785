"""Two-sample tests on histograms and counts. Pure arithmetic, of the standard library.

Every test answers with the p-values of "nothing changed" against a rise and against a fall, and
holds its level whatever the distribution, however skewed, tied or rounded into buckets. Tails are
sums of exact masses at any size; Kolmogorov-Smirnov goes over to its limit at `KS_EXACT`.

A sample is a histogram: (lowest, highest, count) of its buckets, ascending, as
`Distribution.buckets()` has them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist
from typing import Final, NamedTuple, TypeAlias

Bucket: TypeAlias = tuple[int, int, int]
Buckets: TypeAlias = Sequence[Bucket]

#: Product of two sample sizes up to which Kolmogorov-Smirnov counts lattice paths, 5 ms of work.
#: From there on the limit is no smaller than the exact p, and greater by less than half of it.
KS_EXACT: Final = 20_000
#: Masses below this part of the greatest are not summed; tails stop there, at more than they are.
_NEGLIGIBLE: Final = 1e-40
_NORMAL: Final = NormalDist()


class Tails(NamedTuple):
    """How probable figures at least as far up, or down, are where nothing changed."""

    up: float
    down: float

    @property
    def p(self) -> float:
        """Two-sided: twice the smaller."""
        return min(1.0, 2.0 * min(self))


# --- distributions of counts ---------------------------------------------------------------------


class Discrete:
    """A one-peaked distribution on `low` … `high`, by the ratio of each mass to the one before.

    Summed outwards from the mode, so that no term is lost to rounding and none needs a logarithm:
    the work is some 27 standard deviations, 43,000 terms for ten million coins.
    """

    def __init__(self, low: int, mode: int, high: int, ratio: Callable[[int], float]) -> None:
        self.low, self.high = low, high
        rising, falling = [1.0], [1.0]
        for k in range(mode, high):
            rising.append(rising[-1] * ratio(k))
            if rising[-1] < _NEGLIGIBLE:
                break
        for k in range(mode - 1, low - 1, -1):
            falling.append(falling[-1] / ratio(k))
            if falling[-1] < _NEGLIGIBLE:
                break
        masses = [*reversed(falling), *rising[1:]]
        total = math.fsum(masses)
        self._first = mode - len(falling) + 1
        self._below = [min(1.0, mass / total) for mass in accumulate(masses)]
        self._above = [min(1.0, mass / total) for mass in accumulate(reversed(masses))]

    def at_most(self, k: int) -> float:
        """P(X <= k)."""
        if k < self.low:
            return 0.0
        return self._below[max(0, k - self._first)] if k - self._first < len(self._below) else 1.0

    def at_least(self, k: int) -> float:
        """P(X >= k)."""
        if k > self.high:
            return 0.0
        place = self._first + len(self._above) - 1 - k
        return self._above[max(0, place)] if place < len(self._above) else 1.0

    def largest(self, p: float) -> int:
        """The largest k with P(X <= k) at most p; `low - 1` when there is none."""
        if p >= 1.0:
            return self.high
        found = bisect_right(self._below, p) - 1
        return self._first + found if found >= 0 else self.low - 1


@lru_cache(maxsize=64)
def binomial(n: int, q: float) -> Discrete:
    """Successes among `n` trials, each with probability `q`, 0 < q < 1."""
    odds = q / (1.0 - q)
    return Discrete(0, min(n, int((n + 1) * q)), n, lambda k: (n - k) / (k + 1) * odds)


@lru_cache(maxsize=64)
def hypergeometric(marked: int, n: int, m: int) -> Discrete:
    """How many of `marked` among `n + m` fall into the `m`."""
    low, high = max(0, marked - n), min(marked, m)
    mode = max(low, min(high, (marked + 1) * (m + 1) // (n + m + 2)))
    return Discrete(
        low,
        mode,
        high,
        lambda k: (marked - k) * (m - k) / ((k + 1) * (n - marked + k + 1)),
    )


# --- quantiles -----------------------------------------------------------------------------------


def quantile_test(base: Buckets, now: Buckets, q: float) -> Tails:
    """Whether the q-quantile moved, by binomial ranks; distribution-free and valid under ties.

    Were c the quantile of both, at most so many of `base` would lie below c and at least so many of
    `now` at or below it, each by a binomial law. What speaks for c is the product of the two
    p-values; what is judged is the largest over all c.
    """
    return Tails(_risen(base, now, q), _risen(now, base, q))


def quantile_interval(base: Buckets, now: Buckets, q: float, level: float) -> tuple[float, float]:
    """Confidence interval of (q-quantile of `now`) / (that of `base`), at least 1 - `level`.

    The ratios that `quantile_test` would not refuse at `level`; 0 and inf where the samples set no
    bound. Buckets count as wide as they are.
    """
    bound = _lowest_ratio(now, base, q, level / 2)
    return _lowest_ratio(base, now, q, level / 2), 1 / bound if bound else math.inf


def quantile_floor(n: int, m: int, q: float) -> float:
    """The p that two samples of these sizes can reach for a rise as well as for a fall."""
    fewest = min(n, m)
    return min(1.0, 2.0 * _joined(max(q, 1.0 - q) ** fewest))


def size(sample: Buckets) -> int:
    """How many values a histogram holds."""
    return sum(count for _, _, count in sample)


def thinned(sample: Buckets, n: int) -> list[Bucket]:
    """The same shape with only `n` values, for values that tell no more than `n` of their kind."""
    total, before, found = size(sample), 0, []
    for (low, high, _), upto in zip(sample, accumulate(c for *_, c in sample), strict=True):
        rank = (2 * upto * n + total) // (2 * total)
        if rank > before:
            found.append((low, high, rank - before))
        before = rank
    return found


def _joined(product: float) -> float:
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
    """Inverse of `_joined`."""
    return _NORMAL.cdf(_NORMAL.inv_cdf(p) / math.sqrt(2.0)) ** 2


def _risen(base: Buckets, now: Buckets, q: float) -> float:
    n, m = size(base), size(now)
    below, above = binomial(n, q), binomial(m, q)
    lows = [low for low, _, _ in now]
    upto = [0, *accumulate(count for *_, count in now)]
    likeliest, before = below.at_least(n), 0
    for _, high, count in base:
        reached = above.at_most(upto[bisect_right(lows, high)])
        likeliest = max(likeliest, below.at_least(before) * reached)
        before += count
    return _joined(likeliest)


def _lowest_ratio(base: Buckets, now: Buckets, q: float, p: float) -> float:
    """The greatest r such that all ratios below r are refused for being too low."""
    n, m = size(base), size(now)
    below, above = binomial(n, q), binomial(m, q)
    most = _product(p)
    if below.at_least(n) > most:
        return 0.0
    upto = list(accumulate(count for *_, count in now))
    ratio, before = math.inf, 0
    for _, high, count in base:
        rank = above.largest(most / below.at_least(before))
        if rank < 0:
            return 0.0
        if rank < m:
            ratio = min(ratio, now[bisect_right(upto, rank)][0] / max(1, high))
        before += count
    return ratio


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
    at: int
    before: float
    after: float


def ks_test(base: Buckets, now: Buckets) -> Gap:
    """Whether anything about the distribution changed (Kolmogorov-Smirnov), and where most.

    Exact given the ties while sizes multiply to at most `KS_EXACT`; then by the limit
    exp(-2 d² nm / (n + m)), which ties only make more careful.
    """
    n, m = size(base), size(now)
    groups = list(_groups(base, now))
    i = j = up = down = 0
    furthest, place = 0, (groups[0][0], 0, 0)
    ends = bytearray(n + m + 1)
    for high, a, b in groups:
        i, j = i + a, j + b
        ends[i + j] = 1
        apart = i * m - j * n
        up, down = max(up, apart), max(down, -apart)
        if abs(apart) > furthest:
            furthest, place = abs(apart), (high, i, j)
    if n * m <= KS_EXACT:
        tails = Tails(_crossing(n, m, up, ends), _crossing(m, n, down, ends))
    else:
        tails = Tails(*(math.exp(-2.0 * d * (d / (n * m * (n + m)))) for d in (up, down)))
    high, i, j = place
    return Gap(tails, high, 1 - i / n, 1 - j / m)


def ks_floor(n: int, m: int) -> float:
    """The least p that any two samples of these sizes can give."""
    return min(1.0, 2.0 * _one_of(n, m))


def _one_of(n: int, m: int) -> float:
    """1 / (n + m choose n)."""
    return math.exp(math.lgamma(n + 1) + math.lgamma(m + 1) - math.lgamma(n + m + 1))


def _groups(base: Buckets, now: Buckets) -> Iterator[tuple[int, int, int]]:
    """(highest, count in base, count in now) of what cannot be told apart, ascending."""
    end = a = b = -1
    for low, high, i, j in sorted(
        [(low, high, n, 0) for low, high, n in base] + [(low, high, 0, n) for low, high, n in now]
    ):
        if low > end >= 0:
            yield end, a, b
        if low > end:
            a = b = 0
        end, a, b = max(end, high), a + i, b + j
    yield end, a, b


def _crossing(n: int, m: int, d: int, ends: bytearray) -> float:
    """Part of all orders of n and m values in which i m - j n reaches `d` where ties end."""
    if d <= 0:
        return 1.0
    row = [0.0] * (m + 1)
    for i in range(1, n + 1):
        left = 0.0
        for j in range(m + 1):
            reached = ends[i + j] and i * m - j * n >= d
            # The last of these i + j values was one of the i, or one of the j.
            left = row[j] = 1.0 if reached else (i * row[j] + j * left) / (i + j)
    return row[m]


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
    total = x + y

    def ratio(small_enough: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if small_enough(middle) else (low, middle)
        return low / (1 - low) * n / m

    # Not `binomial`, whose cache these would fill.
    law = binomial.__wrapped__
    return (
        ratio(lambda p: law(total, p).at_least(y) <= level / 2) if y else 0.0,
        ratio(lambda p: law(total, p).at_most(y) > level / 2) if x else math.inf,
    )


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
    """Which comparisons can be significant at all (Tarone 1990), by the least p each can give.

    The rest is left out of the correction. That is sound because a floor tells nothing of how the
    figures fell, only how many there are.
    """
    ascending = sorted(floors)
    # The least k with at most k floors below level / k. Both sides are monotone in k: the search
    # took most of a comparison of 2,000 models one by one, and takes milliseconds by halves.
    candidates = range(1, max(1, len(ascending)) + 1)
    k = 1 + bisect_left(candidates, True, key=lambda k: bisect_right(ascending, level / k) <= k)
    return [floor <= level / k for floor in floors]


def enough(floor: Callable[[int], float], level: float) -> int:
    """The least n for which `floor(n)`, falling, is at most `level`."""
    high = 1
    while floor(high) > level:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if floor(middle) <= level else (middle, high)
    return high
