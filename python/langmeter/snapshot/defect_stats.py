"""Statistics of attempts to fix defects: of one type and severity by one model, or by strategy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from statistics import NormalDist
from types import MappingProxyType
from typing import Final

from langmeter import _core
from langmeter._base.money import usd
from langmeter._base.text import plural, short_name
from langmeter._core import Distribution
from langmeter.snapshot.counts import Tokens, WholeNumbers
from langmeter.snapshot.stats import CallStats, Immutable

#: Outcomes that say something about the model; the others are outside of every rate.
SCORED: Final = tuple(
    name for name in _core.FIX_OUTCOMES if name not in ("infrastructure", "unscored", "unverified")
)
#: Stated confidences from which on their calibration is given.
_MIN_STATED: Final = 30
#: Bins of stated confidence.
_BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Attempts whose model stated a confidence within one tenth.

    Attributes:
        count: attempts with a verdict.
        confidence: mean of the stated confidences, 0 to 1.
        fixed: share of them that fixed their defect, 0 to 1.
    """

    count: int
    confidence: float
    fixed: float


class DefectStats(Immutable):
    """Attempts at defects in one row.

    A defect is counted once however often it was tried; its figures are `defects` to
    `first_attempt_rate`. All other figures count attempts. Outcomes that say nothing about the
    model (`infrastructure`, `unscored`, `unverified`) are outside of every rate. Each figure is
    what entered it less what left it, so that figures of a difference may be negative.
    """

    _name: str
    _tallies: Mapping[str, tuple[int, int]]
    _distribution: Callable[[str], Distribution]
    calls: CallStats

    def __init__(
        self,
        name: str,
        counters: tuple[int, ...],
        tallies: Mapping[str, tuple[int, int]],
        distribution: Callable[[str], Distribution],
    ) -> None:
        #: Model calls under the attempts: tokens, money, latency, retries.
        calls = CallStats(name, counters, (), distribution)
        vars(self).update(_name=name, _tallies=tallies, _distribution=distribution, calls=calls)

    @staticmethod
    def merged(rows: Iterable[DefectStats], name: str = "all") -> DefectStats:
        """Return the sum of rows; a defect that two models tried counts for each of them."""
        rows = tuple(rows)
        tallies: dict[str, tuple[int, int]] = {}
        for row in rows:
            for tally, (entered, left) in row._tallies.items():
                known = tallies.get(tally, (0, 0))
                tallies[tally] = known[0] + entered, known[1] + left
        zero = (0,) * len(_core.COUNTERS)
        counters = tuple(map(sum, zip(zero, *(row.calls._counters for row in rows), strict=True)))

        def distribution(measure: str) -> Distribution:
            return Distribution.total([row._distribution(measure) for row in rows])

        return DefectStats(name, counters, tallies, distribution)

    def _count(self, tally: str) -> int:
        entered, left = self._tallies.get(tally, (0, 0))
        return entered - left

    # --- by defect -------------------------------------------------------------------------------

    @property
    def defects(self) -> int:
        """Defects that were tried."""
        return self._count("defects")

    @property
    def closed(self) -> int:
        """Defects with an attempt whose outcome says something about the model."""
        return self._count("defects_closed")

    @property
    def fixed(self) -> int:
        """Defects that an attempt fixed."""
        return self._count("defects_fixed")

    @property
    def success_rate(self) -> float:
        """Share of `fixed` among `closed`, 0 to 1; nan where none is closed."""
        return _ratio(self.fixed, self.closed)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `success_rate`: low and high, both nan where none is closed."""
        return self.interval_at(0.95)

    def interval_at(self, confidence: float) -> tuple[float, float]:
        """Return the Wilson interval of `success_rate` at a confidence between 0 and 1.

        Raises ValueError outside of that.
        """
        return wilson(self.fixed, self.closed, confidence)

    @property
    def first_attempt_rate(self) -> float:
        """Share of first attempts that fixed their defect, 0 to 1; nan where there is none."""
        return _ratio(self._count("first_attempts_fixed"), self._count("first_attempts"))

    @property
    def time_to_fix(self) -> Distribution:
        """Seconds from the begin of a defect's first attempt to the end of its first fix."""
        return self._distribution("time_to_fix")

    @property
    def attempts_to_fix(self) -> WholeNumbers:
        """Number of the attempt that first fixed its defect, from 1."""
        return WholeNumbers(self._distribution("attempts_to_fix"))

    @property
    def cost_per_fixed(self) -> Decimal | None:
        """US dollars of all attempts divided by `fixed`; None without a fixed defect or a price."""
        cost = self.cost
        return None if cost is None or self.fixed <= 0 else cost / self.fixed

    # --- by attempt ------------------------------------------------------------------------------

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        """Attempts by outcome, each of `langmeter.defects.OUTCOMES`: fixed, partial and so on."""
        return MappingProxyType(
            {name: self._count(f"outcome_{name}") for name in _core.FIX_OUTCOMES}
        )

    @cached_property
    def funnel(self) -> Mapping[str, int]:
        """Attempts that came at least so far.

        By stage: asked, answered, parsed, applied, compiled, tests_passed, still_right.
        """
        return MappingProxyType({name: self._count(f"stage_{name}") for name in _core.FIX_STAGES})

    @property
    def attempts(self) -> int:
        """Attempts that ended, whatever their outcome."""
        return sum(self.outcomes.values())

    @property
    def scored(self) -> int:
        """Attempts whose outcome says something about the model."""
        return sum(self.outcomes[name] for name in SCORED)

    @property
    def attempt_rate(self) -> float:
        """Share of attempts that fixed their defect among `scored`, 0 to 1; nan without one."""
        return _ratio(self.outcomes["fixed"], self.scored)

    @property
    def attempt_interval(self) -> tuple[float, float]:
        """95 % interval of `attempt_rate`, clustered by defect; both nan without an attempt.

        Attempts at one defect are not independent: a plain Wilson interval over attempts covers
        72 to 93 % where it claims 95 %. By the variance of a ratio of cluster totals; where all
        clusters agree, Wilson's over the number of defects.
        """
        n, k, m = self.closed, self._count("sum_k"), self._count("sum_m")
        if n <= 0 or m <= 0:
            return math.nan, math.nan
        rate = k / m
        squares = (
            self._count("sum_kk")
            - 2 * rate * self._count("sum_km")
            + rate * rate * self._count("sum_mm")
        )
        if n < 2 or squares <= 1e-9:
            return wilson(rate * n, n, 0.95)
        margin = _z(0.95) * math.sqrt(n / (n - 1) * squares) / m
        return max(0.0, rate - margin), min(1.0, rate + margin)

    @property
    def revisions(self) -> int:
        """Verdicts that took the place of another one."""
        return self._count("revisions")

    @property
    def candidates(self) -> int:
        """Candidates that attempts gave; those from the response cache are among them."""
        return self._count("candidates")

    @property
    def cached_candidates(self) -> int:
        """Candidates that the response cache gave: `pass_at` and `pass_all` leave them out."""
        return self._count("candidates_cached")

    @property
    def tool_calls(self) -> int:
        """Calls of tools under the attempts."""
        return self._count("tool_calls")

    @property
    def retriever_calls(self) -> int:
        """Calls of retrievers under the attempts."""
        return self._count("retriever_calls")

    def pass_at(self, k: int) -> float:
        """Return the probability that one of `k` candidates is right (pass@k), 0 to 1.

        The unbiased estimator 1 - C(n - c, k) / C(n, k), mean over the attempts with at least `k`
        judged candidates; an attempt without candidates is one. nan where there is none. Raises
        ValueError for `k` outside of 1 to 16.
        """
        return self._mean_over_samples(
            k, lambda n, right: 1 - math.comb(n - right, k) / math.comb(n, k)
        )

    def pass_all(self, k: int) -> float:
        """Return the probability that all of `k` candidates are right (pass^k), 0 to 1.

        As `pass_at`, by C(c, k) / C(n, k).
        """
        return self._mean_over_samples(k, lambda n, right: math.comb(right, k) / math.comb(n, k))

    def _mean_over_samples(self, k: int, share: Callable[[int, int], float]) -> float:
        if not isinstance(k, int) or not 1 <= k <= _core.MAX_CANDIDATES:
            raise ValueError(
                f"k must be a whole number from 1 to {_core.MAX_CANDIDATES}, got {k!r}; an attempt "
                "counts that many candidates at most"
            )
        total, weight = 0.0, 0
        for tally in self._tallies:
            if tally.startswith("samples_"):
                n, right = map(int, tally.split("_")[1:])
                if n >= k:
                    weight += self._count(tally)
                    total += self._count(tally) * share(n, right)
        return total / weight if weight > 0 else math.nan

    # --- money, tokens, quality ------------------------------------------------------------------

    @property
    def cost(self) -> Decimal | None:
        """US dollars of all model calls under the attempts; None where no call was priced."""
        return self.calls.cost

    @property
    def wasted(self) -> Decimal | None:
        """US dollars of attempts that ended and did not fix; None where no call was priced.

        Attempts without a verdict are not among them, those that failed by infrastructure are.
        """
        if self.cost is None:
            return None
        return self.cost - usd(self._count("cost_fixed")) - usd(self._count("cost_unverified"))

    @property
    def tokens(self) -> Tokens:
        """Token counts of the model calls by kind."""
        return self.calls.tokens

    @property
    def quality(self) -> Distribution:
        """Scores that came with verdicts, 0 to 1; a revised score stays among them."""
        return self._distribution("quality")

    @property
    def stated(self) -> int:
        """Attempts with a verdict whose model stated a confidence."""
        return sum(self._count(f"confidence_{tenth}_stated") for tenth in range(_BINS))

    @property
    def brier(self) -> float | None:
        """Mean squared difference between stated confidence and result; None below 30 of them.

        0 is perfect; always stating one half gives 0.25.
        """
        return self._count("brier") / 1e9 / self.stated if self.stated >= _MIN_STATED else None

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """Stated confidence beside the share that was fixed, by tenths of the confidence.

        Tenths without an attempt are left out; empty below 30 stated confidences.
        """
        if self.stated < _MIN_STATED:
            return ()
        bins = []
        for tenth in range(_BINS):
            count = self._count(f"confidence_{tenth}_stated")
            if count > 0:
                mean = self._count(f"confidence_{tenth}_sum") / 1e6 / count
                bins.append(Bin(count, mean, self._count(f"confidence_{tenth}_fixed") / count))
        return tuple(bins)

    def __repr__(self) -> str:
        attempts = plural(self.attempts, "attempt")
        fixed = f"{self.fixed:,} of {plural(self.closed, 'defect')} fixed"
        return f"<DefectStats {short_name(self._name)}: {attempts}, {fixed}>"


def wilson(fixed: float, closed: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a share; both nan where nothing was counted.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22 (1927). Raises ValueError for a confidence
    outside of 0 to 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}; 0.95 is usual")
    if closed <= 0:
        return math.nan, math.nan
    z, rate = _z(confidence), fixed / closed
    middle = rate + z * z / (2 * closed)
    margin = z * math.sqrt(max(0.0, rate * (1 - rate)) / closed + z * z / (4 * closed * closed))
    scale = 1 + z * z / closed
    return max(0.0, (middle - margin) / scale), min(1.0, (middle + margin) / scale)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole > 0 else math.nan
