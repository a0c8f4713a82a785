"""Models by the defects they fix: rates with intervals, the better model, the cost frontier.

Models are compared among rows of one defect type and severity: over several, a model would seem
better for being given the easier defects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

from langmeter._base.text import (
    MAX_ROWS,
    NOTHING,
    format_count,
    format_duration,
    format_usd,
    plural,
    render_table,
    short_name,
)
from langmeter.snapshot import Snapshot
from langmeter.snapshot.defect_stats import SCORED, DefectStats

#: Confidence of the intervals that must not overlap where one model is called better. Of two equal
#: models compared after every 10 defects up to 2,000, a 95 % interval of the difference names a
#: winner in 2 of 5 runs, this rule in 1 to 4 of 1,000 (`python -m benches defects`).
CONFIDENCE: Final = 0.99

_HEADER: Final = (
    *("defect: model", "attempts", "fixed", "rate", "99 % interval", "first try"),
    *("a fix", "time p50", "verdict"),
)
_KEY: Final = (
    "fixed: of the defects with a verdict. first try: share of first attempts that fixed.\n"
    "a fix: dollars of all attempts for each fixed defect. best: its 99 % interval lies above that "
    "of each other model.\n"
    "frontier: no other model fixes more for less."
)


@dataclass(frozen=True, slots=True)
class ModelFixes:
    """Attempts of one model at the defects of one type and severity.

    Attributes:
        defect_type, severity: of the defects; "" where not stated.
        provider, model: both "" for attempts without a model call, which are compared with none.
        stats: the figures.
        interval: 99 % Wilson interval of `stats.success_rate`; both nan where no defect is closed.
        better_than: names (`provider/model`) of models whose interval lies below this one.
        best: whether that is each other model that closed such a defect, and there is one.
        on_frontier: whether no other model fixes a greater share for the same cost per fixed defect
            or less, or as great a share for less; False without a fix, and where a call has no
            price, because the cost is not known then.
    """

    defect_type: str
    severity: str
    provider: str
    model: str
    stats: DefectStats
    interval: tuple[float, float]
    better_than: tuple[str, ...]
    best: bool
    on_frontier: bool

    @property
    def name(self) -> str:
        """`provider/model`, `no model` for attempts without a model call."""
        return _model(self.provider, self.model)

    @property
    def defect(self) -> str:
        """Type and severity, `any defect` where neither was stated."""
        return defect_name(self.defect_type, self.severity)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: seconds, US dollars as text, None for no figure."""
        stats = self.stats
        return {
            "defect_type": self.defect_type,
            "severity": self.severity,
            "provider": self.provider,
            "model": self.model,
            "attempts": stats.attempts,
            "outcomes": dict(stats.outcomes),
            "defects": stats.defects,
            "closed": stats.closed,
            "fixed": stats.fixed,
            "success_rate": _figure(stats.success_rate),
            "interval_99": [_figure(end) for end in self.interval],
            "first_attempt_rate": _figure(stats.first_attempt_rate),
            "attempt_rate": _figure(stats.attempt_rate),
            "attempt_interval_95": [_figure(end) for end in stats.attempt_interval],
            "cost_usd": _dollars(stats.cost),
            "cost_per_fixed_usd": _dollars(stats.cost_per_fixed),
            "wasted_usd": _dollars(stats.wasted),
            "unpriced_calls": stats.calls.unpriced_calls,
            "tokens": stats.tokens.total,
            "time_to_fix_p50": _figure(stats.time_to_fix.quantile(0.5)),
            "attempts_to_fix_mean": _figure(stats.attempts_to_fix.mean),
            "quality_mean": _figure(stats.quality.mean),
            "brier": stats.brier,
            "better_than": list(self.better_than),
            "best": self.best,
            "on_frontier": self.on_frontier,
        }


@dataclass(frozen=True, slots=True)
class FixReport:
    """Models by the defects they fix; `print` gives the tables.

    Attributes:
        rows: by defect type and severity, the greatest success rate first.
        total: sum of the rows; a defect that several models tried counts for each of them.
    """

    rows: tuple[ModelFixes, ...]
    total: DefectStats

    @property
    def best(self) -> dict[tuple[str, str], ModelFixes]:
        """`(defect_type, severity)` to the best model, where one is."""
        return {(row.defect_type, row.severity): row for row in self.rows if row.best}

    @property
    def frontier(self) -> tuple[ModelFixes, ...]:
        """Rows on the cost frontier of their defect type and severity."""
        return tuple(row for row in self.rows if row.on_frontier)

    def text(self, width: int | None = None) -> str:
        """Format the tables as plain text; one line where no attempt was made.

        A table wider than `width` columns is divided.
        """
        if not self.rows:
            return "no attempt at a defect was metered"
        total = self.total
        title = (
            f"fixes: {plural(total.attempts, 'attempt')}, {total.fixed:,} of "
            f"{plural(total.closed, 'defect')} fixed (a defect counts for each model that tried it)"
        )
        blocks = [title, "\n".join(render_table(_HEADER, map(_cells, self.rows[:MAX_ROWS]), width))]
        blocks += [_KEY, "\n".join(render_table(*_funnel(total), width))]
        blocks += ["\n".join(notes)] if (notes := list(self._notes())) else []
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        return self.text()

    def _notes(self) -> Iterator[str]:
        if len(self.rows) > MAX_ROWS:
            yield f"and {len(self.rows) - MAX_ROWS:,} more rows"
        outcomes = self.total.outcomes
        outside = {name: n for name, n in outcomes.items() if n and name not in SCORED}
        if outside:
            named = ", ".join(f"{name} {n:,}" for name, n in outside.items())
            yield f"attempts outside of every rate: {named}"
        if self.total.wasted:
            yield f"of {format_usd(self.total.cost)}, for attempts that did not fix: " + format_usd(
                self.total.wasted
            )
        if unpriced := self.total.calls.unpriced_calls:
            yield f"unpriced: {plural(unpriced, 'call')}; such models are not on the frontier"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "attempts": self.total.attempts,
            "closed": self.total.closed,
            "fixed": self.total.fixed,
            "cost_usd": _dollars(self.total.cost),
            "wasted_usd": _dollars(self.total.wasted),
            "funnel": dict(self.total.funnel),
            "outcomes": dict(self.total.outcomes),
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)


