"""Snapshots beside threads, across restarts and forks, and of calls that take hours."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from langmeter import Budget, Meter, PerformanceCallback, Snapshot, TokenCountingCallback, _core
from langmeter.testing import ManualClock

HOUR = 3600.0
LLM = _core.KINDS.index("llm")


class Slow(BaseChatModel):
    """A model that takes hours of a clock that is moved by hand."""

    clock: Any
    hours: float = 2.0

    @property
    def _llm_type(self) -> str:
        return "slow"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "acme", "ls_model_name": "slow-1"}

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.clock.advance(self.hours * HOUR)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("done"))])

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        manager = kwargs.get("run_manager")
        for text in ("a", "b", "c"):
            self.clock.advance(self.hours * HOUR)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=text))
            if manager is not None:
                manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


def hours(distribution: _core.Distribution) -> float:
    """The longest of its durations."""
    return distribution.max / HOUR


@pytest.mark.parametrize("make", [Meter, PerformanceCallback])
@pytest.mark.parametrize("taken", [1.5, 24.0, 37.5])
def test_a_call_of_hours_is_told_to_three_digits(make: Any, taken: float) -> None:
    """Invoked or awaited, its longest, mean and sum are its own, and nothing was clamped."""
    clock = ManualClock()
    handler = make(clock=clock)
    model = Slow(clock=clock, hours=taken)
    model.invoke("?", {"callbacks": [handler]})
    asyncio.run(model.ainvoke("?", {"callbacks": [handler]}))
    snapshot = handler.snapshot()
    latency = snapshot.totals.latency
    assert latency.count == 2
    for seconds in (latency.min, latency.mean, latency.max, latency.quantile(0.95)):
        assert seconds == pytest.approx(taken * HOUR, rel=1e-3)
    assert latency.sum == pytest.approx(2 * taken * HOUR, rel=1e-3)
    assert "clamped" not in snapshot.dropped
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot


def test_a_stream_of_hours_is_told_to_three_digits() -> None:
    """Time to first token and the time between tokens go beyond an hour too, sync and async."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    model = Slow(clock=clock)
    list(model.stream("?", {"callbacks": [meter]}))

    async def read() -> None:
        async for _ in model.astream("?", {"callbacks": [meter]}):
            pass

    asyncio.run(read())
    totals = meter.snapshot().totals
    for name in ("time_to_first_token", "time_to_first_chunk", "inter_token_latency"):
        assert hours(getattr(totals, name)) == pytest.approx(2, rel=1e-3), name
    assert hours(totals.latency) == pytest.approx(6, rel=1e-3)
    assert hours(totals.stream_duration) == pytest.approx(4, rel=1e-2)


def test_tools_and_chains_of_hours_are_told_too() -> None:
    """Runs that are not model calls have the same range."""
    clock = ManualClock()
    meter = Meter(clock=clock)

    @tool
    def index(text: str) -> str:
        """Take five hours."""
        clock.advance(5 * HOUR)
        return text

    nightly = RunnableLambda(lambda text: index.invoke({"text": text}), name="nightly")
    nightly.invoke("?", {"callbacks": [meter]})
    longest = {row.name: hours(row.latency) for row in meter.snapshot().components.values()}
    assert longest["index"] == pytest.approx(5, rel=1e-3)
    assert longest["nightly"] == pytest.approx(5, rel=1e-3)


