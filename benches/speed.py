"""Every handler in every kind of call, in turn, in one process.

A round measures each handler once, in a new order; garbage is collected between rounds and not
within. What counts is the fastest of the rounds: whatever else the machine does only adds, and a
minimum of many interleaved rounds is the figure that comes back in the next run. It favours the
peers that hop through an executor, whose usual time is well above their best.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, BaseCallbackHandler, CallbackManager

from benches.model import MODEL, PROMPT, TOKENS, FakeChat
from benches.peers import EMPTY, NONE, Peer

Callbacks = list[BaseCallbackHandler]

THREADS = 16
TASKS = 64

# Calls in one sample: enough that the clock does not matter, few enough that many samples are
# undisturbed.
_CALLS = 10
_CALLS_A_THREAD = 4
_RUNS = 100


class _Floor:
    """The model, the loop and the pool that all calls share."""

    def __init__(self) -> None:
        self.model = FakeChat()
        self.result = self.model.generate([PROMPT])
        self.chunk = next(self.model._stream())
        self.runner = asyncio.Runner()
        self.pool = ThreadPoolExecutor(THREADS)

    def close(self) -> None:
        self.runner.close()
        self.pool.shutdown()

    # Each of these makes `Workload.calls` calls and returns the seconds of what is measured.

    def invoke(self, callbacks: Callbacks) -> float:
        config: Any = {"callbacks": callbacks}
        began = time.perf_counter()
        for _ in range(_CALLS):
            self.model.invoke(PROMPT, config)
        return time.perf_counter() - began

    async def ainvoke(self, callbacks: Callbacks) -> float:
        config: Any = {"callbacks": callbacks}
        began = time.perf_counter()
        for _ in range(_CALLS):
            await self.model.ainvoke(PROMPT, config)
        return time.perf_counter() - began

    def stream(self, callbacks: Callbacks) -> float:
        began = time.perf_counter()
        for _ in self.model.stream(PROMPT, {"callbacks": callbacks}):
            pass
        return time.perf_counter() - began

    async def astream(self, callbacks: Callbacks) -> float:
        began = time.perf_counter()
        async for _ in self.model.astream(PROMPT, {"callbacks": callbacks}):
            pass
        return time.perf_counter() - began

    def threads(self, callbacks: Callbacks) -> float:
        config: Any = {"callbacks": callbacks}

        def work() -> None:
            for _ in range(_CALLS_A_THREAD):
                self.model.invoke(PROMPT, config)

        began = time.perf_counter()
        for future in [self.pool.submit(work) for _ in range(THREADS)]:
            future.result()
        return time.perf_counter() - began

    async def tasks(self, callbacks: Callbacks) -> float:
        config: Any = {"callbacks": callbacks}
        began = time.perf_counter()
        await asyncio.gather(*(self.model.ainvoke(PROMPT, config) for _ in range(TASKS)))
        return time.perf_counter() - began

    # Start and end, and one token, from LangChain's manager on, all in the cache: what a whole call
    # costs besides is twenty times as much, and a handler's part disappears in its noise.

    def run(self, callbacks: Callbacks) -> float:
        manager = CallbackManager.configure(callbacks, inheritable_metadata=_METADATA)
        began = time.perf_counter()
        for _ in range(_RUNS):
            (run,) = manager.on_chat_model_start(self.model._serialized, [PROMPT], **_START)
            run.on_llm_end(self.result)
        return time.perf_counter() - began

    def token(self, callbacks: Callbacks) -> float:
        manager = CallbackManager.configure(callbacks, inheritable_metadata=_METADATA)
        (run,) = manager.on_chat_model_start(self.model._serialized, [PROMPT], **_START)
        began = time.perf_counter()
        for _ in range(TOKENS):
            run.on_llm_new_token("word ", chunk=self.chunk)
        took = time.perf_counter() - began
        run.on_llm_end(self.result)
        return took

    async def atoken(self, callbacks: Callbacks) -> float:
        manager = AsyncCallbackManager.configure(callbacks, inheritable_metadata=_METADATA)
        (run,) = await manager.on_chat_model_start(self.model._serialized, [PROMPT], **_START)
        began = time.perf_counter()
        for _ in range(TOKENS):
            await run.on_llm_new_token("word ", chunk=self.chunk)
        took = time.perf_counter() - began
        await run.on_llm_end(self.result)
        return took


# What a chat model hands to its manager.
_METADATA = {"ls_provider": "openai", "ls_model_name": MODEL, "ls_model_type": "chat"}
_START: Any = {"invocation_params": {"model": MODEL}, "options": {"stop": None}, "batch_size": 1}


@dataclass(frozen=True)
class Workload:
    """One column: `calls` model calls a sample, the sample's time shared by `units` units."""

    name: str
    title: str
    calls: int
    units: int

    def sample(self, floor: _Floor, callbacks: Callbacks) -> float:
        """Seconds a unit."""
        method = getattr(floor, self.name)
        if asyncio.iscoroutinefunction(method):
            return float(floor.runner.run(method(callbacks))) / self.units
        return float(method(callbacks)) / self.units


