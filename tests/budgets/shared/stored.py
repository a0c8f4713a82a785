"""What a store has of a shared budget, read without langmeter."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any, NamedTuple

from redis import Redis


class Stored(NamedTuple):
    """Figures of a budget, and what each process may use, by its number."""

    figures: dict[str, Any]
    slices: dict[int, int]


def stored(url: str) -> Stored:
    """Read the only budget of a store; without figures before the first renewal."""
    if url.startswith("sqlite"):
        return _of_file(url.removeprefix("sqlite:///"))
    with Redis.from_url(url.replace("valkey", "redis"), decode_responses=True) as client:
        figures: Any = client.hgetall("langmeter:{b}")
        holdings: Any = client.hgetall("langmeter:{b}:holdings")
    numbers = {name: int(float(value)) for name, value in figures.items()}
    return Stored(numbers, {_process(name): int(row.split()[1]) for name, row in holdings.items()})


def _of_file(path: str) -> Stored:
    try:
        with closing(sqlite3.connect(path)) as db:
            row = db.execute("SELECT account FROM budgets WHERE key = 'b'").fetchone()
    except sqlite3.OperationalError:
        row = None
    figures = json.loads(row[0]) if row else {"holdings": {}}
    holdings = figures.pop("holdings")
    return Stored(figures, {_process(name): row[1] for name, row in holdings.items()})


def _process(holder: str) -> int:
    return int(holder.partition("-")[0])
