"""Circuits of a manager: providers that fail are left out, and tried again."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest

from langmeter import HealthOptions, Meter, NoProviderError, ProviderManager
from tests.support.chats import ScriptedChat, refusal
from tests.support.routed import BROKEN, pair


def test_a_provider_without_a_valid_key_is_not_called_again() -> None:
    """Until it is enabled."""
    manager, first, _ = pair(refusal(401))
    assert [manager.invoke("hello").content for _ in range(3)] == ["second"] * 3
    assert len(first.calls) == 1
    assert manager.explain().states == {"nim": "disabled", "openai": "ready"}
    manager.enable("nim")
    assert manager.invoke("hello").content == "first"


def test_a_circuit_opens_and_one_probe_closes_it() -> None:
    """Five failures in a row open it; while it is open its provider costs no time."""
    options = HealthOptions(open_seconds=0.05)
    manager, first, _ = pair(*[BROKEN] * 5, health=options)
    for _ in range(7):
        assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 5
    assert manager.explain().states["nim"] == "open"
    assert manager.explain().last[-1].obstacles == {"nim": "open"}
    time.sleep(0.06)
    assert manager.explain().states["nim"] == "half-open"
    assert manager.invoke("hello").content == "first"
    assert manager.decisions["nim", "probe"] == 1
    assert manager.explain().states["nim"] == "ready"


def test_too_many_requests_are_honoured_at_once() -> None:
    """The time comes from the response; the meter has an error, the circuit no failure."""
    manager, first, _ = pair(refusal(429, retry_after="3600"))
    assert manager.invoke("hello").content == "second"
    assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 1
    assert manager.explain().states["nim"] == "throttled"
    assert manager._router.providers["nim"].circuit.recent == (0, 0)


def test_bad_requests_open_no_circuit() -> None:
    """However often they come."""
    manager, first, _ = pair(*[refusal(400)] * 30)
    for _ in range(30):
        assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 30
    assert manager.explain().states["nim"] == "ready"


async def test_when_all_are_away_a_call_waits_for_the_first_to_return() -> None:
    """Sync and async; also where the response said how long."""
    for use_async in (False, True):
        # A busy machine may be at the second provider for longer than the first one is away.
        for milliseconds in (60, 1_000, 20_000):
            manager, first, second = pair(refusal(429, retry_after_ms=f"{milliseconds}"), wait=60.0)
            second.script.append(refusal(429, retry_after_ms="50000"))
            began = time.monotonic()
            answer = await manager.ainvoke("hello") if use_async else manager.invoke("hello")
            assert answer.content == "first"
            assert time.monotonic() - began >= milliseconds / 1000
            assert len(first.calls) == 2
            if ("", "wait") in manager.decisions:
                break
        assert manager.decisions["", "wait"] == 1


def test_a_call_does_not_wait_beyond_its_deadline() -> None:
    """It fails at once, with the obstacles and the time."""
    manager, _, second = pair(refusal(429, retry_after="100"), wait=50.0)
    second.script.append(refusal(401))
    with pytest.raises(type(refusal(401))):
        manager.invoke("hello")
    began = time.monotonic()
    with pytest.raises(NoProviderError, match=r"nim: throttled, openai: disabled.*wait=") as caught:
        manager.invoke("hello")
    assert time.monotonic() - began < 5
    assert caught.value.obstacles == {"nim": "throttled", "openai": "disabled"}
    assert caught.value.returns_in == pytest.approx(100, abs=5)
    assert manager.decisions["", "none"] == 2


def test_a_bad_request_does_not_wait_for_a_provider_that_is_away() -> None:
    """It fails at once, with the error of the provider that read it."""
    manager, first, second = pair(refusal(429, retry_after="5"), wait=10.0)
    manager.invoke("hello")
    second.script.append(refusal(400))
    began = time.monotonic()
    with pytest.raises(type(refusal(400))):
        manager.invoke("hello")
    assert time.monotonic() - began < 4
    assert len(first.calls) == 1


@pytest.mark.parametrize("policy", ["priority", "healthiest", "fastest"])
def test_threads_on_flapping_providers_are_counted_exactly(policy: str) -> None:
    """What models were called, what the meter counted and what was decided are the same."""
    rng = random.Random(7)
    faults = [BROKEN, refusal(429, retry_after_ms="5"), refusal(400), refusal(500)]
    models: dict[str, Any] = {name: ScriptedChat(model=name) for name in ("p1", "p2", "p3")}
    for model in models.values():
        model.script[:] = [rng.choice(faults) if rng.random() < 0.4 else "x" for _ in range(300)]
    meter = Meter()
    health = HealthOptions(open_seconds=0.02)
    manager = ProviderManager(models, meter=meter, policy=policy, health=health, refresh=0.02)
    ends: list[str] = []

    def work() -> None:
        for _ in range(50):
            try:
                ends.append(manager.invoke("hello").content)
            except Exception as error:
                ends.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 400
    calls = {name: len(model.calls) for name, model in models.items()}
    rows = meter.snapshot().models.items()
    assert {model: stats.calls for (_, model), stats in rows} == {
        k: n for k, n in calls.items() if n
    }
    decided = dict.fromkeys(models, 0)
    for (name, _), count in manager.decisions.items():
        if name:
            decided[name] += count
    assert decided == calls
