"""A `Meter` as the replay of recorded traffic asks for one; see tests/clients/test_replay.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langmeter import Meter

Totals = dict[tuple[str, str], dict[str, int]]
Timings = list[dict[str, float | None]]


def factory() -> tuple[Meter, Callable[[], Totals], Callable[[], Timings]]:
    """A fresh meter, its token counts by (provider, model), and its latencies in seconds.

    A snapshot keeps distributions and no single calls: there is one timing, the mean of them all,
    which after one call is that call's.
    """
    meter = Meter()

    def totals() -> Totals:
        snapshot = meter.snapshot()
        if "hook_errors" in snapshot.dropped:
            raise RuntimeError(f"a hook failed: {dict(snapshot.dropped)}")
        return {
            key: {
                "input": stats.tokens.input,
                "output": stats.tokens.output,
                "cache_read": stats.tokens.cache_read,
                "cache_creation": stats.tokens.cache_write,
                "reasoning": stats.tokens.reasoning,
                "total": stats.tokens.total,
            }
            for key, stats in snapshot.models.items()
        }

    def timings() -> Timings:
        stats: Any = meter.snapshot().totals
        if not stats.latency.count:
            return []
        first = stats.time_to_first_chunk  # the harness's clock takes any chunk for the first
        return [{"latency_s": stats.latency.mean, "ttft_s": first.mean if first.count else None}]

    return meter, totals, timings
