"""A snapshot with every outcome and kind of figure."""

from __future__ import annotations

import uuid

import pytest

from langmeter import Snapshot
from tests.support.figures import CHAIN, LLM, metered, record


@pytest.fixture
def snapshot() -> Snapshot:
    """Two models, a chain, an error, a cancelled call, one in flight."""
    recorder, clock = metered()
    for cost in (1, 2, None):
        record(recorder, clock, cost=cost, tokens=3)
    record(recorder, clock, outcome="error", seconds=3.0)
    record(recorder, clock, outcome="cancelled", model="n")
    recorder.count(CHAIN, "chain", 0, 2_000_000_000)
    recorder.run_started(uuid.uuid4(), None, LLM, "Chat", "p", "m")
    recorder.dropped("hook_errors", 2)
    return Snapshot(recorder.snapshot())
