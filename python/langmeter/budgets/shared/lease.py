"""Leases: a slice of a shared budget, which a process reserves and settles in by atomics.

The limit in the recorder is what the process may use since it began: what the store knows to be
spent, and the slice. It is raised after the store has given something, and lowered before anything
is given back, so that a reply which is lost leaves the process with less than the store thinks.
"""

from __future__ import annotations

import os
import secrets
from asyncio import _get_running_loop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from threading import Lock
from time import monotonic, time
from typing import Any, Final

from langmeter import _core
from langmeter._base.log import log
from langmeter.budgets.shared.account import DEADLINE, MOST, Reply, Request, Stale
from langmeter.budgets.shared.periods import period
from langmeter.budgets.shared.stores import Store
from langmeter.errors import StoreError

#: Seconds between two renewals in steady state, and the age of figures that are read.
SECONDS: Final = 1.0
#: Seconds after which a silent process counts as dead; its own lease ends a second before.
LEASE: Final = 30.0
#: Nanoseconds without an attempt after a failure.
_PAUSE: Final = 100_000_000
_FOREVER: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a shared budget.

    Attributes:
        key: its name in the store.
        scale: units of the recorder in one of the store.
        limit: as configured, in units of the store.
        per, zone: the period, and its time zone.
        at: fractions of the limit that are reported.
        blocking: whether it refuses calls.
        local: whether a lease may be spent after it has ended, while the store does not answer.
        hold: seconds that reservations of a dead process stay.
        seconds: length of the lease.
    """

    key: str
    scale: int
    limit: int
    per: str
    zone: str
    at: tuple[float, ...]
    blocking: bool
    local: bool
    hold: float
    seconds: float = LEASE


class Lease:
    """The slice of one budget that one process holds; every method may be called in any thread.

    Args:
        store: where the figures of all are.
        terms: of the budget.
        recorder: of the process; the budget is open there, without a period.
        position: of the budget in it.
        crossed: called with the positions of fractions that a renewal of this process crossed.

    Attributes:
        renewals_in_calls: how often a call had to wait for a renewal.
        failed: whether the store did not answer last time.
    """

    def __init__(
        self,
        store: Store,
        terms: Terms,
        recorder: _core.Recorder,
        position: int,
        crossed: Callable[[tuple[int, ...]], object],
    ) -> None:
        self._store, self._terms, self._crossed = store, terms, crossed
        self._recorder, self._position = recorder, position
        self._offset = time() * 1000 - recorder.standing(position)[4] / 1e6
        self.renewals_in_calls = 0
        self._begin(0)
        self._joins = True

    @property
    def store(self) -> int:
        """Identity of the store, which several leases may share."""
        return id(self._store)

    def _begin(self, spent: int) -> None:
        """Hold nothing, under a new name: at first, and in a forked child."""
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._holder = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._known = self._units(spent)
        self._reserved = self._slice = 0
        self._headroom = self._used = self._share = 0
        self._reply: Reply | None = None
        self._joins = self.failed = self._short = self._asked = False
        self._until = self._paused = self._renewed = 0
        self._said = False
        self._recorder.lease(self._position, self._known * self._terms.scale, 0, 0)

    def reset_after_fork(self) -> None:
        """Hold nothing: the slice, and what was not reported yet, are the parent's."""
        joins = self._joins
        self._begin(self._recorder.standing(self._position)[0])
        self._joins = joins

    def make_room(self, amount: int) -> bool:
        """Renew for a call that does not fit; returns whether it is to be judged again.

        Waits at most `DEADLINE` seconds, in an event loop too: there a thread does the work.
        """
        if _get_running_loop() is None:
            return self._room(amount)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, "langmeter:budget")
        try:
            renewal = self._threads.submit(self._room, amount)
        except RuntimeError:  # at the end of the interpreter no thread starts
            return self._room(amount)
        try:
            return renewal.result(DEADLINE)
        except Late:
            # One that waits for its turn is not made; one that runs counts its own failure.
            if renewal.cancel():
                self._recorder.dropped("store_unavailable")
            self.failed = True
            return False

    def _room(self, amount: int) -> bool:
        began = monotonic()
        if not self._lock.acquire(timeout=DEADLINE):
            self._recorder.dropped("store_unavailable")
            self.failed = True
            return False
        try:
            spent, reserved, _, _, now, limit = self._recorder.standing(self._position)
            if now < self._until and spent + reserved + max(amount, 1) <= limit:
                return True  # another call has leased it meanwhile
            self.renewals_in_calls += 1
            left = max(DEADLINE - (monotonic() - began), 0.001)
            reply = self._renew(max(amount, 1), timeout=left)
        except StoreError as error:
            return self._fail(error) and self._spends_on()
        finally:
            self._lock.release()
        self._report(reply)
        return reply.granted

    def tick(self) -> bool:
        """Renew ahead of need, unless there is nothing to say; False where the store is lost."""
        with self._lock:
            if not self._is_due():
                return True
            try:
                reply = self._renew()
            except StoreError as error:
                self._fail(error)
                return False
        self._report(reply)
        return True

    def refresh(self) -> None:
        """Renew where the figures of the others are older than `SECONDS`, if the store answers."""
        age = self._now() - self._renewed
        if self._reply is None or age >= SECONDS * 1e9:
            self._try()

    def leave(self) -> bool:
        """Report what was spent and give back what is not reserved; False without the store."""
        spent = self._recorder.standing(self._position)[0]
        if not self._asked and self._units(spent) == self._known:
            return True
        return self._try(leave=True)

    def hold(self) -> bool:
        """Keep others from renewing until `release`; False where one does for too long."""
        return self._lock.acquire(timeout=DEADLINE)

    def release(self) -> None:
        """Let others renew again."""
        self._lock.release()

    def change(self, *, limit: int = 0, reset: bool = False) -> None:
        """Set another limit for all, or begin the period anew; raises StoreError."""
        with self._lock:
            reply = self._renew(set_limit=limit, reset=reset, timeout=1.0)
        self._report(reply)

    def status(self) -> tuple[int, int, int, int | None, int, int]:
        """Return the figures of all processes as `Recorder.standing` returns those of one."""
        spent, reserved, _, _, now, _ = self._recorder.standing(self._position)
        reply, scale = self._reply, self._terms.scale
        moment = int((now / 1e6 + self._offset) * 1e6)
        if reply is None:
            return spent, reserved, 0, None, moment, self._terms.limit * scale
        others = max(0, reply.reserved - self._reserved) * scale
        return (
            max(0, reply.spent * scale + spent - self._known * scale),
            others + reserved,
            reply.begins * 1_000_000,
            None if reply.ends >= MOST else reply.ends * 1_000_000,
            moment,
            reply.limit * scale,
        )

    def _try(self, **how: Any) -> bool:
        if not self._lock.acquire(timeout=DEADLINE):
            return False
        try:
            reply = self._renew(**how)
        except StoreError as error:
            self._fail(error)
            return False
        finally:
            self._lock.release()
        self._report(reply)
        return True

    def _is_due(self) -> bool:
        spent, reserved, _, _, now, _ = self._recorder.standing(self._position)
        reply = self._reply
        if reply is None or self.failed or now / 1e6 + self._offset >= reply.ends:
            return True
        units, held = self._units(spent), self._units(spent + reserved) - self._units(spent)
        quiet = units == self._known and held == self._reserved and self._slice == held
        return not quiet or now - self._renewed >= self._terms.seconds / 3 * 1e9

    def _now(self) -> int:
        """Nanoseconds of the recorder's clock, which counts while the machine sleeps."""
        return self._recorder.standing(self._position)[4]

    def _renew(
        self,
        amount: int = 0,
        *,
        timeout: float = DEADLINE,
        leave: bool = False,
        **change: Any,
    ) -> Reply:
        """Renew once; the lock is held."""
        terms, scale = self._terms, self._terms.scale
        spent, reserved, _, _, now, limit = self._recorder.standing(self._position)
        if now < self._paused:
            raise StoreError("the store did not answer a moment ago")
        in_use = spent + reserved
        if leave:
            limit = min(limit, in_use)
        elif not amount and not self.failed:
            self._estimate(spent)
            limit = min(limit, in_use + self._target() * scale)
        began = 0 if self._reply is None else self._reply.begins * 1_000_000
        spent, in_use = self._recorder.lease(
            self._position, limit, self._until, self._local_time(began)
        )
        used = self._units(spent)
        held = self._units(in_use) - used if terms.blocking else 0
        keep = max(self._units(limit) - used, held) if terms.blocking else 0
        need = max(self._units(in_use + amount) - used - keep, 1) if amount else 0
        want = MOST if amount else 0 if leave else self._target()
        for _ in range(3):
            shows = round(now / 1e6 + self._offset)
            begins, ends = period(terms.per, terms.zone, shows)
            request = Request(
                self._holder,
                used,
                self._known,
                held,
                keep,
                need,
                want if terms.blocking else 0,
                begins,
                ends,
                terms.at,
                terms.limit,
                joins=self._joins,
                leave=leave,
                lease=round(terms.seconds * 1000),
                hold=round(terms.hold * 1000),
                **change,
            )
            self._asked = True  # a reply that is lost may have given something
            reply = self._store.renew(terms.key, request, timeout)
            self._offset = reply.now - now / 1e6
            if isinstance(reply, Reply):
                break
        else:
            raise StoreError(f"its clock is not steady: {reply.now}")
        self._settle(reply, used, held, now, given=self._joins or bool(amount))
        return reply

    def _settle(self, reply: Reply, used: int, held: int, now: int, *, given: bool) -> None:
        """Take what a reply gives; `now` was read before the request, so the lease ends first."""
        self._known, self._reserved, self._slice = used, held, reply.slice
        self._joins = self.failed = self._said = False
        self._share, self._short, self._reply = reply.share, reply.short, reply
        self._renewed, self._paused = now, 0
        margin = min(1.0, self._terms.seconds / 4)
        self._until = now + round((self._terms.seconds - margin) * 1e9)
        if given:
            self._headroom = max(self._headroom, reply.slice - held)
        began = self._local_time(reply.begins * 1_000_000)
        limit = (used + reply.slice) * self._terms.scale
        self._recorder.lease(self._position, limit, self._until, began)

    def _local_time(self, moment: int) -> int:
        """Return when the recorder's clock showed a time of the store, in nanoseconds."""
        return max(0, moment - round(self._offset * 1e6))

    def _estimate(self, spent: int) -> None:
        """Follow demand: twice what was used since the last look, and slowly less."""
        used = self._units(spent)
        recent, self._used = max(0, used - self._used), used
        self._headroom = max(2 * recent, self._headroom - self._headroom // 8 - 1, 0)

    def _target(self) -> int:
        """Return what is to be free in the slice after a renewal off the path of a call."""
        return 0 if self._short else min(self._headroom, self._share)

    def _units(self, amount: int) -> int:
        return -(-amount // self._terms.scale)

    def _fail(self, error: StoreError) -> bool:
        """Count a failure; the first of a row is logged."""
        self.failed = True
        if (now := self._now()) >= self._paused:
            self._paused = now + _PAUSE
            self._recorder.dropped("store_unavailable")
            if not self._said:
                self._said = True
                log.warning("the budget %r has lost its store: %s", self._terms.key, error)
        return True

    def _spends_on(self) -> bool:
        """Whether what is leased may be spent after the lease has ended."""
        now, limit = self._recorder.standing(self._position)[4:]
        if not self._terms.local or now < self._until:
            return False
        self._until = _FOREVER
        self._recorder.lease(self._position, limit, _FOREVER, 0)
        return True

    def _report(self, reply: Reply | Stale) -> None:
        if isinstance(reply, Reply) and reply.crossed:
            self._crossed(reply.crossed)
