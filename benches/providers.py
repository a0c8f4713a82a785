"""`python -m benches providers [--smoke]`: what a ProviderManager adds, and what a choice costs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from langchain_core.messages import HumanMessage

from benches.model import MODEL, PROMPT, FakeChat
from benches.report import conditions
from benches.rows import Row
from langmeter import Meter, PriceBook, ProviderManager


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
    call(*arguments)
    return perf_counter() - began


def _tenth(samples: list[float]) -> float:
    return quantiles(samples, n=10)[0] * 1e6


def invoke(calls: int) -> list[Row]:
    """What `manager.invoke` adds to the plain model, both with the same meter, call by call.

    By the 10th percentile of each: other load on the machine only adds.
    """
    rows = []
    config: Any = {"metadata": {"thread_id": "a conversation"}}
    for policy in ("priority", "cheapest", "fastest"):
        manager, meter = _manager(3, policy=policy)
        plain = FakeChat(callbacks=[meter])
        alone, managed = [], []
        gc.disable()
        for _ in range(calls):
            alone.append(_seconds(plain.invoke, PROMPT, config))
            managed.append(_seconds(manager.invoke, PROMPT, config))
        gc.enable()
        counted = meter.snapshot().totals.calls
        assert counted == 2 * calls + 15, counted
        assert sum(manager.decisions.values()) == calls
        added = _tenth(managed) - _tenth(alone)
        rows.append(
            Row(
                f"manager.invoke over the plain model, 3 providers, {policy}",
                "at most 15 µs",
                f"{added:.1f} µs (of medians {(median(managed) - median(alone)) * 1e6:.1f})",
                added <= 15,
            )
        )
    return rows


def decisions(calls: int) -> list[Row]:
    """A choice among 20 providers and the end of its attempt, by each policy."""
    rows = []
    for policy in ("priority", "cheapest", "fastest", "healthiest", "best_fix_rate", "weights"):
        chosen: Any = {f"p{i}": 1 + i for i in range(20)} if policy == "weights" else policy
        manager, _ = _manager(20, policy=chosen)
        prompts = [[HumanMessage("x" * (40 * n))] for n in range(100)]
        gc.disable()
        samples = [_seconds(_decide, manager, prompts[n % 100]) for n in range(calls)]
        gc.enable()
        rows.append(
            Row(
                f"a decision over 20 providers, {policy}",
                "at most 50 µs",
                f"{_tenth(samples):.1f} µs (median {median(samples) * 1e6:.1f})",
                _tenth(samples) <= 50,
            )
        )
    return rows


def _decide(manager: ProviderManager, prompt: Any) -> None:
    route = manager._route(prompt, None)
    assert route.next() == 0.0
    route.succeeded()


def main(arguments: list[str] | None = None) -> None:
    """Print the rows; a missed target is not an error."""
    calls = 100 if "--smoke" in (arguments or sys.argv[1:]) else 5_000
    print(f"{conditions()}; {calls:,} calls.")
    rows = [*invoke(calls), *decisions(calls)]
    for row in rows:
        print(f"{row.what}: {row.measured}, to reach: {row.target}: {'yes' if row.holds else 'NO'}")
    missed = [row.what for row in rows if not row.holds]
    print(f"missed: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()
