"""Rules of what must not get worse, as people write them: `latency.p95>+10%`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from langmeter.analysis.conditions import ConditionError, Gauge, read_condition
from langmeter.analysis.metrics import matches
from langmeter.analysis.regression.metrics import Measure, measure

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
        try:
            read = read_condition(text, measure, is_change=True)
        except ConditionError as error:
            if error.is_syntax:
                raise ValueError(f"invalid rule {text!r}; {_HINT}") from None
            raise ValueError(f"{text!r}: {error}") from None
        metric, number = read.metric, read.number
        if isinstance(metric, Gauge) or read.per is not None:
            raise ValueError(f"invalid rule {text!r}; {_HINT}")
        if read.sign != ("+" if read.sense > 0 else "-"):
            raise ValueError(
                f"{text!r}: a rule is about a change; write >+{number} against a rise, "
                f"<-{number} against a fall"
            )
        return Rule(text.strip(), metric, read.where, read.sense, read.threshold, read.relative)

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
