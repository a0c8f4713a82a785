"""A process with alerts over a history, in a module of its own: a spawned child imports it alone.

With the tests it would import pytest and hypothesis too, another second of CPU for each child.
"""

from __future__ import annotations

from typing import Any

from langmeter import Meter
from tests.support.models import chat_model


def alerting(file: str, barrier: Any, results: Any) -> None:
    """Make three calls, and put the ids of the alerts that this process sent into `results`."""
    got: list[str] = []
    meter = Meter(
        history=file,
        alerts=["calls > 1 per 1h"],
        sinks=[lambda alert: got.append(alert.event_id)],
    )
    for _ in range(3):
        chat_model().invoke("hello", config={"callbacks": [meter]})
    meter.flush(60)
    barrier.wait(60)  # none ends before all have judged
    meter.close(60)
    results.put(got)
