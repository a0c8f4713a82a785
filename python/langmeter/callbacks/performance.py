"""Time: latency, throughput, what is in flight; by model and by component."""

from __future__ import annotations

import math

from langmeter.callbacks.components import ComponentCallback


class PerformanceCallback(ComponentCallback):
    """Measures model calls, chains, tools and retrievers from start to end."""

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