def defects(snapshot: Snapshot) -> FixReport:
    """Return which model fixes which defects, how well, and at what price."""
    items = sorted(snapshot.defects.items(), key=lambda item: (item[0][0], item[0][3], item[0]))
    rows: list[ModelFixes] = []
    for (defect_type, severity), group in groupby(items, key=lambda item: item[0][::3]):
        stats = {(provider, model): stats for (_, provider, model, _), stats in group}
        compared = {key: row for key, row in stats.items() if any(key)}
        better, frontier = _better(compared), _frontier(compared)
        closed = {key for key, row in compared.items() if row.closed > 0}
        made = [
            ModelFixes(
                defect_type,
                severity,
                *key,
                row,
                row.interval_at(CONFIDENCE),
                tuple(_model(*other) for other in better.get(key, ())),
                key in closed and len(closed) > 1 and len(better[key]) == len(closed) - 1,
                key in frontier,
            )
            for key, row in stats.items()
        ]
        # A rate that is nan comes last.
        rows += sorted(made, key=lambda row: (not row.stats.closed, -row.stats.success_rate))
    return FixReport(tuple(rows), DefectStats.merged(snapshot.defects.values()))


_Models = dict[tuple[str, str], DefectStats]


def _better(models: _Models) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return of each model those whose interval lies below its own."""
    intervals = {key: row.interval_at(CONFIDENCE) for key, row in models.items()}
    return {
        key: [other for other, (_, high) in intervals.items() if high < low]
        for key, (low, _) in intervals.items()
    }


def _frontier(models: _Models) -> set[tuple[str, str]]:
    """Return the models that no other one matches in both rate and cost, and beats in one."""
    points = {
        key: (-row.success_rate, row.cost_per_fixed)
        for key, row in models.items()
        if row.closed > 0 and row.cost_per_fixed is not None and not row.calls.unpriced_calls
    }
    frontier: set[tuple[str, str]] = set()
    least = 1.0
    # By cost, then by rate: a model on the frontier fixes more than all cheaper ones.
    for _, same_cost in groupby(
        sorted(points, key=lambda key: (points[key][1], points[key][0])),
        key=lambda key: points[key][1],
    ):
        keys = list(same_cost)
        rate = points[keys[0]][0]
        if rate < least:
            frontier |= {key for key in keys if points[key][0] == rate}
            least = rate
    return frontier


def defect_name(defect_type: str, severity: str) -> str:
    """Return type and severity as one name, `any defect` where neither was stated."""
    return "/".join(filter(None, (defect_type, severity))) or "any defect"


def _model(provider: str, model: str) -> str:
    return "/".join(filter(None, (provider, model))) or "no model"


def _cells(row: ModelFixes) -> tuple[str, ...]:
    stats = row.stats
    at_least = "≥ " if stats.cost_per_fixed is not None and stats.calls.unpriced_calls else ""
    verdict = [word for word, is_so in (("best", row.best), ("frontier", row.on_frontier)) if is_so]
    return (
        f"{short_name(row.defect)}: {short_name(row.name)}",
        format_count(stats.attempts),
        f"{stats.fixed:,} of {stats.closed:,}",
        _percent(stats.success_rate),
        NOTHING if stats.closed <= 0 else " to ".join(map(_percent, row.interval)),
        _percent(stats.first_attempt_rate),
        at_least + format_usd(stats.cost_per_fixed),
        format_duration(stats.time_to_fix.quantile(0.5)),
        ", ".join(verdict) or NOTHING,
    )


def _funnel(total: DefectStats) -> tuple[tuple[str, ...], Iterable[tuple[str, ...]]]:
    attempts = total.funnel["asked"]
    lines = (
        (
            stage.replace("_", " "),
            format_count(n),
            _percent(n / attempts if attempts else float("nan")),
        )
        for stage, n in total.funnel.items()
    )
    return ("attempts that came so far", "attempts", "share"), lines


def _percent(share: float) -> str:
    return NOTHING if share != share else f"{share:.1%}"


def _figure(n: float) -> float | None:
    return None if n != n else n


def _dollars(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost:f}"
