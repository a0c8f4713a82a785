"""The hooks alone, without LangChain's dispatch around them: `pytest benches/test_hooks.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_core.utils.uuid import uuid7

from benches.events import Event, Events
from benches.peers import Empty
from langmeter import Meter

pytest.importorskip("pytest_benchmark")


@pytest.fixture
def meter() -> Meter:
    meter = Meter()
    meter.cost.prices.warm(wait=True)
    return meter


@pytest.fixture(scope="module")
def script() -> Events:
    return Events.of(streamed=False)


def _kwargs(event: Event, run_id: UUID) -> dict[str, Any]:
    return {**event[1], "run_id": run_id}


@pytest.mark.parametrize("handler", [Empty(), Meter()], ids=["empty", "meter"])
def test_token(benchmark: Any, script: Events, handler: Any) -> None:
    """A token event is one native call."""
    run_id = script.started(handler)
    benchmark(handler.on_llm_new_token, *script.token[0], **_kwargs(script.token, run_id))
    if isinstance(handler, Meter):
        script.ended(handler, run_id)
        assert handler.snapshot().totals.token_events > 0


def test_start(benchmark: Any, script: Events, meter: Meter) -> None:
    """A start hook; every run is ended outside of what is measured."""
    args, kwargs = script.start

    def fresh() -> tuple[Any, Any]:
        return args, {**kwargs, "run_id": uuid7()}

    benchmark.pedantic(meter.on_chat_model_start, setup=fresh, rounds=5000)
    assert meter.snapshot().in_flight > 0


def test_end(benchmark: Any, script: Events, meter: Meter) -> None:
    """An end hook: usage read, priced and recorded."""
    args, kwargs = script.end

    def started() -> tuple[Any, Any]:
        return args, {**kwargs, "run_id": script.started(meter)}

    benchmark.pedantic(meter.on_llm_end, setup=started, rounds=5000)
    totals = meter.snapshot().totals
    assert totals.calls == totals.priced_calls == totals.outcomes["ok"] > 0


def test_start_and_end(benchmark: Any, script: Events, meter: Meter) -> None:
    """What `invoke` adds, but for LangChain's dispatch."""

    def ids() -> Iterator[UUID]:
        while True:
            yield uuid7()

    run_ids = ids()
    start, end = script.start, script.end

    def call() -> None:
        run_id = next(run_ids)
        meter.on_chat_model_start(*start[0], **_kwargs(start, run_id))
        meter.on_llm_end(*end[0], **_kwargs(end, run_id))

    benchmark(call)
    assert meter.snapshot().in_flight == 0


def test_snapshot(benchmark: Any, script: Events, meter: Meter) -> None:
    """A snapshot of a meter with one model."""
    script.ended(meter, script.started(meter))
    snapshot = benchmark(meter.snapshot)
    assert snapshot.totals.calls == 1
