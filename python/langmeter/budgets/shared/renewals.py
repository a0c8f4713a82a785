"""The periodic task that renews every lease of this process, off the path of calls."""

from __future__ import annotations

import atexit
from typing import Final

from langmeter._base import periodic
from langmeter._base.forks import at_fork, at_worker_end
from langmeter.budgets.shared.lease import SECONDS, Lease


class Renewals:
    """The leases of this process, which it keeps until their owners have gone and they have left.

    Args:
        tasks: periodic tasks that it joins with the first lease.
    """

    def __init__(self, tasks: periodic.PeriodicTasks = periodic.shared) -> None:
        self._tasks = tasks
        self._task: periodic.Task | None = None
        self._leases: dict[int, Lease] = {}
        self._gone: list[int] = []
        self._held: list[Lease] = []

    def add(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self._leases[id(lease)] = lease
        if self._task is None:
            self._task = self._tasks.every(SECONDS, self.tick)

    def remove(self, lease: Lease) -> None:
        """Let a lease leave at the next tick; may be called by a finaliser."""
        self._gone.append(id(lease))

    def tick(self) -> None:
        """Renew what is due; a store that is lost is asked once."""
        lost: set[int] = set()
        while self._gone:
            lease = self._leases.pop(self._gone.pop(), None)
            if lease is not None:
                lease.leave()
        for lease in list(self._leases.values()):
            if lease.store not in lost and not lease.tick():
                lost.add(lease.store)
        if not self._leases and self._task is not None:
            self._task.cancel()
            self._task = None

    def leave(self) -> None:
        """Report what was spent and give back the rest: the process ends."""
        lost: set[int] = set()
        for lease in list(self._leases.values()):
            if lease.store not in lost and not lease.leave():
                lost.add(lease.store)

    def before_fork(self) -> None:
        """Keep a fork waiting while a renewal is under way: SQLite may hold locks of its own."""
        self._held = [lease for lease in list(self._leases.values()) if lease.hold()]

    def after_fork(self) -> None:
        """Let renewals go on in the parent."""
        while self._held:
            self._held.pop().release()

    def reset_after_fork(self) -> None:
        """Let every lease begin anew in a child."""
        self._held.clear()
        for lease in list(self._leases.values()):
            lease.reset_after_fork()


#: Those of this process.
shared: Final = Renewals()
atexit.register(shared.leave)
at_worker_end(shared.leave)
at_fork(
    before=shared.before_fork,
    after_in_parent=shared.after_fork,
    after_in_child=shared.reset_after_fork,
)
