"""Results of a comparison of two snapshots, as data and as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from langmeter._base.text import (
    NOTHING,
    format_duration,
    format_usd,
    plural,
    render_table,
    short_name,
)
from langmeter.analysis.metrics import Unit
from langmeter.analysis.regression.rules import Rule, relative_change

Verdict: TypeAlias = Literal["worse", "better", "same", "too few", "no test"]
State: TypeAlias = Literal["broken", "held", "not significant", "too few", "no data"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one subject, before and now.

    Attributes:
        kind: total, model, defect, chain, tool, retriever, llm or fix.
        name: `total`, `provider/model`, kind and name of a component, or
            `type/severity by provider/model`.
        metric: its full name.
        unit: of `before` and `after`: s, share (0 to 1), USD, tokens, count.
        before, after: the figure.
        calls: the independent observations behind them.
        relative: whether `change` and `interval` are parts of `before`, or differences in `unit`.
        interval: where the change lies with a confidence of 1 - level, for this row alone; None for
            the whole distribution and where there is no test.
        p: p-value, corrected for the number of comparisons; None where there is no test or too few.
        raw_p: before the correction; None where there is no test.
        verdict: worse, better; same (no change that these calls show); too few; no test.
        needed: calls on each side with which a test could begin to tell; None but for too few.
        note: what the figures are where `metric` does not say.
    """

    kind: str
    name: str
    metric: str
    unit: Unit
    before: float
    after: float
    calls: tuple[int, int]
    relative: bool
    interval: tuple[float, float] | None
    p: float | None
    raw_p: float | None
    verdict: Verdict
    needed: int | None = None
    note: str = ""

    @property
    def change(self) -> float:
        """Change of the figure, relative or in its unit; inf relative to 0."""
        if self.relative:
            return relative_change(self.before, self.after)
        return self.after - self.before

    def cells(self) -> tuple[str, ...]:
        """Return the texts of its row in a table, under `Comparison.header`."""
        return (
            short_name(self.name),
            f"{self.metric} ({self.note})" if self.note else self.metric,
            _figure(self.before, self.unit),
            _figure(self.after, self.unit),
            _change(self),
            _interval(self),
            _p(self.p),
            self.verdict,
        )


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict of a rule on one row.

    Attributes:
        rule: the rule.
        row: the row; None where there was nothing to hold the rule against.
        state: broken; held (the change is within the threshold); not significant (beyond it, but
            that may be chance); too few (beyond it or not, no test can tell); no data.
        needed: calls on each side that could tell, about; None where not known.
    """

    rule: Rule
    row: Row | None
    state: State
    needed: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Changes between two snapshots. `print` gives the table; a failed one is `failed`.

    Attributes:
        rows: every figure that both have.
        rulings: what the rules say, each of every row it covers; empty without rules.
        level: the greatest probability of any false alarm among the rows under rules, and likewise
            among the others.
        strict: whether rules that could not be judged fail too.
        gone, new: names of what only the former, only the latter snapshot has.
    """

    rows: tuple[Row, ...]
    rulings: tuple[Ruling, ...]
    level: float
    strict: bool
    gone: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def worse(self) -> tuple[Row, ...]:
        """Rows that got significantly worse."""
        return tuple(row for row in self.rows if row.verdict == "worse")

    @property
    def broken(self) -> tuple[Ruling, ...]:
        """Rulings that fail; where `strict`, also those that too little was known for."""
        bad = ("broken", "too few", "no data") if self.strict else ("broken",)
        return tuple(ruling for ruling in self.rulings if ruling.state in bad)

    @property
    def failed(self) -> bool:
        """Whether a rule fails; without rules, whether anything got significantly worse."""
        return bool(self.broken if self.rulings else self.worse)

    def text(self, *, everything: bool = False, width: int | None = None) -> str:
        """Format the verdict, a table, and what could not be judged.

        The table has what changed and what rules stopped at; `everything` shows the other rows too.
        A table wider than `width` columns is divided.
        """
        stopped = {ruling.row for ruling in self.rulings if ruling.state != "held"}
        listed = [
            row
            for row in self.rows
            if everything or row in stopped or row.verdict in ("worse", "better")
        ]
        blocks = ["\n".join([self.headline, *self._rulings()])]
        if listed:
            blocks.append("\n".join(render_table(self.header, map(Row.cells, listed), width)))
        if notes := list(self._notes()):
            blocks.append("\n".join(notes))
        return "\n\n".join(blocks)

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: null stands for nan and for infinity."""
        places = {row: place for place, row in enumerate(self.rows)}
        return {
            "failed": self.failed,
            "level": self.level,
            "strict": self.strict,
            "rows": [_row_to_dict(row) for row in self.rows],
            "rules": [
                {
                    "rule": ruling.rule.text,
                    "row": None if ruling.row is None else places[ruling.row],
                    "state": ruling.state,
                    "needed": ruling.needed,
                }
                for ruling in self.rulings
            ],
            "gone": list(self.gone),
            "new": list(self.new),
        }

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        counts = Counter(row.verdict for row in self.rows)
        verdicts = ", ".join(
            f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict]
        )
        why = ""
        if self.rulings:
            broken, judged = ({r.rule.text for r in of} for of in (self.broken, self.rulings))
            why = f"{len(broken)} of {plural(len(judged), 'rule')} broken; "
        word = "FAILED" if self.failed else "ok"
        return f"{word}: {why}{verdicts or 'nothing to compare'} (level {self.level:g})"

    @property
    def header(self) -> tuple[str, ...]:
        """Columns of the table."""
        interval = f"{100 * (1 - self.level):.4g} % interval"
        return ("what", "metric", "before", "after", "change", interval, "p", "verdict")

    def _rulings(self) -> Iterator[str]:
        for ruling in self.rulings:
            if ruling.state == "held":
                continue
            line = f"{ruling.state}: {ruling.rule.text}"
            if ruling.row is None:
                yield f"{line}: {self._nothing(ruling.rule)}"
                continue
            line += f" at {short_name(ruling.row.name)}"
            n, m = ruling.row.calls
            if ruling.state == "broken" and ruling.row.p is None:
                line += ": by the threshold alone; sums have no test"
            elif ruling.state == "broken":
                line += f": {_change(ruling.row)}, p {_p(ruling.row.p)}"
            elif ruling.state == "too few":
                line += f": {n:,} and {m:,} calls, a test needs {ruling.needed:,} on each side"
            else:
                line += f": {_change(ruling.row)} may be chance"
                if ruling.needed is not None:
                    line += f"; about {ruling.needed:,} calls on each side would tell"
            yield line

    def _nothing(self, rule: Rule) -> str:
        names = dict.fromkeys(row.name for row in self.rows)
        if rule.where and not any(rule.covers(row.kind, row.name) for row in self.rows):
            known = ", ".join(map(short_name, names)) or "nothing"
            return f"both snapshots have {known}"
        return f"{rule.measure.name} was not measured in both snapshots"

    def _notes(self) -> Iterator[str]:
        few = [row for row in self.rows if row.verdict == "too few" and row.needed is not None]
        if few and not self.rulings:
            most = max(few, key=lambda row: row.needed or 0)
            yield (
                f"too few calls for {plural(len(few), 'comparison')}; a test of "
                f"{most.metric} needs {most.needed:,} on each side"
            )
        for label, names in (("only before", self.gone), ("only now", self.new)):
            if names:
                yield f"{label}: {', '.join(map(short_name, names))}"


_ORDER: tuple[Verdict, ...] = ("worse", "better", "same", "too few", "no test")


def _row_to_dict(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "name": row.name,
        "metric": row.metric,
        "unit": row.unit,
        "before": row.before,
        "after": row.after,
        "calls": list(row.calls),
        "relative": row.relative,
        "change": _finite(row.change),
        "interval": row.interval and [_finite(end) for end in row.interval],
        "p": row.p,
        "raw_p": row.raw_p,
        "verdict": row.verdict,
        "needed": row.needed,
        "note": row.note,
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _figure(x: float, unit: Unit) -> str:
    if unit == "s":
        return format_duration(x)
    if unit == "share":
        return f"{100 * x:.2f} %"
    if unit == "USD":
        return format_usd(Decimal(f"{x:.4g}"))
    return f"{x:,.1f}" if x >= 10 else f"{x:.2f}"


def _change(row: Row) -> str:
    return _moved(row.change, relative=row.relative)


def _moved(x: float, *, relative: bool) -> str:
    if math.isinf(x):
        return "∞"
    return f"{100 * x:+,.1f} %" if relative else f"{100 * x:+.2f} pp"


def _interval(row: Row) -> str:
    if row.interval in (None, (-1.0, math.inf)):
        return NOTHING  # so few calls bound nothing
    low, high = (_moved(end, relative=row.relative) for end in row.interval)
    return f"{low} to {high}"


def _p(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
