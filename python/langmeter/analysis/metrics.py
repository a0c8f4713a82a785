"""Metrics: the one list of figures that comparisons, rules and histories name.

Three kinds. A *quantile* of durations is read from a histogram, a *ratio* divides two counts or
sums, a *sum* is one of them. Each is made of a tally, and tallies of parts add up to that of the
whole. `regression.metrics` says which of them can be tested, and how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

from langmeter._core import Distribution
from langmeter.analysis.fixes import defect_name
from langmeter.snapshot.anomaly import Anomaly
from langmeter.snapshot.defect_stats import DefectStats
from langmeter.snapshot.stats import CallStats, ComponentStats, SeriesCounts

Stats: TypeAlias = CallStats | ComponentStats | DefectStats
#: What a figure is made of, which adds up: a histogram; or a part, a whole, and the observations.
Tally: TypeAlias = "Distribution | tuple[float, float, int]"
Unit: TypeAlias = Literal["s", "share", "USD", "tokens", "count"]

#: Durations that have quantiles, those that are compared unasked first.
DURATIONS: Final = ("latency", "time_to_first_token", "inter_token_latency")
SHORT: Final = {"ttft": "time_to_first_token", "itl": "inter_token_latency"}
#: A metric and where it is read, as rules and queries write them: `latency.p95[openai/*]`.
REFERENCE: Final = r"\s*(?P<metric>[\w.]+)\s*(?:\[(?P<where>.+)\])?\s*"
_REFERENCE: Final = re.compile(REFERENCE, re.DOTALL)
_QUANTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
#: A metric of defects may be written with this before it.
_DEFECTS: Final = "defects."


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in the unit of its metric, and how many observations it rests on."""

    value: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its name, its unit, and whether a higher figure is worse."""

    name: str
    unit: Unit
    more_is_worse: bool = True
    of: type[Any] = SeriesCounts

    @property
    def of_defects(self) -> bool:
        """Whether it is read of attempts at defects."""
        return self.of is DefectStats

    def read(self, stats: Any) -> Figure | None:
        """Return the figure; None where there is no data for it."""
        tally = self.tally(stats)
        return None if tally is None else self.figure(tally)

    def tally(self, stats: Any) -> Tally | None:
        """Return what the figure is made of; None where the row has none of it."""
        return self._tally(stats) if isinstance(stats, self.of) else None

    def figure(self, tally: Any) -> Figure | None:
        """Return the figure that a tally, or a sum of several, makes; None without data."""
        raise NotImplementedError

    def _tally(self, stats: Any) -> Tally | None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile(Metric):
    """A quantile of the durations called `what`."""

    what: str
    q: float

    def _tally(self, stats: Any) -> Tally | None:
        durations: Distribution | None = getattr(stats, self.what, None)
        return durations

    def figure(self, tally: Any) -> Figure | None:
        """Return the quantile."""
        return Figure(tally.quantile(self.q), tally.count) if tally.count else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio(Metric):
    """`part` by `whole`; `counted` are the observations, `whole` itself if it is None."""

    part: Callable[[Any], float]
    whole: Callable[[Any], int]
    counted: Callable[[Any], int] | None = None

    def _tally(self, stats: Any) -> Tally | None:
        return float(self.part(stats)), self.whole(stats), self.observations(stats)

    def figure(self, tally: Any) -> Figure | None:
        """Return the quotient."""
        part, whole, count = tally
        # A difference may count a fix whose attempt was before it.
        return Figure(part / whole, count) if whole > 0 else None

    def observations(self, stats: Any) -> int:
        """Return how many observations the ratio rests on."""
        return (self.counted or self.whole)(stats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum(Metric):
    """A count, or a sum over `counted` observations."""

    part: Callable[[Any], float]
    counted: Callable[[Any], int]

    def _tally(self, stats: Any) -> Tally | None:
        return float(self.part(stats)), 0, self.counted(stats)

    def figure(self, tally: Any) -> Figure | None:
        """Return the sum."""
        part, _, count = tally
        return Figure(part, count) if count else None


def add(one: Any, other: Any) -> Any:
    """Return the sum of two tallies of one metric."""
    if isinstance(one, tuple):
        return tuple(map(sum, zip(one, other, strict=True)))
    return one + other


def _answered(stats: CallStats) -> int:
    """Return the calls with usage: those that tokens can have come from."""
    return stats.priced_calls + stats.unpriced_calls


def _judged(stats: SeriesCounts) -> int:
    return stats.outcomes["ok"] + stats.outcomes["error"]


def _run(stats: SeriesCounts) -> int:
    return stats.calls - stats.outcomes["cache_hit"]


def _calls(stats: SeriesCounts) -> int:
    return stats.calls


def _cost(stats: Any) -> float:
    return float(stats.cost or 0)


def _ratios() -> tuple[Ratio, ...]:
    per_call: dict[str, Any] = {"of": CallStats, "whole": _answered}
    return (
        Ratio(name="error_rate", unit="share", part=lambda s: s.errors, whole=_judged),
        Ratio(
            name="abandoned_rate",
            unit="share",
            part=lambda s: s.outcomes["abandoned"],
            whole=_run,
        ),
        Ratio(
            name="input_tokens.per_call", unit="tokens", part=lambda s: s.tokens.input, **per_call
        ),
        Ratio(
            name="output_tokens.per_call", unit="tokens", part=lambda s: s.tokens.output, **per_call
        ),
        Ratio(
            name="cost.per_call",
            unit="USD",
            of=CallStats,
            part=_cost,
            whole=lambda s: s.priced_calls,
            counted=_answered,
        ),
        Ratio(
            name="cache_read.share",
            unit="share",
            of=CallStats,
            part=lambda s: s.tokens.cache_read,
            whole=lambda s: s.tokens.input,
            counted=_answered,
            more_is_worse=False,
        ),
        Ratio(
            name="web_searches.per_call", unit="count", part=lambda s: s.web_searches, **per_call
        ),
        Ratio(
            name="success_rate",
            unit="share",
            of=DefectStats,
            part=lambda s: s.fixed,
            whole=lambda s: s.closed,
            more_is_worse=False,
        ),
        Ratio(
            name="cost.per_fixed",
            unit="USD",
            of=DefectStats,
            part=_cost,
            whole=lambda s: 0 if s.cost is None else s.fixed,
            counted=lambda s: s.closed,
        ),
    )


def _sums() -> tuple[Sum, ...]:
    tokens: dict[str, Any] = {"of": CallStats, "counted": _answered}
    attempts: dict[str, Any] = {"of": DefectStats, "counted": lambda s: s.attempts}
    return (
        Sum(name="calls", unit="count", part=_calls, counted=_calls),
        Sum(name="errors", unit="count", part=lambda s: s.errors, counted=_calls),
        Sum(name="cost", unit="USD", of=CallStats, part=_cost, counted=lambda s: s.priced_calls),
        Sum(name="unpriced_calls", unit="count", part=lambda s: s.unpriced_calls, **tokens),
        Sum(name="tokens", unit="tokens", part=lambda s: s.tokens.total, **tokens),
        Sum(name="input_tokens", unit="tokens", part=lambda s: s.tokens.input, **tokens),
        Sum(name="output_tokens", unit="tokens", part=lambda s: s.tokens.output, **tokens),
        Sum(name="stalls", unit="count", of=CallStats, part=lambda s: s.stalls, counted=_calls),
        Sum(
            name="anomalies",
            unit="count",
            of=Anomaly,
            part=lambda s: (s.after > s.before) is not (s.metric == "success_rate"),
            counted=lambda s: 1,
        ),
        Sum(name="attempts", unit="count", part=lambda s: s.attempts, **attempts),
        Sum(name="fixed", unit="count", part=lambda s: s.fixed, more_is_worse=False, **attempts),
    )


RATIOS: Final = {metric.name: metric for metric in _ratios()}
SUMS: Final = {metric.name: metric for metric in _sums()}
#: How metrics are named, for messages.
NAMES: Final = (*(f"{what}.p50 (or any p1 … p99.99)" for what in DURATIONS), *RATIOS, *SUMS)


@lru_cache(maxsize=256)
def metric(name: str) -> Metric:
    """Return a metric by its name. Raises ValueError, naming those that exist."""
    counted = RATIOS.get(name.removeprefix(_DEFECTS)) or SUMS.get(name.removeprefix(_DEFECTS))
    if counted is not None and (counted.of_defects or not name.startswith(_DEFECTS)):
        return counted
    what, _, figure = name.partition(".")
    what = SHORT.get(what, what)
    if what in DURATIONS and (match := _QUANTILE.fullmatch(figure)) and float(match[1]) > 0:
        percent = float(match[1])
        if percent < 1:
            raise ValueError(
                f"{name!r} must name a percentile in percent, p1 to p99.99; "
                f"write {what}.p{100 * percent:g}"
            )
        return Quantile(name=f"{what}.{figure}", unit="s", what=what, q=percent / 100)
    raise ValueError(f"no metric {name!r}; there are {', '.join(NAMES)}")


def reference(text: str) -> tuple[Metric, str]:
    """Return the metric and the place of `METRIC[WHERE]`, "" for none; raises ValueError."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f'invalid metric {text!r}; write e.g. "latency.p95" or "cost[openai/*]"')
    return metric(match["metric"]), match["where"] or ""


def matches(where: str, name: str) -> bool:
    """Return whether a name is the place `where`, in which `*` and `?` stand for any text."""
    pattern = re.escape(where).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def model_name(key: tuple[str, str]) -> str:
    """Return the place of a row of `snapshot.models`: `openai/gpt-4o`."""
    return "/".join(filter(None, key)) or "unknown"


def component_place(key: tuple[str, str]) -> str:
    """Return the place of a row of `snapshot.components`: `tool search`."""
    return " ".join(key)


def defect_place(key: tuple[str, str, str, str]) -> str:
    """Return the place of a row of `snapshot.defects`: `LEAK/high by openai/gpt-4o`."""
    defect_type, provider, model, severity = key
    return f"{defect_name(defect_type, severity)} by {model_name((provider, model))}"
