"""Conditions: the one grammar of rules, for comparisons and for alerts.

`METRIC[WHERE] > NUMBER UNIT`, with `<` and with `per LENGTH` for a sum. A sign before the number
makes it a change, of which per cent are of the figure before: `latency.p95 > +10%`. Without one it
is a value, and a per cent is a hundredth: `error_rate > 5%`. Gauges are figures of the state of a
process: `budget('team-a').used > 80%`, `circuit('openai').open > 0`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final, Generic, Protocol, TypeVar

from langmeter._base.spans import seconds_of
from langmeter.analysis.metrics import REFERENCE, Metric, Unit, metric
from langmeter.errors import ConfigError

__all__ = ["Condition", "ConditionError", "Gauge", "read_amount"]

_SUBJECT: Final = re.compile(REFERENCE, re.DOTALL)
_GAUGE: Final = re.compile(
    r"\s*(?P<kind>\w+)\(\s*(?P<quote>['\"])(?P<where>.+?)(?P=quote)\s*\)\s*\.\s*(?P<figure>\w+)\s*"
)
_SENSE: Final = re.compile(r"(?P<sense>[<>])\s*")
_NUMBER: Final = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>(?!per\b)[^\s\d]*)\s*"
)
_PER: Final = re.compile(r"per\s+(?P<length>.*\S)\s*", re.DOTALL)
#: Unit of a number -> its part of the metric's unit, in a change and in a value.
_CHANGES: Final[dict[Unit, dict[str, float]]] = {
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6},
    "share": {"pp": 1e-2},
    "USD": {"usd": 1.0},
    "tokens": {"": 1.0},
    "count": {"": 1.0},
}
_VALUES: Final[dict[Unit, dict[str, float]]] = {
    "s": {**_CHANGES["s"], "m": 60.0, "h": 3600.0},
    "share": {"%": 1e-2, "": 1.0},
    "USD": {"": 1.0, "usd": 1.0, "USD": 1.0},
    "tokens": {"": 1.0},
    "count": {"": 1.0},
}
#: Figures of the state of a process: kind and figure -> unit.
_GAUGES: Final[dict[tuple[str, str], Unit]] = {
    ("budget", "used"): "share",
    ("circuit", "open"): "count",
}


class ConditionError(ValueError):
    """A text is not a condition.

    Attributes:
        position: of the mistake, characters from the begin of the text.
        is_syntax: whether the text has another form, and not only an unknown name or unit.
    """

    def __init__(self, message: str, position: int, *, is_syntax: bool = False) -> None:
        super().__init__(message)
        self.position = position
        self.is_syntax = is_syntax


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge(Metric):
    """A figure of the state of a process, which snapshots of spans do not have."""

    of: type[Any] = NoneType
    kind: str


class _Named(Protocol):
    """The least that is asked of a metric."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> Unit: ...


MetricT = TypeVar("MetricT", bound=_Named)


@dataclass(frozen=True, slots=True)
class Condition(Generic[MetricT]):
    """Metric of a condition, and the threshold that it is compared with.

    Attributes:
        metric: the metric.
        where: name of a model, a component, a budget, with `*` and `?`; "" where none is written.
        sense: 1 for `>`, -1 for `<`.
        sign: "+" or "-" where it is about a change, "" where it is about a value.
        number: as it is written, with its unit.
        threshold: in the metric's unit, or a part of the figure before where `relative`.
        relative: whether it is a change in per cent.
        per: seconds over which a sum is taken; None where that is not written.
    """

    metric: MetricT
    where: str
    sense: int
    sign: str
    number: str
    threshold: float
    relative: bool
    per: float | None

    def beyond(self, value: float, limit: float) -> bool:
        """Return whether a value is beyond a limit, in the sense of the condition."""
        return value > limit if self.sense > 0 else value < limit


def read_condition(
    text: str, read: Callable[[str], MetricT], *, is_change: bool = False
) -> Condition[MetricT | Gauge]:
    """Read a condition.

    Args:
        text: the condition.
        read: gives a metric by its name, or raises ValueError.
        is_change: whether a number without a sign has the units of a change, too.

    Raises ConditionError, with the position of the mistake.
    """
    subject: MetricT | Gauge
    gauge = _GAUGE.match(text)
    match = gauge or _SUBJECT.match(text)
    if match is None:
        raise ConditionError("a metric is missing", _blank(text, 0), is_syntax=True)
    if gauge is not None:
        subject = _gauge(gauge)
    else:
        try:
            subject = read(match["metric"])
        except ValueError as error:
            raise ConditionError(str(error), match.start("metric")) from None
    sense = _SENSE.match(text, match.end())
    if sense is None:
        message = "'>' or '<' is missing after the metric"
        raise ConditionError(message, _blank(text, match.end()), is_syntax=True)
    amount = _NUMBER.match(text, sense.end())
    if amount is None:
        raise ConditionError("a number is missing", sense.end(), is_syntax=True)
    threshold, relative = _amount(subject, amount, is_change or bool(amount["sign"]))
    per, end = None, amount.end()
    if over := _PER.match(text, end):
        try:
            per, end = seconds_of("per", over["length"]), over.end()
        except ConfigError as error:
            raise ConditionError(str(error), over.start("length")) from None
    if end < len(text):
        raise ConditionError(f"{text[end:]!r} is too much", end, is_syntax=True)
    return Condition(
        subject,
        match["where"] or "",
        1 if sense["sense"] == ">" else -1,
        amount["sign"],
        f"{amount['number']}{amount['unit']}",
        threshold,
        relative,
        per,
    )


def condition(text: str) -> Condition[Metric]:
    """Read a condition about the metrics of snapshots and gauges; raises ConditionError."""
    return read_condition(text, metric)


def read_amount(subject: _Named, text: str) -> float:
    """Return a value as a condition has it, e.g. `1.5s`; raises ConditionError."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match["sign"]:
        raise ConditionError(f"a value is missing, e.g. 1.5s or 4%; got {text!r}", 0)
    return _amount(subject, match, is_change=False)[0]


def _amount(subject: _Named, match: re.Match[str], is_change: bool) -> tuple[float, bool]:
    """Return a number in the unit of a metric, and whether it is a part of the figure before."""
    unit = match["unit"]
    units = (_CHANGES if is_change else _VALUES)[subject.unit]
    # The greatest difference of two shares is itself a difference, a part of nothing.
    relative = is_change and not subject.name.endswith(".ks")
    known = {"%": 0.01, **units} if relative else units
    if unit not in known:
        choices = " or ".join(name or "a plain number" for name in known)
        verb, preposition = ("changes", "by") if is_change else ("is given", "in")
        message = f"{subject.name} {verb} {preposition} {choices}, not {preposition} {unit!r}"
        raise ConditionError(message, match.start("unit"))
    return float(match["number"]) * known[unit], relative and unit == "%"


def _gauge(match: re.Match[str]) -> Gauge:
    kind, figure = match["kind"], match["figure"]
    unit = _GAUGES.get((kind, figure))
    if unit is None:
        known = " and ".join(f"{kind}('NAME').{figure}" for kind, figure in _GAUGES)
        raise ConditionError(
            f"no figure {kind}(…).{figure}; there are {known}", match.start("kind")
        )
    return Gauge(name=f"{kind}.{figure}", unit=unit, kind=kind)


def _blank(text: str, start: int) -> int:
    """Return the position of the first character from `start` on that is not a space."""
    return len(text) - len(text[start:].lstrip())
