"""Alerts as sinks get them: figures, rule and span, and never the text of a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from langmeter._base.text import format_count, format_duration, format_usd, printable
from langmeter.analysis.metrics import Unit

__all__ = ["Alert", "Status"]

Status: TypeAlias = Literal["firing", "resolved"]

#: What to look at next, by the begin of a metric's name.
_NEXT: Final = {
    "latency": "langmeter bottlenecks SOURCE: where the time of pipelines goes",
    "time_to_first_token": "snapshot.models: which model answers late",
    "inter_token_latency": "snapshot.models: which model streams slowly",
    "error_rate": "snapshot.failures: which exceptions and HTTP statuses",
    "errors": "snapshot.failures: which exceptions and HTTP statuses",
    "abandoned_rate": "snapshot.dropped: why runs had no end",
    "cost": "langmeter advice SOURCE: what would cost less",
    "tokens": "langmeter advice SOURCE: what would use fewer tokens",
    "input_tokens": "langmeter advice SOURCE: what would use fewer tokens",
    "output_tokens": "langmeter advice SOURCE: what would use fewer tokens",
    "unpriced_calls": "snapshot.unpriced: which models have no price",
    "success_rate": "langmeter defects SOURCE: which model fixes which defects",
    "anomalies": "snapshot.anomalies: what changed, and when",
    "stalls": "snapshot.models: which model stops in its streams",
    "budget": "snapshot.models: which model spends it",
    "sink": "the log of the process: why the sink does not accept alerts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert that fires, or has resolved.

    Attributes:
        event_id: the same each time that this event is sent, and of no other event.
        status: "firing" or "resolved".
        name: of the rule; its text where it has none.
        rule: text of the rule.
        severity: as of the rule.
        labels: what the figure is of, by the names of the rule's `by`.
        value: the figure, in `unit`; for a change a part of `before`.
        threshold: what it is held against.
        unit: s, share (of 1), USD, tokens, count.
        count: observations that the figure rests on.
        before: of a change the figure before it; None otherwise.
        window_start, at: span of the figure, UTC; `at` is also when this was noticed.
        started_at: when the alert began to fire.
        link: address that is configured; "" without.
        source: host and process that noticed it.
    """

    event_id: str
    status: Status
    name: str
    rule: str
    severity: str
    labels: Mapping[str, str]
    value: float
    threshold: float
    unit: Unit
    count: int
    before: float | None
    window_start: datetime
    at: datetime
    started_at: datetime
    link: str = ""
    source: str = ""
    metric: str = ""

    @property
    def duration(self) -> float:
        """Seconds since it began to fire."""
        return (self.at - self.started_at).total_seconds()

    @property
    def look_at(self) -> str:
        """The advice: what to look at next."""
        return _NEXT.get(self.metric.partition(".")[0], "snapshot.table(): all figures")

    def title(self) -> str:
        """Return one line: status, name, what it is of, and the figure."""
        names = ", ".join(f"{name}={printable(text)}" for name, text in self.labels.items())
        of = f" [{names}]" if names else ""
        return f"{self.status}: {printable(self.name)}{of}: {self.figure()}"

    def figure(self) -> str:
        """Return the figure with its unit."""
        if self.before is not None:
            before, after = _written(self.before, self.unit), self.before * (1 + self.value)
            return f"{before} to {_written(after, self.unit)} ({100 * self.value:+.3g} %)"
        return _written(self.value, self.unit)

    def text(self) -> str:
        """Return a few lines for people."""
        lines = [
            self.title(),
            f"rule: {printable(self.rule)} ({printable(self.severity)})",
            f"span: {self.window_start:%Y-%m-%d %H:%M:%S} to {self.at:%H:%M:%S} UTC, "
            f"{self.count:,} observations",
            f"since: {self.started_at:%Y-%m-%d %H:%M:%S} UTC ({format_duration(self.duration)})",
            f"look at: {self.look_at}",
        ]
        return "\n".join([*lines, *([f"link: {self.link}"] if self.link else [])])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; moments are ISO 8601 texts in UTC."""
        return {
            "event_id": self.event_id,
            "status": self.status,
            "name": self.name,
            "rule": self.rule,
            "severity": self.severity,
            "labels": dict(self.labels),
            "metric": self.metric,
            "value": self.value,
            "threshold": self.threshold,
            "unit": self.unit,
            "count": self.count,
            "before": self.before,
            "window_start": self.window_start.isoformat(),
            "at": self.at.isoformat(),
            "started_at": self.started_at.isoformat(),
            "title": self.title(),
            "look_at": self.look_at,
            "link": self.link,
            "source": self.source,
        }

    def to_json(self) -> bytes:
        """Return `to_dict` as JSON in UTF-8."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False).encode()


def _written(value: float, unit: Unit) -> str:
    if unit == "s":
        return format_duration(value)
    if unit == "USD":
        return format_usd(Decimal(repr(value)))
    if unit == "share":
        return f"{100 * value:.3g} %"
    return format_count(round(value)) if value == round(value) else f"{value:,.2f}"


def moment(seconds: float) -> datetime:
    """Return a moment of Unix seconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC)
