"""Series of figures with changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

TICK = 5_000_000_000
BEGIN = 1_800_000_000 * 10**9


def at(tick: int) -> datetime:
    return datetime.fromtimestamp(BEGIN / 10**9, UTC) + timedelta(seconds=5 * tick)
