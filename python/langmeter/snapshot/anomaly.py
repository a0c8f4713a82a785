"""Anomalies of a snapshot: figures of models that changed, and stayed changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A figure of a model that changed, and stayed changed.

    `metric` is latency (seconds), error_rate (a share of 1), tokens_per_call or cost_per_call (US
    dollars); of fixes success_rate (a share of 1) or cost_per_fixed (US dollars). `before` and
    `after` are its means on both sides of the change, over `calls_before` and `calls_after`: calls,
    for success_rate defects with a verdict, for cost_per_fixed fixed defects. `at` is when it
    probably changed, `detected_at` when that was noticed.
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
