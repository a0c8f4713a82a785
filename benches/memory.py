"""Memory: resident bytes of a process of its own, before and after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
from contextvars import ContextVar
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NoReturn

from langchain_core.runnables import Runnable, RunnableLambda

from benches.events import Events
from benches.model import PROMPT, FakeChat
from benches.rows import Row
from langmeter import Meter

_MB = 1_000_000
# Timed-out calls in flight together.
_AT_ONCE = 500


def resident() -> int:
    """Resident bytes of this process."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return int(told.stdout) * 1024


def _mb(size: float) -> str:
    return f"{size / _MB:+.2f} MB"


def soak(runs: int) -> list[Row]:
    """`runs` streamed runs of three tokens over five models, straight into the hooks."""
    scripts = [Events.of(f"gpt-4o-mini-{i}") for i in range(5)]
    meter = Meter()
    meter.cost.prices.warm(wait=True)

    def play(n: int) -> None:
        for script in islice(cycle(scripts), n):
            run_id = script.started(meter)
            for _ in range(3):
                script.streamed(meter, run_id)
            script.ended(meter, run_id)

    warm_up = max(runs // 10, 1)
    play(warm_up)
    before = resident()
    sizes = []
    for _ in range(20):
        play(runs // 20)
        sizes.append(resident() - before)
    totals = meter.snapshot().totals
    expected = warm_up + 20 * (runs // 20)
    assert totals.calls == totals.outcomes["ok"] == expected, (totals.calls, expected)
    assert totals.token_events == 3 * expected, (totals.token_events, expected)
    furthest = max(sizes, key=abs)
    return [
        Row(
            f"memory over {20 * (runs // 20):,} runs",
            "flat (±1 MB)",
            f"{_mb(sizes[-1])} at the end, {_mb(furthest)} at the most",
            abs(furthest) <= _MB,
        )
    ]


def idle() -> list[Row]:
    """A meter that has metered one call, and what the first of a process loads for all of them."""
    chat = FakeChat()
    chat.invoke(PROMPT)
    empty = resident()
    first = Meter()
    first.cost.prices.warm(wait=True)
    for _ in range(20):
        chat.invoke(PROMPT, {"callbacks": [first]})
    before = resident()
    second = Meter()
    chat.invoke(PROMPT, {"callbacks": [second]})
    grown = resident() - before
    assert second.snapshot().totals.calls == 1
    return [
        Row(
            "an idle meter",
            "under 2 MB resident",
            f"{_mb(grown)}; the price catalogue, once a process, {_mb(before - empty)}",
            grown < 2 * _MB,
        )
    ]


def in_flight(runs: int) -> list[Row]:
    """`runs` runs that have started and not ended."""
    script, meter = Events.of(), Meter()
    meter.cost.prices.warm(wait=True)
    for _ in range(1000):
        script.ended(meter, script.started(meter))
    before = resident()
    for _ in range(runs):
        script.started(meter)
    each = (resident() - before) / runs
    assert meter.snapshot().in_flight == runs, meter.snapshot().in_flight
    return [
        Row(
            f"a run in flight ({runs:,} of them)",
            "at most 256 bytes",
            f"{each:.0f} bytes",
            each <= 256,
        )
    ]


class _Unanswered(FakeChat):
    """The call's time is up when its model has been reached, however slow the machine."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> NoReturn:
        loop = asyncio.get_running_loop()
        _deadline.get().reschedule(loop.time())
        await loop.create_future()
        raise AssertionError("a model that never answers has answered")


_deadline: ContextVar[asyncio.Timeout] = ContextVar("deadline")


async def _time_out(calls: int, meter: Meter, runnable: Runnable[Any, Any]) -> None:
    """`calls` calls, of which each is given up while it waits for the model."""

    async def one() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as deadline:
                _deadline.set(deadline)
                await runnable.ainvoke(PROMPT, {"callbacks": [meter]})

    for left in range(calls, 0, -_AT_ONCE):
        await asyncio.gather(*(one() for _ in range(min(left, _AT_ONCE))))


def abandoned(calls: int) -> list[Row]:
    """`calls` timed-out calls, for whose end no hook fires."""
    chat, meter = _Unanswered(), Meter(max_run_age=0.5)
    meter.cost.prices.warm(wait=True)

    async def main() -> tuple[int, int, int]:
        # As many as are measured: asyncio's and langmeter's own reserves are full only then.
        await _time_out(calls, meter, chat)
        await asyncio.sleep(1)
        earlier, before = meter.snapshot(), resident()
        await _time_out(calls, meter, chat)
        grown = resident() - before
        await asyncio.sleep(1)
        later = meter.snapshot() - earlier
        assert later.totals.calls == later.totals.outcomes["abandoned"], later.totals.outcomes
        return later.totals.outcomes["abandoned"], grown, meter.snapshot().in_flight

    counted, grown, left = asyncio.run(main())
    assert (counted, left) == (calls, 0), (counted, left)

    chained = Meter()
    chain = RunnableLambda(lambda x: x) | chat
    asyncio.run(_time_out(100, chained, chain))
    told = chained.snapshot()
    assert told.totals.outcomes["abandoned"] == 100, told.totals.outcomes
    assert told.in_flight == 0, told.in_flight
    return [
        Row(
            f"{calls:,} timed-out ainvoke calls",
            "flat (±1 MB); all abandoned after 1 s",
            f"{_mb(grown)}; {counted:,} abandoned, {left} in flight",
            abs(grown) <= _MB,
        ),
        Row("100 timed-out chains", "all abandoned at once", "100 abandoned at once", True),
    ]
