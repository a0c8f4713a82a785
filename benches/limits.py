"""What has to hold beside speed and memory: exact counts, an undisturbed host, the import."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from langchain_core.callbacks import BaseCallbackHandler

from benches.events import Events
from benches.model import INPUT_TOKENS, PROMPT, TOKENS, FakeChat
from benches.naive import LatencyList
from benches.rows import Row
from langmeter import Meter, _core
from langmeter._core import ManualClock


def exact(threads: int, calls: int) -> list[Row]:
    """`threads` threads that make `calls` calls each, at once, through the hooks."""
    script, meter = Events.of(), Meter()
    meter.cost.prices.warm(wait=True)
    begin = threading.Barrier(threads)

    def work() -> None:
        begin.wait()
        for _ in range(calls):
            run_id = script.started(meter)
            script.streamed(meter, run_id)
            script.streamed(meter, run_id)
            script.ended(meter, run_id)

    began = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    made = threads * calls
    snapshot = meter.snapshot()
    totals = snapshot.totals
    figures = {
        "calls": (totals.calls, made),
        "ok": (totals.outcomes["ok"], made),
        "input tokens": (totals.tokens.input, made * INPUT_TOKENS),
        "output tokens": (totals.tokens.output, made * TOKENS),
        "token events": (totals.token_events, 2 * made),
        "latencies": (totals.latency.count, made),
        "first tokens": (totals.time_to_first_token.count, made),
        "gaps": (totals.inter_token_latency.count, made),
        "priced": (totals.priced_calls, made),
        "in flight": (snapshot.in_flight, 0),
        "dropped": (dict(snapshot.dropped), {}),
    }
    wrong = {name: pair for name, pair in figures.items() if pair[0] != pair[1]}
    assert not wrong, f"(counted, made): {wrong}"
    return [
        Row(
            f"{threads} threads × {calls:,} calls",
            "every count exact",
            f"{len(figures)} counts exact, {made / took:,.0f} calls/s",
            True,
        )
    ]


async def _saturated(handlers: list[BaseCallbackHandler]) -> float:
    """Seconds of four `ainvoke` of 10 ms while twelve jobs sleep in the default executor."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(6))
    jobs = [loop.run_in_executor(None, time.sleep, 0.3) for _ in range(12)]
    chat = FakeChat(delay=0.01)
    began = time.perf_counter()
    for _ in range(4):
        await chat.ainvoke(PROMPT, {"callbacks": handlers})
    took = time.perf_counter() - began
    await asyncio.gather(*jobs)
    return took


def executor(repeats: int) -> list[Row]:
    """Calls beside a default executor that has nothing left; the fastest of `repeats`."""
    meter, contrast = Meter(), LatencyList()
    meter.cost.prices.warm(wait=True)  # a thread of its own at first, that would be measured too
    without = inline = hopping = own = float("inf")
    for _ in range(repeats + 1):  # once to warm up
        without = min(without, asyncio.run(_saturated([])))
        earlier = meter.snapshot()
        inline = min(inline, asyncio.run(_saturated([meter])))
        latency = (meter.snapshot() - earlier).totals.latency
        assert latency.count == 4, latency.count
        own = min(own, latency.mean)
        hopping = min(hopping, asyncio.run(_saturated([contrast])))
    alone = without / 4
    return [
        Row(
            "default executor saturated, 4 × 10 ms ainvoke: wall",
            "as without a handler (±10 %)",
            f"{inline * 1e3:.1f} ms, without {without * 1e3:.1f}, "
            f"a handler that is not inline {hopping * 1e3:.0f}",
            abs(inline / without - 1) <= 0.1,
        ),
        Row(
            "default executor saturated: measured latency",
            "as without a handler (±10 %)",
            f"{own * 1e3:.1f} ms, without {alone * 1e3:.1f} a call",
            abs(own / alone - 1) <= 0.1,
        ),
    ]


