"""Recorders with known figures."""

from __future__ import annotations

import uuid
from typing import Any

from langmeter import _core
from langmeter.testing import ManualClock

LLM, CHAIN = _core.KINDS.index("llm"), _core.KINDS.index("chain")


USAGE = (100, 40, 140, 30, 5, 2, 12, 1, 1, 3, 4, 5, 6, 7, 8, 9, 2, 10, 0)


def record(
    recorder: _core.Recorder,
    clock: ManualClock,
    *,
    seconds: float = 1.0,
    outcome: str = "ok",
    model: str = "m",
    cost: int | None = None,
    tokens: int = 0,
) -> None:
    """One call of a model, streamed where it has tokens."""
    run = uuid.uuid4()
    recorder.run_started(run, None, LLM, "Chat", "p", model)
    for _ in range(tokens):
        clock.advance(0.1)
        recorder.token(run)
    clock.advance(seconds)
    code = _core.OUTCOMES.index(outcome)
    recorder.run_ended(run, LLM, code, "p", model, USAGE if outcome == "ok" else None, cost)


def metered(**settings: Any) -> tuple[_core.Recorder, ManualClock]:
    """An empty recorder and the clock it goes by."""
    clock = ManualClock()
    return _core.Recorder(clock=clock, **settings), clock
