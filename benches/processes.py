"""What forked children and meters of one request cost."""

from __future__ import annotations

import os
import resource
import struct
import time

from benches.model import PROMPT, FakeChat
from benches.rows import Row
from langmeter import Meter, track

_TIME = struct.Struct("d")
_GIB = 1 << 30


def _child(meter: Meter | None) -> float:
    """Seconds from the call of fork to the first Python line of the child."""
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        took = time.monotonic() - began
        is_forgotten = meter is None or not meter.snapshot().models
        os.write(writer, _TIME.pack(took if is_forgotten else float("inf")))
        os._exit(0)
    os.waitpid(child, 0)
    (took,) = _TIME.unpack(os.read(reader, _TIME.size))
    os.close(reader)
    os.close(writer)
    return float(took)


def forked(series: int, rounds: int) -> list[Row]:
    """How long a child forgets what its parent counted: `series` models."""
    bare = min(_child(None) for _ in range(rounds))
    meter = Meter(max_series=2 * series)
    for place in range(series):
        name = f"model-{place}"
        chat = FakeChat(model=name, answered_by=name)
        chat.invoke(PROMPT, config={"callbacks": [meter]})
    took = min(_child(meter) for _ in range(rounds))
    assert len(meter.snapshot().models) == series
    return [
        Row(
            f"a forked child forgets {series:,} series",
            "under 5 ms",
            f"{(took - bare) * 1e3:.1f} ms beside a fork of {bare * 1e3:.1f}",
            took - bare < 5e-3,
        )
    ]


def tracked(requests: int) -> list[Row]:
    """`track()` in so many requests, one after another, under 4 GiB of address space."""
    chat = FakeChat()
    chat.invoke(PROMPT)
    resource.setrlimit(resource.RLIMIT_AS, (4 * _GIB, 4 * _GIB))
    took = 0.0
    for _ in range(requests):
        began = time.perf_counter()
        block = track()
        meter = block.__enter__()
        took += time.perf_counter() - began
        chat.invoke(PROMPT)
        began = time.perf_counter()
        block.__exit__(None, None, None)
        took += time.perf_counter() - began
        assert meter.snapshot().totals.calls == 1
        del meter, block
    each = took / requests
    return [
        Row(
            f"track() in {requests:,} requests under 4 GiB of address space",
            "at most 1 ms each",
            f"{each * 1e3:.2f} ms each, every call counted",
            each <= 1e-3,
        )
    ]
