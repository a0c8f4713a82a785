"""The health of one provider: a circuit, and how long to leave the provider alone.

One byte of state, a ring of counts of the last seconds, and two moments. The meter's own windows
are not enough here: its errors hold 429 and 400 too, which never open a circuit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from time import monotonic
from typing import Final
from weakref import WeakSet

from langmeter._base.check import real_number, whole_number
from langmeter._base.forks import at_fork
from langmeter.runnables.providers.failures import Kind

_SLOTS: Final = 12
#: The permit of a call that is not a probe; probes have greater ones.
_PERMIT: Final = 1


class State(IntEnum):
    """State of a circuit, one byte."""

    CLOSED = 0
    OPEN = 1
    #: The time of an open circuit is over: one call, the probe, decides.
    HALF_OPEN = 2
    #: The key was refused: the provider is not called again before `enable()`.
    DISABLED = 3


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """When a provider is not called, and for how long.

    Attributes:
        failures: failures in a row that open a circuit.
        share: share of failed calls in the window that opens it, above 0, up to 1.
        calls: least number of calls in the window for that.
        window: its length in seconds.
        open_seconds: how long a circuit stays open before a probe, and how long a probe has to
            end before another one is let through.
        throttle_seconds: pause after a 429 whose response has no `Retry-After`.
        quota_seconds: pause after an error that says that money or quota is used up.

    Raises:
        ConfigError: a value is out of range.
    """

    failures: int = 5
    share: float = 0.5
    calls: int = 10
    window: float = 60.0
    open_seconds: float = 30.0
    throttle_seconds: float = 5.0
    quota_seconds: float = 4 * 3600.0

    def __post_init__(self) -> None:
        whole_number("failures", self.failures, 1)
        whole_number("calls", self.calls, 1)
        real_number("share", self.share, 0.01, 1)
        for name in ("window", "open_seconds", "throttle_seconds", "quota_seconds"):
            real_number(name, getattr(self, name), 0.001, 604_800, unit="seconds")


_all: WeakSet[Circuit] = WeakSet()


def _after_fork() -> None:
    for circuit in list(_all):
        circuit._lock = threading.Lock()  # another thread may have held it


at_fork(after_in_child=_after_fork)


class Circuit:
    """The circuit of one provider. Safe in any thread.

    A call takes a permit by `admit()` and gives it back by `succeeded`, `failed` or `released`. Of
    a half-open circuit one call is admitted, the probe; calls that began before do not change it.
    """

    def __init__(
        self, options: HealthOptions | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._options = options or HealthOptions()
        self._clock = clock
        self._lock = threading.Lock()
        self._slot_seconds = self._options.window / _SLOTS
        self._state = State.CLOSED
        self._in_row = 0
        #: Until when the circuit is open, and until when a pause lasts that is not a failure.
        self._open_until = self._paused_until = -inf
        self._exhausted = False
        #: Whether the circuit is closed and was not paused: what nearly every call finds.
        self.is_ready = True
        #: When the running probe began, None without one; and its permit.
        self._probe: float | None = None
        self._number = _PERMIT
        #: Calls and failures of each slot of the window, and the number of the slot.
        self._ring = _empty_ring()
        _all.add(self)

    @property
    def state(self) -> State:
        """State now: an open circuit whose time is over is half-open."""
        state = self._state
        if state is State.OPEN and self._clock() >= self._open_until:
            return State.HALF_OPEN
        return state

    @property
    def reason(self) -> str:
        """Why no call is admitted now: open, throttled, exhausted, disabled or probing; else ""."""
        if self.is_ready:
            return ""
        with self._lock:
            return self._reason(self._clock())

    def _reason(self, now: float) -> str:
        if self._state is State.DISABLED:
            return "disabled"
        if now < self._paused_until:
            return "exhausted" if self._exhausted else "throttled"
        if self._state is State.CLOSED:
            self.is_ready = True  # the pause is over
            return ""
        if now < self._open_until:
            return "open"
        return "probing" if self._is_probing(now) else ""

    def _is_probing(self, now: float) -> bool:
        return self._probe is not None and now < self._probe + self._options.open_seconds

    @property
    def returns_in(self) -> float:
        """Seconds until a call may be admitted again: 0 if now, inf for a disabled provider."""
        with self._lock:
            now = self._clock()
            if self._state is State.DISABLED:
                return inf
            until = self._paused_until
            if self._state is State.OPEN:
                until = max(until, self._open_until)
                if self._is_probing(now) and self._probe is not None:
                    until = max(until, self._probe + self._options.open_seconds)
            return max(0.0, until - now)

    def admit(self) -> int:
        """Return a permit for a call that is made now, or 0; of a half-open circuit for the probe.

        The permit goes to `succeeded`, `failed` or `released` when the call has ended.
        """
        if self.is_ready:
            return _PERMIT
        with self._lock:
            now = self._clock()
            if self._reason(now):
                return 0
            if self._state is State.CLOSED:
                return _PERMIT
            self._probe, self._number = now, self._number + 1
            return self._number

    def succeeded(self, permit: int) -> None:
        """Count a call that was answered; the probe closes the circuit."""
        with self._lock:
            self._count(failed=False)
            self._in_row = 0
            if permit == _PERMIT:
                return
            if self._ends_probe(permit) and self._state is State.OPEN:
                self._state = State.CLOSED
                self.is_ready = self._clock() >= self._paused_until
                self._ring = _empty_ring()

    def failed(self, permit: int, kind: Kind, retry_after: float | None = None) -> None:
        """Count an error by what it means for the provider; a probe that fails opens it anew."""
        options = self._options
        with self._lock:
            now = self._clock()
            probe = self._ends_probe(permit)
            if kind is Kind.UNAUTHORIZED:
                self._state, self.is_ready = State.DISABLED, False
            elif kind is Kind.FAILED:
                self._count(failed=True)
                self._in_row += 1
                opens = probe if self._state is State.OPEN else self._is_failing()
                if opens and self._state is not State.DISABLED:
                    self._state, self.is_ready = State.OPEN, False
                    self._open_until = now + options.open_seconds
            elif kind in (Kind.THROTTLED, Kind.EXHAUSTED):
                exhausted = kind is Kind.EXHAUSTED
                pause = options.throttle_seconds if retry_after is None else retry_after
                if exhausted:
                    pause = max(options.quota_seconds, pause)
                if now + pause > self._paused_until:
                    self._paused_until, self._exhausted = now + pause, exhausted
                    self.is_ready = False

    def released(self, permit: int) -> None:
        """End a call that says nothing about the provider, as one that was cancelled."""
        if permit != _PERMIT:
            with self._lock:
                self._ends_probe(permit)

    def _ends_probe(self, permit: int) -> bool:
        if permit != self._number or self._probe is None:
            return False
        self._probe = None
        return True

    def enable(self) -> None:
        """Close the circuit and end every pause, as after a new key."""
        with self._lock:
            self._state, self._probe, self._in_row = State.CLOSED, None, 0
            self._open_until = self._paused_until = -inf
            self.is_ready = True
            self._ring = _empty_ring()

    @property
    def recent(self) -> tuple[int, int]:
        """Calls in the window that were answered or failed, and the failures among them."""
        with self._lock:
            return self._recent()

    def _recent(self) -> tuple[int, int]:
        oldest = int(self._clock() / self._slot_seconds) - _SLOTS
        calls = failures = 0
        for number, n, failed in self._ring:
            if number > oldest:
                calls += n
                failures += failed
        return calls, failures

    def _is_failing(self) -> bool:
        calls, failures = self._recent()
        options = self._options
        return self._in_row >= options.failures or (
            calls >= options.calls and failures >= options.share * calls
        )

    def _count(self, *, failed: bool) -> None:
        number = int(self._clock() / self._slot_seconds)
        slot = self._ring[number % _SLOTS]
        if slot[0] != number:
            slot[:] = number, 0, 0
        slot[1] += 1
        slot[2] += failed

    def __repr__(self) -> str:
        return f"<Circuit: {self.reason or self.state.name.lower().replace('_', '-')}>"


def _empty_ring() -> list[list[int]]:
    return [[-1, 0, 0] for _ in range(_SLOTS)]
