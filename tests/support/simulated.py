"""Snapshots of calls whose every figure a test decides."""

from __future__ import annotations

import random
from collections.abc import Iterable
from uuid import uuid4

from langmeter import Snapshot, _core
from langmeter.testing import ManualClock

_OUTCOME = {name: code for code, name in enumerate(_core.OUTCOMES)}
_KIND = {name: code for code, name in enumerate(_core.KINDS)}


def latencies(n: int, *, seed: int = 0, scale: float = 1.0) -> list[float]:
    """Seconds, lognormal with the median `scale`."""
    rng = random.Random(seed)
    return [scale * rng.lognormvariate(0, 0.3) for _ in range(n)]


def calls(
    durations: Iterable[float],
    *,
    model: str = "gpt-4o",
    errors: int = 0,
    abandoned: int = 0,
    cached: int = 0,
    tokens: tuple[int, int] = (1000, 100),
    cache_read: int = 0,
    cost: int | None = 4_000_000_000,
    gaps: int = 0,
    searches: int = 0,
    kind: str = "llm",
    name: str = "chat",
) -> Snapshot:
    """One recorder's calls, the first of them with the outcomes asked for; `cost` in pico-dollars.

    A call with `gaps` streams: its duration is as many gaps and the time to the first token.
    """
    clock = ManualClock()
    recorder = _core.Recorder(max_series=8, max_runs=64, clock=clock)
    outcomes = ["error"] * errors + ["abandoned"] * abandoned + ["cache_hit"] * cached
    for place, seconds in enumerate(durations):
        run = uuid4()
        recorder.run_started(run, None, _KIND[kind], name, "openai", model)
        for _ in range(gaps):
            clock.advance(seconds / (gaps + 1))
            recorder.token(run)
        clock.advance(seconds / (gaps + 1))
        outcome = outcomes[place] if place < len(outcomes) else "ok"
        usage = (*tokens, sum(tokens), cache_read, *[0] * 12, searches, 0, 0)
        answered = outcome == "ok" and kind == "llm"
        recorder.run_ended(
            run,
            _KIND[kind],
            _OUTCOME[outcome],
            usage=usage if answered else None,
            cost=cost if answered else None,
        )
    return Snapshot(recorder.snapshot())
