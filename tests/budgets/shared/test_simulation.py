"""Shared budgets in a deterministic simulation: processes, kills, sleeps, clocks, a lost store."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from langmeter import _core
from langmeter.budgets.shared.account import Account, Holding, Reply, Request, Stale, renew
from langmeter.budgets.shared.lease import Lease, Terms
from langmeter.errors import StoreError
from tests.support.laws import examples

LLM = _core.KINDS.index("llm")
UNSET = "p", "m"
LIMIT, HOLD = 1000, 600.0
START = 1_700_000_000_000


class Memory:
    """A store in memory whose clock is moved by hand, and that can be lost in each direction."""

    def __init__(self) -> None:
        self.account = Account()
        self.now = START
        self.loses = ""
        #: What processes that slept past their lease may have beyond it.
        self.allowance = 0

    def renew(self, key: str, request: Request, timeout: float) -> Reply | Stale:
        """Do what a store does; may lose the request or the reply."""
        if self.loses == "request":
            raise StoreError("lost")
        own = self.account.holdings.get(request.holder)
        slice_, spent = (own.slice, own.spent) if own else (0, request.known)
        reply = renew(self.account, request, self.now)
        if isinstance(reply, Reply):
            self.allowance += max(0, request.spent - spent + request.reserved - slice_)
        if self.loses == "reply":
            raise StoreError("lost")
        return reply


class Process:
    """One process: a recorder with a clock of its own, and what it leases."""

    def __init__(self, store: Memory, per: str, skew: int, *, local: bool = False) -> None:
        self.clock = _core.ManualClock()
        self.recorder = _core.Recorder(max_series=8, max_runs=64, clock=self.clock)
        position = self.recorder.open_budget(1, 1, 0, True, [], 0)
        terms = Terms("b", 1, LIMIT, per, "UTC", (0.5, 1.0), True, local, HOLD)
        self.crossed: list[int] = []
        self.lease = Lease(store, terms, self.recorder, position, self.crossed.extend)
        self.lease._offset = START + skew - self.recorder.standing(position)[4] / 1e6
        self.running: dict[UUID, int] = {}

    def call(self, tokens: int) -> UUID | None:
        """Begin a call that reserves so many tokens; returns None where it is refused."""
        run = uuid4()
        demand = (1, tokens, 0, 1, None)
        refused = self.recorder.run_started(
            run, None, LLM, "m", *UNSET, demand, make_room=lambda _, n: self.lease.make_room(n)
        )
        if refused is not None:
            return None
        self.running[run] = tokens
        return run

    def end(self, run: UUID, used: int) -> None:
        """End a call that used so many tokens."""
        self.running.pop(run)
        usage: tuple[Any, ...] = (used, 0, used, *[0] * 16)
        self.recorder.run_ended(run, LLM, 0, *UNSET, usage, None)

    def in_use(self) -> int:
        """What it has spent and reserved since it began."""
        spent, reserved = self.recorder.standing(0)[:2]
        return spent + reserved


class Fleet(RuleBasedStateMachine):
    """Processes that share a budget by the minute; what they hold never passes its limit."""

    processes: Any = Bundle("processes")
    calls: Any = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.store = Memory()
        self.alive: list[Process] = []

    @rule(target=processes, skew=st.integers(-300_000, 300_000))
    def start(self, skew: int) -> Process:
        """A process starts; its clock is up to five minutes off."""
        process = Process(self.store, "minute", skew)
        self.alive.append(process)
        return process

    @rule(target=calls, process=processes, tokens=st.integers(1, 300))
    def call(self, process: Process, tokens: int) -> tuple[Process, UUID | None]:
        """A call begins, or is refused."""
        if process not in self.alive:
            return process, None
        return process, process.call(tokens)

    @rule(call=consumes(calls), share=st.floats(0, 1))
    def end(self, call: tuple[Process, UUID | None], share: float) -> None:
        """A call ends with at most what it reserved."""
        process, run = call
        if run is not None and process in self.alive:
            process.end(run, int(process.running[run] * share))

    @rule(process=processes)
    def tick(self, process: Process) -> None:
        """The periodic task of a process runs; one that sleeps has none."""
        if process in self.alive:
            process.lease.tick()

    @rule(process=consumes(processes))
    def kill(self, process: Process) -> None:
        """A process is gone without a word."""
        self.alive = [each for each in self.alive if each is not process]

    @rule(process=consumes(processes))
    def leave(self, process: Process) -> None:
        """A process ends."""
        if process in self.alive:
            if process.lease.leave():
                holding = self.store.account.holdings.get(process.lease._holder, Holding())
                assert holding.slice == holding.reserved
            self.alive.remove(process)

    @rule(seconds=st.sampled_from([0.2, 1, 10, 35, 700]))
    def wait(self, seconds: float) -> None:
        """Time passes for all, in processes that sleep too."""
        self.store.now += round(seconds * 1000)
        for process in self.alive:
            process.clock.advance(seconds)

    @rule(loses=st.sampled_from(["", "", "request", "reply"]))
    def lose(self, loses: str) -> None:
        """The store is lost, or back."""
        self.store.loses = loses

    @invariant()
    def sums_are_those_of_the_processes(self) -> None:
        """The sums in the account are those of its holdings."""
        account = self.store.account
        holdings: list[Holding] = list(account.holdings.values())
        assert account.leased == sum(each.slice for each in holdings)
        assert account.reserved == sum(each.reserved for each in holdings)

    @invariant()
    def nothing_is_leased_beyond_the_limit(self) -> None:
        """Spent and leased stay within the limit, but for what was reserved before a long sleep."""
        account = self.store.account
        if account.limit:
            assert account.spent + account.leased <= LIMIT + self.store.allowance

    @invariant()
    def no_process_holds_more_than_its_slice(self) -> None:
        """What a process uses beyond its last report is in its slice until its lease ends."""
        for process in self.alive:
            lease = process.lease
            holding = self.store.account.holdings.get(lease._holder)
            if holding is None or process.recorder.standing(0)[4] >= lease._until:
                continue
            assert process.in_use() - holding.spent <= max(holding.slice, holding.reserved)


Fleet.TestCase.settings = examples(
    60, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
TestFleet = Fleet.TestCase


def test_a_dead_process_gives_back_what_it_had_not_reserved() -> None:
    """Its free part returns with its lease, its reservations after `max_run_age`."""
    store = Memory()
    dead, other = Process(store, "total", 0), Process(store, "total", 0)
    run = dead.call(200)
    assert run is not None
    dead.end(run, 50)
    assert dead.call(300) is not None
    assert dead.lease.tick()
    assert other.call(700) is None
    for seconds, tokens in ((31, 650), (HOLD, 300)):
        store.now += round(seconds * 1000)
        other.clock.advance(seconds)
        assert other.call(tokens) is not None
    assert other.call(1) is None
    assert (store.account.spent, store.account.leased) == (50, 950)


def test_a_process_that_slept_renews_before_it_reserves() -> None:
    """What it had free has gone to another process meanwhile."""
    store = Memory()
    sleeper, other = Process(store, "total", 0), Process(store, "total", 0)
    assert sleeper.call(1) is not None
    store.now += 40_000
    for process in (sleeper, other):
        process.clock.advance(40)
    assert other.call(999) is not None
    assert sleeper.call(1) is None
    assert store.account.leased == LIMIT


@pytest.mark.parametrize("local", [False, True])
def test_without_a_store_what_is_leased_is_spent(local: bool) -> None:
    """Until the lease ends with "block", and after that too with "local"; no call goes beyond."""
    store = Memory()
    process = Process(store, "total", 0, local=local)
    assert process.call(10) is not None
    free = store.account.leased - 10
    store.loses = "request"
    process.clock.advance(2)
    assert process.call(free // 2) is not None
    process.clock.advance(40)
    assert (process.call(1) is not None) == local
    assert process.lease.failed
    process.clock.advance(1)
    assert process.call(free) is None
    store.loses = ""
    process.clock.advance(1)
    store.now += 44_000
    process.lease.tick()
    assert process.call(1) is not None
    assert not process.lease.failed


def test_a_threshold_is_told_once_by_who_crosses_it() -> None:
    """Of two processes one reports each fraction; a refusal crosses the last."""
    store = Memory()
    first, second = Process(store, "total", 0), Process(store, "total", 0)
    for process, tokens in ((first, 400), (second, 200), (first, 100)):
        run = process.call(tokens)
        assert run is not None
        process.end(run, tokens)
        process.lease.tick()
        process.clock.advance(1)
    assert (first.crossed, second.crossed) == ([], [0])
    assert second.call(301) is None
    assert first.call(900) is None
    assert (first.crossed, second.crossed) == ([], [0, 1])


def test_a_period_ends_by_the_clock_of_the_store() -> None:
    """A process whose clock is five minutes off begins the minute with the others."""
    store = Memory()
    process = Process(store, "minute", 300_000)
    run = process.call(LIMIT)
    assert run is not None
    process.end(run, LIMIT)
    process.lease.tick()
    assert process.call(1) is None
    rest = 60 - store.now / 1000 % 60
    store.now += round(rest * 1000)
    process.clock.advance(rest)
    assert process.call(LIMIT) is not None
    assert process.lease.status()[0] == 0


def test_a_child_holds_nothing_of_its_parent() -> None:
    """After a fork the slice is the parent's, and what it had spent is reported once."""
    store = Memory()
    parent = Process(store, "total", 0)
    run = parent.call(100)
    assert run is not None
    parent.end(run, 100)
    before = parent.lease._holder
    parent.lease.reset_after_fork()  # as in the child
    assert parent.lease._holder != before
    assert parent.call(50) is not None
    assert (store.account.spent, parent.lease.status()[:2]) == (0, (0, 50))
