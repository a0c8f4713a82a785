"""What handlers share: one object, freed by reference count, with few doors to Python."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from langmeter import (
    Budget,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    PerformanceCallback,
    StreamingCallback,
    TokenCountingCallback,
    track,
)
from langmeter.streaming import Queued
from tests.support.models import chat_model

ROOT = Path(__file__).resolve().parents[2]

HANDLERS: dict[str, Callable[[], Any]] = {
    "meter": Meter,
    "tokens": TokenCountingCallback,
    "cost": CostTrackingCallback,
    "performance": PerformanceCallback,
    "streaming": StreamingCallback,
    "limit": lambda: TokenCountingCallback(limit=10**9),
    "budgets": lambda: Meter(budgets=[Budget(tokens=10**9, action="block")]),
    "listeners": lambda: Meter(on_event=print, on_complete=bool, on_error=bool, collect=True),
    "queued": lambda: Meter(on_event=bool, delivery=Queued(queue_size=8)),
    "stalls": lambda: Meter(on_stall=bool),
    "labels": lambda: Meter(labels=("team",), token_counters={"fake": len}),
    "composite": lambda: CompositeCallback([TokenCountingCallback(), PerformanceCallback()]),
    "foreign": lambda: CompositeCallback([TokenCountingCallback(), BaseCallbackHandler()]),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The cyclic collector is off, as in a program that freezes it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_a_handler_is_freed_by_reference_count(name: str, used: bool) -> None:
    """The last reference to a handler frees it, its services and its recorder."""
    handler = HANDLERS[name]()
    if used:
        chat_model().invoke("hi", config={"callbacks": [handler]})
        list(chat_model().stream("hi", config={"callbacks": [handler]}))
        handler.snapshot()
        if isinstance(handler, StreamingCallback | Meter):
            getattr(handler, "streaming", handler).flush()
    services = handler._services
    gone = [weakref.ref(it) for it in (handler, services, services.recorder)]
    del handler, services
    assert [there() for there in gone] == [None] * 3


def test_joined_handlers_share_one_object() -> None:
    """Joining handlers hands each of them the same services."""
    meter = Meter()
    views = (meter.tokens, meter.cost, meter.performance, meter.streaming, meter.defects)
    assert {id(view._services) for view in views} == {id(meter._services)}


def test_the_rust_sources_call_what_two_protocols_declare_and_nothing_else() -> None:
    """`Services` and `StreamSink` have ten methods at most, which are the names Rust calls."""
    stub = (ROOT / "python/langmeter/_core.pyi").read_text()
    declared: set[str] = set()
    for protocol in ("Services", "StreamSink"):
        body = re.search(rf"class {protocol}\(Protocol\):\n(.*?)\n@", stub, re.DOTALL)
        assert body is not None
        declared |= set(re.findall(r"    def (\w+)\(", body.group(1)))
    called: set[str] = set()
    for path in (ROOT / "rust/python/src").rglob("*.rs"):
        calls = r'call_method[01]?\(\s*(?:intern!\(\w+(?:\.py\(\))?, )?"(\w+)"'
        called |= set(re.findall(calls, path.read_text()))
    builtin = {"collect", "encode", "isascii", "pop"}  # of `gc`, `str` and `dict`
    assert called - builtin == declared
    assert len(declared) <= 10


def test_two_first_calls_at_once_make_one_set_of_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observers made by the slower of two first calls are not started."""
    made: list[Any] = []
    barrier = threading.Barrier(2)

    class Observer:
        changes = ()
        started = 0

        def __init__(self, services: Any) -> None:
            made.append(self)
            barrier.wait()

        def start(self) -> None:
            self.started += 1

    handler = TokenCountingCallback()
    services = type(handler._services)(handler.config, observers=[Observer])  # type: ignore[list-item]
    handler._share(services)

    def begin() -> None:
        handler.on_chat_model_start({}, [[]], run_id=uuid.uuid4())

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [observer.started for observer in made].count(1) == 1
    assert sum(observer.started for observer in made) == 1
    assert handler.snapshot().totals.calls == 0
    assert handler.snapshot().in_flight == 2


LIMITED = """
import logging, resource, sys
from langchain_core.language_models import FakeListChatModel
from langmeter import Meter, track
logging.disable(logging.CRITICAL)
model = FakeListChatModel(responses=["x"])
model.invoke("warm")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for request in range({requests}):
    with track() as meter:
        model.invoke("hi")
        {extra}
    assert meter.snapshot().totals.calls == 1
print("done")
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="no limit of address space here")
@pytest.mark.parametrize(
    ("requests", "extra"),
    [(1000, "pass"), (20, "meter.itself = meter")],
    ids=["freed by count", "kept by a cycle of the user's"],
)
def test_a_meter_a_request_fits_four_gigabytes_of_address_space(requests: int, extra: str) -> None:
    """Meters are freed as they go; those in a cycle by the collection after a failed mapping."""
    program = LIMITED.format(requests=requests, extra=extra)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_a_scope_is_freed_at_its_end() -> None:
    """`track()` leaves nothing behind that holds its meter."""
    gc.collect()
    gc.disable()
    try:
        with track() as meter:
            chat_model().invoke("hi")
        gone = weakref.ref(meter._services.recorder)
        del meter
        assert gone() is None
    finally:
        gc.enable()
