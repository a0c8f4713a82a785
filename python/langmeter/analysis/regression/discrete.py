"""Discrete laws with one peak, binomial and hypergeometric: their tails as sums of exact masses."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Final

#: Masses below this part of the greatest are not summed; tails stop there, at more than they are.
_NEGLIGIBLE: Final = 1e-40


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
        place = bisect_right(self._below, p) - 1
        return self._first + place if place >= 0 else self.low - 1


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
