"""Time: latency, throughput, what is in flight; by model and by component."""

from __future__ import annotations

import math
from typing import Any

from langmeter import _core
from langmeter._watch import Watch
from langmeter.anomalies import AnomalyWatch
from langmeter.callbacks.components import ComponentCallback


class PerformanceCallback(ComponentCallback):
    """Measures model calls, chains, tools and retrievers from start to end.

    From its first model call on it also looks every five seconds whether latency, error rate,
    tokens or cost of a call have changed for good: `snapshot().anomalies`.
    """

    def _new_watches(self, recorder: _core.Recorder) -> list[Watch[Any]]:
        return [AnomalyWatch(recorder)]

    def percentile(self, q: float) -> float:
        """Latency of model calls at a percentile, seconds, over all models; nan before the first.

        `q` is in percent, 0 to 100: `percentile(95)`. Raises ValueError outside of it.
        """
        if not (isinstance(q, int | float) and math.isfinite(q) and 0 <= q <= 100):
            raise ValueError(f"q = {q!r}: must be in percent, 0 to 100; p95 is percentile(95)")
        return self.snapshot().totals.latency.quantile(q / 100)

    @property
    def throughput(self) -> float:
        """Model calls ended per second, over the last minute."""
        return self.snapshot().rates[60].requests

    @property
    def in_flight(self) -> int:
        """Model calls that have begun and not ended."""
        return self.snapshot().in_flight