WORKLOADS = (
    Workload("invoke", "invoke", _CALLS, _CALLS),
    Workload("ainvoke", "ainvoke", _CALLS, _CALLS),
    Workload("stream", f"stream of {TOKENS}", 1, 1),
    Workload("astream", f"astream of {TOKENS}", 1, 1),
    Workload("threads", f"{THREADS} threads", THREADS * _CALLS_A_THREAD, THREADS * _CALLS_A_THREAD),
    Workload("tasks", f"{TASKS} tasks", TASKS, TASKS),
    Workload("run", "start + end", _RUNS, _RUNS),
    Workload("token", "one token", 1, TOKENS),
    Workload("atoken", "one token, async", 1, TOKENS),
)


@dataclass(frozen=True)
class Matrix:
    """Samples in seconds a unit, by (workload, handler)."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def best(self, workload: str, handler: str) -> float:
        """Fastest sample."""
        return min(self.samples[workload, handler])

    def usual(self, workload: str, handler: str) -> float:
        """Median sample."""
        return median(self.samples[workload, handler])

    def added(self, workload: str, handler: str) -> float:
        """What the handler adds over none."""
        return self.best(workload, handler) - self.best(workload, NONE)

    def ratio(self, workload: str, handler: str) -> float:
        """What it adds, in units of what the empty handler adds."""
        return self.added(workload, handler) / max(self.added(workload, EMPTY), 1e-9)

    @property
    def workloads(self) -> list[str]:
        """Measured, in order."""
        return list(dict.fromkeys(workload for workload, _ in self.samples))

    @property
    def handlers(self) -> list[str]:
        """Measured, in order."""
        return list(dict.fromkeys(handler for _, handler in self.samples))


def measure(
    workloads: Iterable[Workload],
    peers: Sequence[Peer],
    *,
    seconds: float,
    rounds: int,
    progress: Callable[[str], None],
) -> Matrix:
    """Sample each workload for `seconds` and for at least `rounds` rounds.

    Raises AssertionError when a handler has not seen every one of its calls.
    """
    matrix, floor, shuffle = Matrix(), _Floor(), random.Random(0).shuffle
    made = 0
    try:
        for workload in workloads:
            for peer in peers:
                matrix.samples[workload.name, peer.name] = []
                workload.sample(floor, peer.handlers)  # warm-up
            made += workload.calls
            done = _sample(workload, floor, peers, matrix, shuffle, seconds, rounds)
            made += done * workload.calls
            progress(f"{workload.title}: {done} rounds")
    finally:
        floor.close()
    for peer in peers:
        if peer.counted is not None:
            counted = peer.counted()
            assert counted == made, f"{peer.name} counted {counted} of {made} calls"
    return matrix


def _sample(
    workload: Workload,
    floor: _Floor,
    peers: Sequence[Peer],
    matrix: Matrix,
    shuffle: Callable[[list[Any]], None],
    seconds: float,
    rounds: int,
) -> int:
    order = list(peers)
    until = time.perf_counter() + seconds
    done = 0
    gc.collect()
    gc.freeze()  # what is there by now need not be walked between rounds
    gc.disable()
    try:
        while done < rounds or time.perf_counter() < until:
            shuffle(order)
            for peer in order:
                taken = workload.sample(floor, peer.handlers)
                matrix.samples[workload.name, peer.name].append(taken)
            gc.collect()
            done += 1
    finally:
        gc.enable()
        gc.unfreeze()
    return done
