"""Every handler in every kind of call, in turn, in one process.

A round measures each handler once, in a new order; garbage is collected between rounds and not
within. The table shows the fastest of the rounds: whatever else the machine does only adds. It
favours the peers that hop through an executor, whose usual time is well above their best. What a
call adds over the empty handler is the difference of the two samples of a round, of which the 10th
percentile is judged: a minimum of differences is luck, a median is the neighbours' load.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.utils.uuid import uuid7

from benches.model import MODEL, PROMPT, TOKENS, FakeChat
from benches.peers import EMPTY, METER, NONE, Peer

Callbacks = list[BaseCallbackHandler]

THREADS = 16
TASKS = 64

# Calls in one sample: enough that the clock does not matter, few enough that many samples are
# undisturbed.
_CALLS = 10
_CALLS_A_THREAD = 4
_RUNS = 100
#: Tokens of the longer stream, in tokens of the shorter one.
_LONG = 10


class _Floor:
    """The model, the loop and the pool that all calls share."""

    def __init__(self) -> None:
        self.model = FakeChat()
        self.long_model = FakeChat(repeats=_LONG)
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
        return _streamed(self.model, callbacks)

    def long_stream(self, callbacks: Callbacks) -> float:
        return _streamed(self.long_model, callbacks)

    async def astream(self, callbacks: Callbacks) -> float:
        return await _astreamed(self.model, callbacks)

    async def long_astream(self, callbacks: Callbacks) -> float:
        return await _astreamed(self.long_model, callbacks)

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

    # Start and end from LangChain's manager on, and one token by its own dispatch, all in the
    # cache: a whole call costs twenty times as much, and a handler's part disappears in it.

    def run(self, callbacks: Callbacks) -> float:
        manager = CallbackManager.configure(callbacks, inheritable_metadata=_METADATA)
        began = time.perf_counter()
        for _ in range(_RUNS):
            (run,) = manager.on_chat_model_start(self.model._serialized, [PROMPT], **_START)
            run.on_llm_end(self.result)
        return time.perf_counter() - began

    def token(self, callbacks: Callbacks) -> float:
        run_id = self._started(callbacks)
        began = time.perf_counter()
        for _ in range(TOKENS):
            handle_event(
                callbacks,
                "on_llm_new_token",
                "ignore_llm",
                token="word ",
                run_id=run_id,
                parent_run_id=None,
                tags=[],
                chunk=self.chunk,
            )
        took = time.perf_counter() - began
        self._ended(callbacks, run_id)
        return took

    async def atoken(self, callbacks: Callbacks) -> float:
        run_id = self._started(callbacks)
        began = time.perf_counter()
        for _ in range(TOKENS):
            await ahandle_event(
                callbacks,
                "on_llm_new_token",
                "ignore_llm",
                "word ",
                chunk=self.chunk,
                run_id=run_id,
                parent_run_id=None,
                tags=[],
            )
        took = time.perf_counter() - began
        self._ended(callbacks, run_id)
        return took

    def _started(self, callbacks: Callbacks) -> UUID:
        run_id = uuid7()
        handle_event(
            callbacks,
            "on_chat_model_start",
            "ignore_chat_model",
            self.model._serialized,
            [PROMPT],
            run_id=run_id,
            metadata=_METADATA,
            **_START,
        )
        return run_id

    def _ended(self, callbacks: Callbacks, run_id: UUID) -> None:
        handle_event(callbacks, "on_llm_end", "ignore_llm", self.result, run_id=run_id)


def _streamed(model: FakeChat, callbacks: Callbacks) -> float:
    began = time.perf_counter()
    for _ in model.stream(PROMPT, {"callbacks": callbacks}):
        pass
    return time.perf_counter() - began


async def _astreamed(model: FakeChat, callbacks: Callbacks) -> float:
    began = time.perf_counter()
    async for _ in model.astream(PROMPT, {"callbacks": callbacks}):
        pass
    return time.perf_counter() - began


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
    #: Whether it is measured for the floor and the meter alone, and judged but not in the table.
    judged_only: bool = False

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
    Workload("long_stream", f"stream of {_LONG * TOKENS:,}", 1, 1, judged_only=True),
    Workload("long_astream", f"astream of {_LONG * TOKENS:,}", 1, 1, judged_only=True),
    Workload("threads", f"{THREADS} threads", THREADS * _CALLS_A_THREAD, THREADS * _CALLS_A_THREAD),
    Workload("tasks", f"{TASKS} tasks", TASKS, TASKS),
    Workload("run", "start + end", _RUNS, _RUNS),
    Workload("token", "one token", 1, TOKENS),
    Workload("atoken", "one token, async", 1, TOKENS),
)
_BY_NAME = {workload.name: workload for workload in WORKLOADS}
_JUDGED = (NONE, EMPTY, METER)


class Spread(NamedTuple):
    """Minimum, 10th percentile and median of some differences, in seconds."""

    least: float
    tenth: float
    median: float


@dataclass(frozen=True)
class Matrix:
    """Samples in seconds a unit, by (workload, handler)."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def best(self, workload: str, handler: str) -> float:
        """Fastest sample."""
        return min(self.samples[workload, handler])

    def over_empty(self, workload: str, handler: str) -> Spread:
        """What the handler takes more than the empty one, by the differences of each round."""
        pairs = zip(self.samples[workload, handler], self.samples[workload, EMPTY], strict=True)
        differences = [ours - floor for ours, floor in pairs]
        tenths = quantiles(differences, n=10, method="inclusive")
        return Spread(min(differences), tenths[0], tenths[4])

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
    def columns(self) -> list[str]:
        """Those of them that every handler was measured in."""
        return [name for name in self.workloads if not _BY_NAME[name].judged_only]

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
    made = dict.fromkeys((peer.name for peer in peers), 0)
    try:
        for workload in workloads:
            sampled = [peer for peer in peers if not workload.judged_only or peer.name in _JUDGED]
            for peer in sampled:
                matrix.samples[workload.name, peer.name] = []
                workload.sample(floor, peer.handlers)  # warm-up
            done = _sample(workload, floor, sampled, matrix, shuffle, seconds, rounds)
            for peer in sampled:
                made[peer.name] += (done + 1) * workload.calls
            progress(f"{workload.title}: {done} rounds")
    finally:
        floor.close()
    for peer in peers:
        if peer.counted is not None:
            counted = peer.counted()
            assert counted == made[peer.name], f"{peer.name}: {counted} of {made[peer.name]} calls"
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
