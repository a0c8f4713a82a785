"""`python -m benches providers [--smoke]`: what a ProviderManager adds, and what a choice costs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from benches.model import MODEL, PROMPT, FakeChat
from benches.report import conditions
from benches.rows import Row
from langmeter import Meter, PriceBook, ProviderManager

_CALLS = 20


def _manager(count: int, **settings: Any) -> tuple[ProviderManager, Meter]:
    """Return a manager of models that were each called a few times, and its meter."""
    prices = {f"p{i}/{MODEL}": {"input": 1 + i, "output": 4 + i} for i in range(count)}
    meter = Meter(prices=PriceBook(prices))
    models: dict[str, Any] = {f"p{i}": FakeChat() for i in range(count)}
    manager = ProviderManager(models, meter=meter, **settings)
    for model in models.values():
        for _ in range(5):
            model.invoke(PROMPT)
    manager.refresh()
    return manager, meter


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    began = perf_counter()
    for _ in range(_CALLS):
        call(*arguments)
    return (perf_counter() - began) / _CALLS


def invoke(rounds: int) -> list[Row]:
    """What `manager.invoke` adds to the plain model, both with the same meter, in turn.

    By the fastest round of each: other load on the machine only adds.
    """
    rows = []
    config: Any = {"metadata": {"thread_id": "a conversation"}}
    for policy in ("priority", "cheapest"):
        manager, meter = _manager(3, policy=policy)
        plain = FakeChat(callbacks=[meter])
        alone, managed = [], []
        gc.disable()
        for _ in range(rounds):
            alone.append(_seconds(plain.invoke, PROMPT, config))
            managed.append(_seconds(manager.invoke, PROMPT, config))
        gc.enable()
        counted = meter.snapshot().totals.calls
        assert counted == 2 * rounds * _CALLS + 15, counted
        assert sum(manager.decisions.values()) == rounds * _CALLS
        added = min(managed) - min(alone)
        middle = median(managed) - median(alone)
        rows.append(
            Row(
                f"manager.invoke over the plain model, 3 providers, {policy}",
                "at most 15 µs",
                f"{added * 1e6:.1f} µs (of medians {middle * 1e6:.1f})",
                added <= 15e-6,
            )
        )
    return rows


def decisions(rounds: int) -> list[Row]:
    """A choice among 20 providers and the end of its attempt, by each policy."""
    rows = []
    for policy in ("priority", "cheapest", "fastest", "healthiest", "best_fix_rate", "weights"):
        chosen: Any = {f"p{i}": 1 + i for i in range(20)} if policy == "weights" else policy
        manager, _ = _manager(20, policy=chosen)
        gc.disable()
        samples = [_seconds(_decide, manager) for _ in range(rounds)]
        gc.enable()
        rows.append(
            Row(
                f"a decision over 20 providers, {policy}",
                "at most 50 µs",
                f"{min(samples) * 1e6:.1f} µs (median {median(samples) * 1e6:.1f})",
                min(samples) <= 50e-6,
            )
        )
    return rows


def _decide(manager: ProviderManager) -> None:
    route = manager._route(PROMPT, None)
    assert route.next() == 0.0
    route.succeeded()


def main(arguments: list[str] | None = None) -> None:
    """Print the rows; a missed target is not an error."""
    rounds = 10 if "--smoke" in (arguments or sys.argv[1:]) else 300
    print(f"{conditions()}; {rounds} rounds of {_CALLS} calls.")
    rows = [*invoke(rounds), *decisions(rounds)]
    for row in rows:
        print(f"{row.what}: {row.measured}, to reach: {row.target}: {'yes' if row.holds else 'NO'}")
    missed = [row.what for row in rows if not row.holds]
    print(f"missed: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
