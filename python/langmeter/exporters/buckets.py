"""HDR histograms in the forms of others: classic buckets and exponential ones.

A histogram counts microseconds, or tokens in their place: `unit` is how many of its steps are one
in the form of others, 1e6 for seconds and 1 for tokens.

Each occupied bucket of an HDR histogram goes whole to one bucket of the other form, so that figures
are right within the digits of the histogram: 0.1 % at three, 1 % at two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, log2
from typing import Final

from langmeter._core import Distribution

#: Schema (Prometheus) or scale (OpenTelemetry): 2**scale buckets double the duration. 5 are 2.2 %
#: wide each, within 0.2 % for p95 of a smooth distribution, about 400 buckets for ten minutes.
SCALE: Final = 5
#: Schemas that are offered.
SCALES: Final = (3, 4, 5)
#: Units: of durations, and of numbers of tokens.
SECOND: Final = 1_000_000
TOKEN: Final = 1


def cumulative(
    distribution: Distribution, bounds: Sequence[float], unit: int = SECOND
) -> list[int]:
    """Return how many values are at most each bound, and last how many there are.

    A value that equals a bound is counted in it, as is what the histogram cannot tell from it.
    """
    counts = [0] * (len(bounds) + 1)
    steps = [round(bound * unit) for bound in bounds]
    for lowest, _, count in distribution.buckets():
        counts[bisect_left(steps, lowest)] += count
    return list(accumulate(counts))


def exponential(
    distribution: Distribution, scale: int = SCALE, unit: int = SECOND
) -> dict[int, int]:
    """Return the counts of exponential buckets, by index, ascending.

    Bucket `index` holds values above `2 ** ((index - 1) / 2**scale)` up to and including
    `2 ** (index / 2**scale)`: Prometheus' index. OpenTelemetry's is one less.
    """
    counts: dict[int, int] = {}
    factor, doublings = 2**scale, log2(unit)
    for lowest, highest, count in distribution.buckets():
        # No value is below one step: there is no bucket for zero.
        index = ceil((log2(max(lowest + highest, 1) / 2) - doublings) * factor)
        counts[index] = counts.get(index, 0) + count
    return counts
