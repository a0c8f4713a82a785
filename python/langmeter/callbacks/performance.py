"""Time: latency, throughput, what is in flight; by model and by component."""

from __future__ import annotations

import math
from typing import Any

from langmeter._base.observer import Watch
from langmeter.callbacks.components import ComponentCallback
from langmeter.callbacks.services import Services
from langmeter.config import Config
from langmeter.monitors.anomalies import AnomalyWatch
from langmeter.snapshot import Distribution, Rate


class PerformanceCallback(ComponentCallback):
    """Measures model calls, chains, tools and retrievers from start to end.

    From its first model call on it also looks every five seconds whether latency, error rate,
    tokens or cost of a call have changed permanently: `snapshot().anomalies`.
    """

    def __init__(self, *, config: Config | None = None, **settings: Any) -> None:
        super().__init__({"observers": (_anomalies,)}, config=config, **settings)

    def percentile(self, q: float, *, model: str | None = None) -> float:
        """Latency of model calls at a percentile, seconds; nan before the first.

        `q` is in percent, 0 or from 1 to 100: `percentile(95)`. Of all models, or of one as the
        response names it: `model="gpt-4o-2024-08-06"`, with its provider
        `"openai/gpt-4o-2024-08-06"`.
        Raises ValueError for a `q` outside, and for a fraction between 0 and 1.
        """
        if not (isinstance(q, int | float) and math.isfinite(q) and 0 <= q <= 100):
            raise ValueError(f"q = {q!r}: must be in percent, 0 to 100; p95 is percentile(95)")
        if 0 < q < 1:
            raise ValueError(
                f"q must be in percent, 0 to 100, got the fraction {q!r}; write "
                f"percentile({100 * q:g}), or ask snapshot().totals.latency.quantile({q!r})"
            )
        snapshot = self.snapshot()
        if model is None:
            return snapshot.totals.latency.quantile(q / 100)
        latencies = [
            stats.latency
            for (provider, name), stats in snapshot.models.items()
            if model in (name, f"{provider}/{name}")
        ]
        return sum(latencies, Distribution()).quantile(q / 100)

    @property
    def throughput(self) -> float:
        """Model calls ended per second, over the last minute."""
        return self.throughput_over(60).requests

    @property
    def errors_per_second(self) -> float:
        """Model calls that failed per second, over the last minute."""
        return self.throughput_over(60).errors

    def throughput_over(self, seconds: int) -> Rate:
        """Calls, tokens and errors per second over the last 60, 300 or 900 seconds.

        `throughput_over(300).per_minute.tokens` is tokens per minute over five minutes. Raises
        ValueError for another window.
        """
        rates = self.snapshot().rates
        if seconds not in rates:
            windows = ", ".join(map(str, rates))
            raise ValueError(f"seconds = {seconds!r}: must be one of the windows {windows}")
        return rates[seconds]

    @property
    def in_flight(self) -> int:
        """Model calls that have begun and not ended."""
        return self.snapshot().in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most model calls that were in flight at once."""
        return self.snapshot().peak_in_flight


def _anomalies(services: Services) -> Watch[Any]:
    return AnomalyWatch(services.recorder)
