"""What money costs: prices, budgets, the first call of a model, a meter; and a token counted."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

from benches.events import Events
from benches.limits import fastest
from benches.rows import Row
from langmeter import (
    Budget,
    CompositeCallback,
    DefectAnalysisCallback,
    Meter,
    PerformanceCallback,
    StreamingCallback,
    TokenCountingCallback,
    _core,
)
from langmeter.callbacks.base import Callback


def _limits() -> list[Budget]:
    """One that warns, one that blocks; neither is ever reached."""
    return [
        Budget(usd=1_000_000, per="day", name="warns"),
        Budget(usd=1_000_000, per="month", action="block", name="blocks"),
    ]


def _without() -> CompositeCallback:
    """A meter but for money: the same parts, without prices and budgets."""
    parts = (
        TokenCountingCallback(),
        PerformanceCallback(),
        StreamingCallback(),
        DefectAnalysisCallback(),
    )
    return CompositeCallback(parts)


def budgets(rounds: int, calls: int) -> list[Row]:
    """Start and end of `calls` calls through the hooks, the fastest of interleaved `rounds`."""
    script, held = Events.of(streamed=False), _limits()
    with_both, with_prices, without = Meter(budgets=held), Meter(), _without()
    with_both.cost.prices.warm(wait=True)
    meters: dict[str, Callback] = {
        "without": without,
        "prices": with_prices,
        "budgets": with_both,
    }
    best = dict.fromkeys(meters, float("inf"))
    for meter in meters.values():
        script.ended(meter, script.started(meter))  # resolves the price
    gc.disable()
    try:
        for _ in range(rounds):
            for name, meter in meters.items():
                began = time.perf_counter()
                for _ in range(calls):
                    script.ended(meter, script.started(meter))
                best[name] = min(best[name], (time.perf_counter() - began) / calls)
            gc.collect()
    finally:
        gc.enable()
    made = rounds * calls + 1
    for meter in meters.values():
        assert meter.snapshot().totals.calls == made
    cost = with_both.cost.total_cost
    assert with_both.snapshot().totals.priced_calls == made
    assert all(budget.spent == cost > 0 and budget.reserved == 0 for budget in held)
    added = {name: best[name] - best["without"] for name in meters}
    return [
        Row(
            "prices and two budgets (warning, blocking), added to start + end in the cache",
            "at most 2 µs",
            f"{added['budgets'] * 1e6:.2f} µs, of which prices {added['prices'] * 1e6:.2f}",
            added["budgets"] <= 2e-6,
        )
    ]


def first_call() -> list[Row]:
    """Start and end of the first call of each of some models, the catalogue warm; the slowest."""
    names = ("gpt-4.1", "gpt-4o", "gpt-5", "o3-mini", "gpt-4-turbo", "gpt-3.5-turbo", "o1")
    scripts = [Events.of(name, streamed=False) for name in names]
    meter = Meter(budgets=_limits())
    meter.cost.prices.warm(wait=True)
    other = Events.of(streamed=False)
    other.ended(meter, other.started(meter))
    times = []
    for script in scripts:
        began = time.perf_counter()
        script.ended(meter, script.started(meter))
        times.append(time.perf_counter() - began)
    snapshot = meter.snapshot()
    assert snapshot.totals.priced_calls == len(names) + 1
    assert len(snapshot.models) == len(names) + 1
    return [
        Row(
            "first call of a new model, the catalogue warm",
            "at most 1 ms",
            f"{max(times) * 1e3:.2f} ms, the slowest of {len(names)}",
            max(times) <= 1e-3,
        )
    ]


def construct(times: int) -> list[Row]:
    """A meter with budgets and its recorder."""
    meters = []

    def make() -> None:
        meters.append(Meter(budgets=_limits()))
        assert meters[-1]._recorder.is_empty  # made now, not at the first event

    make()  # the first one starts the thread that loads the catalogue
    meters[0].cost.prices.warm(wait=True)
    alone = fastest(make, times)
    return [
        Row("making a Meter", "at most 30 ms", f"{alone * 1e3:.2f} ms", alone <= 30e-3),
    ]


def _text() -> str:
    return "\n".join(topics[key] for key in sorted(topics))[:20_000]


def _tiktoken() -> Callable[[str], int] | None:
    """Tiktoken's count, where it and its vocabulary are installed."""
    spec = find_spec("litellm")
    if find_spec("tiktoken") is None or spec is None or not spec.submodule_search_locations:
        return None
    import tiktoken

    files = Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(files)
    encoding = tiktoken.get_encoding("o200k_base")
    return lambda text: len(encoding.encode_ordinary(text))


def count(rounds: int) -> list[Row]:
    """Tokens of 20 kB of English, beside tiktoken."""
    text, theirs = _text(), _tiktoken()
    if theirs is None:
        return []
    assert _core.count_tokens(text, "o200k_base") == theirs(text)
    took = theirs_took = float("inf")
    for _ in range(rounds):
        took = min(took, fastest(lambda: _core.count_tokens(text, "o200k_base"), 10))
        theirs_took = min(theirs_took, fastest(lambda: theirs(text), 10))
    ratio = theirs_took / took
    return [
        Row(
            "counting the tokens of 20 kB of English",
            "at least 3 times as fast as tiktoken",
            f"{took * 1e3:.2f} ms, tiktoken {theirs_took * 1e3:.2f}: × {ratio:.1f}",
            ratio >= 3,
        )
    ]
