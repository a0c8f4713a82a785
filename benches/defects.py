"""`python -m benches defects [--smoke]`: false alarms and power of "better", cost of attempts.

Models are simulated with uneven defects: the probability that a model fixes one is drawn for each
defect from a Beta distribution, so that attempts at one defect resemble one another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from inspect import cleandoc
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from benches.native_loop import Loop
from langmeter import Snapshot, _core
from langmeter.analysis.fixes import CONFIDENCE
from langmeter.analysis.regression.significance import share_interval
from langmeter.snapshot.defect_stats import DefectStats, wilson

_LOOK, _MOST = 10, 2_000


def _counts(rng: np.random.Generator, rate: float, defects: int) -> np.ndarray[Any, Any]:
    """Return the defects fixed up to each look; their difficulty is Beta, with a + b = 1."""
    fixed = rng.random(defects) < rng.beta(rate, 1 - rate, defects)
    return np.asarray(np.cumsum(fixed)[_LOOK - 1 :: _LOOK])


def _first(rng: np.random.Generator, rates: tuple[float, float]) -> tuple[int, int]:
    """Return the defects after which each rule first names a winner; by non-overlap, by difference.

    Negative where it names the wrong one, 0 where it names none.
    """
    by_overlap = by_difference = 0
    looks = (_counts(rng, rate, _MOST) for rate in rates)
    for look, (x, y) in enumerate(zip(*looks, strict=True), 1):
        n = look * _LOOK
        if not by_overlap:
            a, b = (wilson(int(fixed), n, CONFIDENCE) for fixed in (x, y))
            by_overlap = n * ((a[1] < b[0]) - (b[1] < a[0]))
        if not by_difference:
            low, high = share_interval(int(x), n, int(y), n, 0.05)
            by_difference = n * ((low > 0) - (high < 0))
        if by_overlap and by_difference:
            break
    return by_overlap, by_difference


def winners(rounds: int) -> Iterator[tuple[str, ...]]:
    """Runs in which a rule names a winner, looked at after every 10 defects up to 2,000.

    Each defect is tried once. Median: the defects of each model after which a winner is named.
    """
    rng = np.random.default_rng(1)
    yield ("models fix", "99 % intervals apart", "median", "95 % difference", "median")
    for rates in ((0.5, 0.5), (0.6, 0.6), (0.5, 0.6), (0.5, 0.7)):
        firsts = list(zip(*(_first(rng, rates) for _ in range(rounds)), strict=True))
        line = [f"{rates[0]:.1f} and {rates[1]:.1f}"]
        for first in firsts:
            named = [abs(n) for n in first if n]
            share = f"{len(named) / rounds:.1%}"
            if rates[0] != rates[1]:
                share += f", wrong at first {sum(n < 0 for n in first) / rounds:.1%}"
            line += [share, f"{median(named):.0f}" if named else "-"]
        yield tuple(line)


def coverage(rounds: int) -> Iterator[tuple[str, ...]]:
    """How often a 95 % interval of the attempt rate holds it: 60 defects, each tried m times."""
    rng = np.random.default_rng(2)
    yield ("difficulty", "m", "by defect", "plain Wilson")
    for shape in (5.0, 1.0, 0.5):
        for m in (3, 5):
            hits = [0, 0]
            for _ in range(rounds):
                k = rng.binomial(m, rng.beta(shape, shape, 60))
                sums = {
                    "defects_closed": 60,
                    "sum_k": int(k.sum()),
                    "sum_m": 60 * m,
                    "sum_kk": int((k * k).sum()),
                    "sum_km": int(m * k.sum()),
                    "sum_mm": 60 * m * m,
                }
                intervals = (
                    _stats(sums).attempt_interval,
                    wilson(sums["sum_k"], sums["sum_m"], 0.95),
                )
                for place, (low, high) in enumerate(intervals):
                    hits[place] += low <= 0.5 <= high
            yield (
                f"Beta({shape:g}, {shape:g})",
                str(m),
                *(f"{hit / rounds:.1%}" for hit in hits),
            )


def _stats(sums: dict[str, int]) -> DefectStats:
    tallies = {name: (n, 0) for name, n in sums.items()}
    counters = (0,) * len(_core.COUNTERS)
    return DefectStats("simulated", counters, tallies, lambda _: _core.Distribution())


class _Attempted:
    """A loop of model calls, outside of attempts or in one."""

    def __init__(self, *, finds: bool, inside: bool) -> None:
        self.loop = Loop(attempts=finds)
        self.calls = 0
        self.attempts = self.loop.open_attempt() if inside else None

    def run(self, times: int) -> float:
        """Return the nanoseconds of a call."""
        begun = perf_counter_ns()
        for number in range(self.calls, self.calls + times):
            self.loop.finish(self.loop.begin(number))
        took = perf_counter_ns() - begun
        self.calls += times
        return took / times

    def check(self) -> None:
        """Raise SystemExit unless each call was counted, and counted to its attempt."""
        if self.attempts is not None:
            self.attempts.judge(1, "fixed", "tests")
            self.attempts.close(1, "unverified")
        snapshot = Snapshot(self.loop.recorder.snapshot())
        under = sum(row.calls.calls for row in snapshot.defects.values())
        counted = snapshot.totals.calls, under
        if counted != (self.calls, self.calls if self.attempts is not None else 0):
            raise SystemExit(f"counted (calls, in attempts) {counted} of {self.calls}")


def cost(rounds: int) -> Iterator[tuple[str, ...]]:
    """What a model call costs more, ns: the least of interleaved rounds of 500 calls."""
    loops = {
        "not looked for": _Attempted(finds=False, inside=False),
        "outside an attempt": _Attempted(finds=True, inside=False),
        "inside an attempt": _Attempted(finds=True, inside=True),
    }
    least = dict.fromkeys(loops, float("inf"))
    for _ in range(max(2, rounds // 5)):
        for name, loop in loops.items():
            least[name] = min(least[name], loop.run(500))
    for loop in loops.values():
        loop.check()
    yield ("attempts", "a call", "more", "target")
    floor = least["not looked for"]
    for name, target in (
        ("not looked for", ""),
        ("outside an attempt", "50"),
        ("inside an attempt", "300"),
    ):
        yield (name, f"{least[name]:,.0f}", f"{least[name] - floor:,.0f}", target or "-")


_TABLES = {table.__name__: table for table in (winners, coverage, cost)}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches defects", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="5 rounds; the shares mean nothing")
    parser.add_argument("--rounds", type=int, default=1000, help="simulated runs a row (1000)")
    parser.add_argument("--only", choices=_TABLES, help="one table")
    options = parser.parse_args(arguments)
    rounds = 5 if options.smoke else options.rounds
    for name, table in _TABLES.items():
        if options.only in (None, name):
            print(f"\n{cleandoc(table.__doc__ or '')}\n")
            for number, row in enumerate(table(rounds)):
                print(f"| {' | '.join(row)} |", flush=True)
                if number == 0:
                    print(f"|{' --: |' * len(row)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
