"""What a live page's feed says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from langmeter import Snapshot
from langmeter.report.live import view
from langmeter.report.live.past import Past
from langmeter.report.live.view import View
from langmeter.snapshot import (
    AlertState,
    BudgetState,
    CircuitState,
    DecisionState,
    OriginState,
    State,
    StreamState,
)

NOW = datetime(2026, 11, 27, 4, 30, tzinfo=UTC)


def event(data: bytes) -> tuple[str, Any]:
    """Name and data of an event."""
    first, second = data.decode().strip().split("\n")
    return first.removeprefix("event: "), json.loads(second.removeprefix("data: "))


def with_state(snapshot: Snapshot, *parts: Any, at: datetime = NOW) -> Snapshot:
    """A snapshot with this state."""
    names = {
        BudgetState: "budgets",
        CircuitState: "circuits",
        DecisionState: "decisions",
        AlertState: "alerts",
        StreamState: "streams",
    }
    listed: dict[str, list[Any]] = {}
    for part in parts:
        listed.setdefault(names[type(part)], []).append(part)
    lists: Any = {name: tuple(each) for name, each in listed.items()}
    return Snapshot(
        snapshot._native, State((OriginState("a", round(at.timestamp()) * 10**9, **lists),))
    )


def read(*snapshots: Snapshot, every: float = 1.0) -> View:
    """The view of the last of snapshots that were read one after the other."""
    past = Past()
    for number, snapshot in enumerate(snapshots):
        past.add(NOW.timestamp() + every * (number - len(snapshots) + 1), snapshot)
    return view.live(snapshots[-1], past, NOW)
