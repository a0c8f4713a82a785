"""The native end of a call counts and prices as the Python it spares."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given

from langmeter import TokenCountingCallback, _core
from langmeter.prices.card import PICO
from langmeter.prices.unpriced import MAX_COST
from langmeter.usage.reader import read_any
from tests.support.laws import examples
from tests.usage.test_laws import Client, Thing, mapping, result

handler = TokenCountingCallback(max_series=20_000, significant_digits=2)
FIRST = len(_core.OUTCOMES)
TOKENS = slice(FIRST, _core.COUNTERS.index("estimated"))


def ended(response: Any) -> _core.SeriesStats:
    """What the recorder counted for a call with this response."""
    before = handler.snapshot()
    run = uuid.uuid4()
    metadata = {"ls_provider": "openai", "ls_model_name": "asked"}
    handler.on_chat_model_start({"name": "Chat"}, [[]], run_id=run, metadata=metadata)
    handler.on_llm_end(response, run_id=run)
    after = handler.snapshot() - before
    (series,) = (s for s in after._series if s.kind == "model")
    return series


def test_a_call_ends_with_everything_that_the_careful_reader_reads() -> None:
    """Names, outcome, usage, bill, truncation and queue, whichever way the call took."""
    for seed in range(400):
        response = Client(seed).response()
        reading = read_any(response)
        usage = reading.usage
        if usage is None or usage.input_missing:  # estimated: another test's matter
            continue
        stats = ended(response)
        counters = dict(zip(_core.COUNTERS, stats.counters, strict=True))
        assert (stats.a, stats.b) == ("openai", reading.model or "asked")
        outcome = "cache_hit" if reading.cache_hit else "ok"
        assert {name: counters[name] for name in _core.OUTCOMES if counters[name]} == {outcome: 1}
        spent = [0] * (TOKENS.stop - FIRST) if reading.cache_hit else list(usage[:-2])
        assert list(stats.counters[TOKENS]) == spent
        assert counters["saved_total"] == (usage.total if reading.cache_hit else 0)
        assert counters["truncated"] == (reading.truncated and not reading.cache_hit)
        billed = None if reading.billed is None else round(reading.billed * PICO)
        assert counters["billed_calls"] == (billed is not None)
        assert counters["billed"] == (billed or 0)
        waited = reading.queue if not reading.cache_hit else None
        queue = stats.measure("queue_time")
        assert queue.count == (waited is not None)
        if waited is not None and 1000 < waited < 3600 * 10**9:
            assert abs(queue.max * 10**9 - waited) <= waited / 50


@pytest.mark.slow
@examples(200)
@given(mapping, mapping)
def test_junk_ends_a_call_as_the_reader_says(usage: Any, meta: Any) -> None:
    """A response of any shape ends its call, and no hook fails."""
    response: Thing = result(usage, meta)
    run = uuid.uuid4()
    before = handler.snapshot()
    metadata = {"ls_provider": "openai", "ls_model_name": "asked"}
    handler.on_chat_model_start({"name": "Chat"}, [[]], run_id=run, metadata=metadata)
    handler.on_llm_end(response, run_id=run)  # type: ignore[arg-type]
    after = handler.snapshot() - before
    assert after.totals.calls == 1
    assert "hook_errors" not in after.dropped
    reading = read_any(response)
    too_much = reading.billed is not None and reading.billed * PICO > MAX_COST
    assert after.dropped.get("usage_refused", 0) == reading.refused + too_much
