"""The circuit of a provider, against a model that recomputes its state from the whole history."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from langmeter import ConfigError
from langmeter.runnables.providers.circuit import Circuit, HealthOptions, State
from langmeter.runnables.providers.failures import Kind

OPTIONS = HealthOptions(
    failures=3, share=0.5, calls=6, window=60.0, open_seconds=10.0, throttle_seconds=5.0
)


class Clock:
    """Seconds that a test advances."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CircuitMachine(RuleBasedStateMachine):
    """Calls that begin, end and overlap in any order, at any time."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.circuit = Circuit(OPTIONS, self.clock)
        #: When and how each call ended since the circuit was closed last.
        self.ends: list[tuple[float, bool]] = []
        self.in_row = 0
        self.disabled = False
        self.open_until: float | None = None  # None while closed
        self.paused_until = 0.0
        self.probe: tuple[int, float] | None = None  # permit, when it began

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 9.5, 10.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(target=permits)
    def begin(self) -> Any:
        now = self.clock.now
        live = self.probe is not None and now < self.probe[1] + OPTIONS.open_seconds
        allowed = not self.disabled and now >= self.paused_until
        if self.open_until is not None:
            allowed = allowed and now >= self.open_until and not live
        permit = self.circuit.admit()
        assert bool(permit) == allowed
        if permit and self.open_until is not None:
            assert permit > 1
            assert self.probe is None or permit != self.probe[0]
            self.probe = permit, now
        return permit

    @rule(permit=consumes(permits), kind=st.sampled_from([None, *Kind]))
    def end(self, permit: int, kind: Kind | None) -> None:
        if not permit:
            return
        now = self.clock.now
        probe = self.probe is not None and self.probe[0] == permit
        if probe:
            self.probe = None
        if kind is None:
            self.circuit.succeeded(permit)
            self.ends.append((now, False))
            self.in_row = 0
            if probe and self.open_until is not None and not self.disabled:
                self.open_until, self.ends = None, []
            return
        self.circuit.failed(permit, kind)
        if kind is Kind.UNAUTHORIZED:
            self.disabled = True
        elif kind is Kind.THROTTLED:
            self.paused_until = max(self.paused_until, now + OPTIONS.throttle_seconds)
        elif kind is Kind.EXHAUSTED:
            self.paused_until = max(self.paused_until, now + OPTIONS.quota_seconds)
        elif kind is Kind.FAILED:
            self.ends.append((now, True))
            self.in_row += 1
            slot = OPTIONS.window / 12
            oldest = int(now / slot) - 12
            recent = [failed for at, failed in self.ends if int(at / slot) > oldest]
            failing = self.in_row >= OPTIONS.failures or (
                len(recent) >= OPTIONS.calls and sum(recent) * 2 >= len(recent)
            )
            if probe if self.open_until is not None else failing:
                self.open_until = now + OPTIONS.open_seconds

    @rule(permit=consumes(permits))
    def cancel(self, permit: int) -> None:
        if permit:
            self.circuit.released(permit)
            if self.probe is not None and self.probe[0] == permit:
                self.probe = None

    @rule()
    def new_key(self) -> None:
        self.circuit.enable()
        self.ends, self.in_row, self.disabled = [], 0, False
        self.open_until, self.paused_until, self.probe = None, 0.0, None

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        now = self.clock.now
        if self.disabled:
            assert self.circuit.state is State.DISABLED
            assert self.circuit.reason == "disabled"
        elif self.open_until is None:
            assert self.circuit.state is State.CLOSED
        else:
            half = now >= self.open_until
            assert self.circuit.state is (State.HALF_OPEN if half else State.OPEN)
        assert (self.circuit.reason == "") == (self.circuit.returns_in == 0.0)


TestCircuit = CircuitMachine.TestCase


def _failed(circuit: Circuit, kind: Kind = Kind.FAILED, times: int = 1) -> None:
    for _ in range(times):
        circuit.failed(circuit.admit(), kind)


def test_a_circuit_opens_after_five_failures_in_a_row() -> None:
    """An answer in between begins the row anew."""
    circuit = Circuit(clock=Clock())
    _failed(circuit, times=4)
    circuit.succeeded(circuit.admit())
    _failed(circuit, times=4)
    assert circuit.admit()
    _failed(circuit)
    assert (circuit.admit(), circuit.reason) == (0, "open")


def test_a_circuit_opens_when_half_of_ten_calls_in_a_minute_failed() -> None:
    """Nine calls are too few, and calls older than the window do not count."""
    clock = Clock()
    circuit = Circuit(clock=clock)
    for _ in range(4):
        circuit.succeeded(circuit.admit())
        _failed(circuit)
    circuit.succeeded(circuit.admit())
    assert circuit.recent == (9, 4)
    _failed(circuit)
    assert circuit.reason == "open"
    circuit.enable()
    for _ in range(5):
        circuit.succeeded(circuit.admit())
    clock.now += 70.0
    _failed(circuit, times=4)
    assert (circuit.recent, circuit.reason) == ((4, 4), "")


def test_what_says_nothing_about_the_provider_never_opens_a_circuit() -> None:
    """Bad requests, prompts that are too long, refused budgets and 429 count no failure."""
    circuit = Circuit(HealthOptions(throttle_seconds=0.001), Clock())
    for kind in (Kind.REQUEST, Kind.CONTEXT, Kind.BUDGET, Kind.CANCELLED):
        _failed(circuit, kind, times=100)
    assert (circuit.is_ready, circuit.recent) == (True, (0, 0))
    circuit.failed(1, Kind.THROTTLED, 7.0)
    assert (circuit.reason, circuit.returns_in, circuit.recent) == ("throttled", 7.0, (0, 0))


def test_a_half_open_circuit_lets_one_of_many_threads_through() -> None:
    """However many ask at once, one permit is a probe; the others get none."""
    clock = Clock()
    circuit = Circuit(clock=clock)
    _failed(circuit, times=5)
    clock.now += 30.0
    permits: list[int] = []
    begin = threading.Barrier(16)

    def ask() -> None:
        begin.wait()
        permits.append(circuit.admit())

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, permits)) == [False] * 15 + [True]
    assert circuit.reason == "probing"


def test_a_used_up_quota_waits_for_hours() -> None:
    """Also where the response gives a shorter time; a shorter pause does not end a longer one."""
    circuit = Circuit(clock=Clock())
    circuit.failed(1, Kind.EXHAUSTED, 20.0)
    circuit.failed(1, Kind.THROTTLED, 1.0)
    assert (circuit.reason, circuit.returns_in) == ("exhausted", 4 * 3600.0)


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"share": 0}, {"window": -1}, {"open_seconds": "x"}]
)
def test_options_out_of_range_are_refused(wrong: Any) -> None:
    """The message names the option."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HealthOptions(**wrong)
