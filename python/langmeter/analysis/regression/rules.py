"""Rules of what must not get worse, as people write them: `latency.p95>+10%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from langmeter.analysis.metrics import REFERENCE, Unit, matches
from langmeter.analysis.regression.metrics import Measure, measure

_RULE: Final = re.compile(
    REFERENCE + r"(?P<sense>[<>])\s*"
    r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[^\s\d]*)\s*",
    re.DOTALL,
)
#: Unit of a threshold → its part of the metric's unit; `%` is of the figure before.
_UNITS: Final[dict[Unit, dict[str, float]]] = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "share": {"pp": 1e-2},
    "USD": {"usd": 1.0},
    "tokens": {"": 1.0},
    "count": {"": 1.0},
}
_HINT: Final = 'write e.g. "latency.p95>+10%" or "error_rate[openai/gpt-4o]>+1pp"'
#: A change of exactly the threshold is within it, whatever the last bit of a quotient says.
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rule:
    """`METRIC[WHERE]>+CHANGE` or `<-CHANGE`: what is refused.

    Attributes:
        text: as it was written.
        measure: the metric.
        where: name of a model, a component (`tool search`) or `total`, with `*` and `?`; "" for
            the total and every model, or every row of defects (`null-deref/high by openai/gpt-4o`).
        sense: 1 against a rise, -1 against a fall.
        threshold: a part of the figure before where `relative`, else in the metric's unit.
        relative: whether it was given in %.
    """

    text: str
    measure: Measure
    where: str
    sense: int
    threshold: float
    relative: bool

    @staticmethod
    def parse(text: str) -> Rule:
        """Read a rule. Raises ValueError on what is none, naming what is wrong and the remedy."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise ValueError(f"invalid rule {text!r}; {_HINT}")
        try:
            metric = measure(match["metric"])
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        rise = match["sense"] == ">"
        if match["sign"] != ("+" if rise else "-"):
            raise ValueError(
                f"{text!r}: a rule is about a change; write >+{match['number']}{match['unit']} "
                f"against a rise, <-{match['number']}{match['unit']} against a fall"
            )
        unit, number = match["unit"], float(match["number"])
        units = _UNITS[metric.unit]
        # The greatest difference of two shares is itself a difference, a part of nothing.
        known = units if metric.name.endswith(".ks") else {"%": 0.01, **units}
        if unit not in known:
            choices = " or ".join(name or "a plain number" for name in known)
            raise ValueError(f"{text!r}: {metric.name} changes by {choices}, not by {unit!r}")
        where, sense = match["where"] or "", 1 if rise else -1
        return Rule(text.strip(), metric, where, sense, number * known[unit], unit == "%")

    def covers(self, kind: str, name: str) -> bool:
        """Whether it is about this subject; `kind` is total, model, defect, or a component's."""
        if self.measure.of_defects is not (kind == "defect"):
            return False
        if not self.where:
            return kind in ("total", "model", "defect")
        return matches(self.where, name)

    def exceeded(self, before: float, after: float) -> bool:
        """Whether the change is beyond the threshold."""
        change = relative_change(before, after) if self.relative else after - before
        scale = 1.0 if self.relative else max(abs(before), abs(after))
        least = abs(self.threshold) + _ROUNDING * max(scale, abs(self.threshold))
        return change > least if self.sense > 0 else change < -least


def relative_change(before: float, after: float) -> float:
    """`after / before - 1`; inf where something came of nothing."""
    if before:
        return after / before - 1
    return float("inf") if after else 0.0