def test_what_is_beyond_the_range_is_counted() -> None:
    """A call of three days counts as one of 38 hours, and is in `dropped`."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    Slow(clock=clock, hours=72).invoke("?", {"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert hours(snapshot.totals.latency) == pytest.approx(38.2, rel=1e-2)
    # Of its model and of its component.
    assert snapshot.dropped["clamped"] == 2


def calls(n: int, make: Callable[..., Any] = Meter) -> Snapshot:
    """The snapshot of a recorder of its own after so many calls."""
    handler = make(clock=ManualClock())
    for _ in range(n):
        FakeListChatModel(responses=["x"]).invoke("?", {"callbacks": [handler]})
    return handler.snapshot()


def copied(snapshot: Snapshot) -> list[Snapshot]:
    """It, and what is read of its forms."""
    forms = [Snapshot.from_json(snapshot.to_json()), Snapshot.from_bytes(snapshot.to_bytes())]
    return [snapshot, *forms]


@pytest.mark.parametrize("make", [Meter, TokenCountingCallback])
@pytest.mark.parametrize(("before", "after"), [(5, 7), (7, 5), (0, 3), (3, 0), (0, 0)])
def test_the_difference_of_two_recorders_is_refused_by_name(
    before: int, after: int, make: Any
) -> None:
    """Whatever the figures, and read from a file or not."""
    earlier, later = calls(before, make), calls(after, make)
    for a, b in itertools.product(copied(earlier), copied(later)):
        with pytest.raises(ValueError, match="the process was restarted"):
            _ = b - a


def test_parts_of_a_sum_and_the_empty_snapshot_are_subtracted() -> None:
    """`(a + b) - b` is what `a` counted, `a - Snapshot()` is `a`, also after a round trip."""
    a, b = calls(5), calls(7)
    for whole, part in itertools.product(copied(a + b), copied(b)):
        assert (whole - part).totals.calls == 5
    for one in copied(a):
        assert (one - Snapshot()).totals.calls == 5
        assert ((one + b) - b).totals.latency == a.totals.latency


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_forgets_everything_but_what_budgets_spent() -> None:
    """Of 1,000 series nothing is left in the child; its difference to its parent is its own."""
    budget = Budget(calls=10_000)
    meter = Meter(budgets=[budget], max_series=1100)
    model = FakeListChatModel(responses=["x"])
    for n in range(1000):
        model.invoke("?", {"callbacks": [meter], "run_name": f"chain-{n}"})
    before = meter.snapshot()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        wrong: list[str] = []
        try:
            empty = meter.snapshot()
            if (
                empty.totals.calls,
                len(empty.components),
                empty.in_flight,
                empty.peak_in_flight,
            ) != (0, 0, 0, 0):
                wrong.append(repr(empty))
            if budget.spent != 1000:
                wrong.append(f"budget spent {budget.spent}")
            for _ in range(3):
                model.invoke("?", {"callbacks": [meter]})
            own = meter.snapshot()
            if (
                own.totals.calls != 3
                or (own - before).totals.calls != 3
                or own.totals.latency.count != 3
            ):
                wrong.append(repr(own))
            if budget.spent != 1003:
                wrong.append(f"then {budget.spent}")
        except BaseException as exc:
            wrong.append(repr(exc))
        os.write(write, "; ".join(wrong).encode() or b"ok")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"ok"
    os.waitpid(child, 0)
    assert meter.snapshot().totals.calls == 1000


def counted(rows: Any) -> tuple[int, int, int]:
    """Calls, errors and input tokens of some rows together."""
    rows = list(rows)
    return (
        sum(row.calls for row in rows),
        sum(row.errors for row in rows),
        sum(row.tokens.input for row in rows),
    )


def agrees(snapshot: Snapshot) -> None:
    """Rows by model, label, component and failure are of the same calls."""
    models = counted(snapshot.models.values())
    assert counted(snapshot.labels.values()) == models
    assert sum(row.calls for row in snapshot.components.values()) == models[0]
    for row in (*snapshot.models.values(), *snapshot.labels.values()):
        assert row.latency.count == row.calls


@pytest.mark.slow
def test_snapshots_beside_eight_threads_are_of_one_moment() -> None:
    """Of each call a snapshot, and a difference of two, has every figure or none."""
    recorder = _core.Recorder()
    usage = (100, 20, 120, *[0] * 16)
    stop = threading.Event()
    ended = itertools.count()

    def work(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            run, failed = uuid.uuid4(), n % 7 == 0
            label = ("team", ("red", "blue")[n % 2])
            recorder.run_started(run, None, LLM, f"Chat{thread}", "p", "m", labels=[label])
            code = _core.OUTCOMES.index("error" if failed else "ok")
            recorder.run_ended(
                run, LLM, code, "p", "m", None if failed else usage, None if failed else 5
            )
            next(ended)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        before = Snapshot()
        for _ in range(50):
            now = Snapshot(recorder.snapshot())
            between = now - before
            for one in (now, between):
                agrees(one)
                assert Snapshot.from_json(one.to_json()) == one
            before = now
    finally:
        stop.set()
        sys.setswitchinterval(switch)
        for thread in threads:
            thread.join()
    assert Snapshot(recorder.snapshot()).totals.calls == next(ended)


def test_a_difference_to_the_empty_snapshot_is_the_snapshot() -> None:
    """Its windows cover the time since the recorder began, and its text is read back."""
    recorder, run = _core.Recorder(), uuid.uuid4()
    recorder.run_started(run, None, LLM, "Chat", "p", "m")
    recorder.run_ended(run, LLM, 0, "p", "m", (100, 20, 120, *[0] * 16), 5)
    whole = Snapshot(recorder.snapshot())
    rest = whole - Snapshot()
    assert (rest.totals.calls, rest.totals.tokens) == (1, whole.totals.tokens)
    assert Snapshot.from_json(rest.to_json()) == rest