def _spread(models: int, runs: int) -> tuple[Meter, int]:
    """A meter whose histograms are as wide as real ones: log-normal times around a second."""
    clock, rng = ManualClock(), random.Random(0)
    meter = Meter(clock=clock, max_series=max(10 * models, 1_000))
    for i in range(models):
        script = Events.of(f"model-{i}")
        for _ in range(runs):
            run_id = script.started(meter)
            for _ in range(4):
                clock.advance(rng.lognormvariate(-2, 1.5))
                script.streamed(meter, run_id)
            clock.advance(rng.lognormvariate(0, 1))
            script.ended(meter, run_id)
    return meter, models * runs


def fastest(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of `times` runs."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def snapshot(models: int, rounds: int) -> list[Row]:
    """A snapshot of `models` series with their histograms, and what recorders notice of it."""
    meter, runs = _spread(models, 100)
    taken = meter.snapshot()
    assert len(taken.models) == models
    assert taken.totals.latency.count == runs
    stats = next(iter(taken.models.values()))
    measured = (getattr(stats, name, None) for name in _core.MEASURES)
    histograms = sum(1 for measure in measured if measure is not None and measure.count)
    best = fastest(meter.snapshot, rounds)
    shown = fastest(lambda: str(meter.snapshot()), max(rounds // 10, 1))
    slowed, events = _disturbed(meter, rounds)
    assert meter.snapshot().totals.calls == runs + events
    return [
        Row(
            f"snapshot of {models} models × {histograms} histograms",
            "at most 3 ms; 8 ms to its printed table",
            f"{best * 1e3:.2f} ms; {shown * 1e3:.1f} ms to its printed table",
            best <= 3e-3 and shown <= 8e-3,
        ),
        Row(
            "recorders while another thread takes snapshots",
            "undisturbed (median block ±10 %), all counted",
            f"× {slowed:.2f}, {events:,} runs counted",
            slowed <= 1.1,
        ),
    ]


def many(models: int, rounds: int) -> list[Row]:
    """A snapshot of more models than most services have."""
    meter, runs = _spread(models, 20)
    assert meter.snapshot().totals.latency.count == runs
    best = fastest(meter.snapshot, rounds)
    row = f"snapshot of {models:,} models", "at most 30 ms", f"{best * 1e3:.1f} ms", best <= 30e-3
    return [Row(*row)]


def _disturbed(meter: Meter, rounds: int) -> tuple[float, int]:
    """(time of 50 runs beside snapshots over that without, runs made)."""
    script = Events.of("model-0")
    taking, done = threading.Event(), threading.Event()

    def take() -> None:
        while not done.is_set():
            if taking.wait(0.1):
                meter.snapshot()
                time.sleep(0.005)

    times: dict[bool, list[float]] = {False: [], True: []}
    taker = threading.Thread(target=take)
    taker.start()
    try:
        for i in range(2 * rounds):
            beside = bool(i % 2)
            (taking.set if beside else taking.clear)()
            for _ in range(10):
                began = time.perf_counter()
                for _ in range(50):
                    script.ended(meter, script.started(meter))
                times[beside].append(time.perf_counter() - began)
    finally:
        done.set()
        taker.join()
    return median(times[True]) / median(times[False]), 2 * rounds * 10 * 50


_IMPORT = """
import sys, time
began = time.perf_counter()
import langmeter
took = time.perf_counter() - began
foreign = sorted({name.partition(".")[0] for name in sys.modules} & {"langchain_core", "pydantic"})
assert not foreign, foreign
print(took)
"""


def import_time(times: int) -> list[Row]:
    """`import langmeter` in fresh interpreters."""
    told = [
        subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(times)
    ]
    best = min(map(float, told))
    return [
        Row(
            "import langmeter",
            "under 30 ms, without langchain_core",
            f"{best * 1e3:.1f} ms, without",
            best < 0.03,
        )
    ]
