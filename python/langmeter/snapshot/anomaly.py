"""Anomalies of a snapshot: figures of models that changed, and stayed changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A figure of a model that changed, and stayed changed.

    `metric` is latency (seconds), error_rate (a share of 1), tokens_per_call or cost_per_call (US
    dollars); `before` and `after` are its means on both sides of the change, each over so many
    calls. `at` is when it probably changed, `detected_at` when that was noticed.
    """

    at: datetime
    detected_at: datetime
    provider: str
    model: str
    metric: str
    before: float
    after: float
    calls_before: int
    calls_after: int


def anomaly_of(change: Any) -> Anomaly:
    """Return an anomaly as the native snapshot has it: nanoseconds and 1e-12 of a unit."""
    at, detected_at, provider, model, metric, before, after, calls_before, calls_after = change
    moments = datetime.fromtimestamp(at / 1e9, UTC), datetime.fromtimestamp(detected_at / 1e9, UTC)
    names, figures = (provider, model, metric), (before / 1e12, after / 1e12)
    return Anomaly(*moments, *names, *figures, calls_before, calls_after)
