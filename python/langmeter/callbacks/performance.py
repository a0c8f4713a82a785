"""Time: latency, throughput, what is in flight; by model and by component."""

from __future__ import annotations

from typing import Any

from langmeter._base.observer import RecorderObserver
from langmeter.callbacks.components import ComponentCallback
from langmeter.callbacks.services import Services
from langmeter.callbacks.views import PerformanceView
from langmeter.config import MeterConfig
from langmeter.monitors.anomalies import AnomalyObserver
from langmeter.snapshot import Snapshot


class PerformanceCallback(ComponentCallback, PerformanceView):
    """Measures model calls, chains, tools and retrievers from start to end.

    From its first model call on it also looks every five seconds whether latency, error rate,
    tokens or cost of a call have changed permanently: `snapshot().anomalies`.

    Each property takes a whole snapshot; `of(snapshot)` reads several of one moment.
    """

    def __init__(
        self,
        *,
        anomalies: bool | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        config = MeterConfig.chosen(config, {**settings, "anomalies": anomalies}, "anomalies")
        super().__init__({"observers": (_anomalies,) if config.anomalies else ()}, config=config)

    @staticmethod
    def of(snapshot: Snapshot) -> PerformanceView:
        """Return the same figures of a snapshot: `meter.performance.of(snapshot)`."""
        return PerformanceView(snapshot)


def _anomalies(services: Services) -> RecorderObserver[Any]:
    return AnomalyObserver(services.recorder)
