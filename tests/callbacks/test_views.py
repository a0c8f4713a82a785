"""Views: the figures of a handler, read from one snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from langmeter import Meter, Snapshot
from langmeter.callbacks.views import View
from langmeter.prices import PriceBook
from tests.support.models import chat_model

#: Figures of each view of a meter, as values that compare.
FIGURES: dict[str, Callable[[Any], list[Any]]] = {
    "tokens": lambda v: [v.input_tokens, v.output_tokens, v.total_tokens, dict(v.provider_usage)],
    "cost": lambda v: [v.total_cost, dict(v.provider_costs), dict(v.label_costs)],
    "performance": lambda v: [v.throughput > 0, v.percentile(50), v.throughput_over(60)],
    "streaming": lambda v: [v.time_to_first_token.count, v.inter_token_latency.count],
    "defects": lambda v: [v.success_rate, {kind: s.calls for kind, s in v.fixes.items()}],
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_view_reads_one_snapshot(name: str, prices: PriceBook) -> None:
    """Figures of a snapshot stay the same when calls follow it; those of the next one differ."""
    meter = Meter(prices=prices, labels=("team",))
    config: Any = {"callbacks": [meter], "metadata": {"team": "search"}}

    def work(success: bool) -> Any:
        chat_model().invoke("hi", config)
        list(chat_model().stream("hi", config))
        meter.defects.record_fix(success, "syntax")
        return getattr(meter, name).of(meter.snapshot())

    first = work(True)
    figures = FIGURES[name](first)
    second = work(False)
    assert FIGURES[name](first) == figures != FIGURES[name](second)


def test_a_view_has_the_figures_of_its_handler(prices: PriceBook) -> None:
    """While nothing happens, a handler and its view of a snapshot answer alike."""
    meter = Meter(prices=prices)
    chat_model().invoke("hi", {"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert meter.tokens.of(snapshot).total_tokens == meter.tokens.total_tokens == 140
    assert meter.cost.of(snapshot).total_cost == meter.cost.total_cost
    performance = meter.performance.of(snapshot)
    assert performance.percentile(50) == meter.performance.percentile(50) > 0
    assert performance.throughput_over(300).requests > 0
    assert math.isnan(meter.streaming.of(snapshot).output_tokens_per_second())


def test_a_view_of_a_sum_needs_no_handler(prices: PriceBook) -> None:
    """`of` works on the class, on snapshots of several meters added together."""
    meters = [Meter(prices=prices) for _ in range(3)]
    for meter in meters:
        chat_model().invoke("hi", {"callbacks": [meter]})
    total = sum((meter.snapshot() for meter in meters), Snapshot())
    assert type(meters[0].tokens).of(total).total_tokens == 3 * 140


def test_a_view_is_of_a_snapshot() -> None:
    """A meter in place of its snapshot is refused with what to pass."""
    with pytest.raises(TypeError, match=r"snapshot must be a Snapshot, got .*; pass what"):
        View(Meter())  # type: ignore[arg-type]
