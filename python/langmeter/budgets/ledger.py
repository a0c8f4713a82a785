"""All budgets of one meter: which of them a call belongs to, and what it asks of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from threading import Lock
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakMethod, finalize, ref

from langmeter import _core
from langmeter._base.delivery import Listener, notice_listener
from langmeter._base.options import held_to
from langmeter._base.text import short_name
from langmeter._base.warn import LimitedWarnings
from langmeter.budgets import abandoned
from langmeter.budgets.budget import Budget, Threshold, shown, unit_name
from langmeter.budgets.options import BUDGETS
from langmeter.budgets.shared import open_store, renewals
from langmeter.budgets.shared.stores import Store
from langmeter.budgets.worst_case import Plans
from langmeter.directory.options import PRIVATE, DirectoryOptions
from langmeter.errors import REASONS, BudgetExceeded, ConfigError
from langmeter.prices import PriceBook
from langmeter.snapshot import BudgetState

_MAX_BATCHES: Final = 64
#: File of shared budgets in the directory of a meter.
SHARED_FILE: Final = "budgets.db"


class Ledger:
    """The budgets of one meter.

    Raises:
        ConfigError: too many of them, one that belongs to another meter, or one in USD without
            prices.
    """

    def __init__(self, budgets: Iterable[Budget], prices: PriceBook | None) -> None:
        self.budgets = tuple(budgets)
        held_to(BUDGETS, "budgets", self.budgets)
        for budget in self.budgets:
            if budget.unit == "usd" and prices is None:
                raise ConfigError(
                    f"a budget in USD must have prices, got {budget!r} without; "
                    "pass it to Meter or CostTrackingCallback"
                )
            if budget._owner is not None:
                raise ConfigError(
                    f"a budget must belong to one meter, got {budget!r}, which already belongs to "
                    "a meter; meter both with the same one, or make a budget for each"
                )
            budget._owner = ref(self)
        #: Whether any of them may refuse a call.
        self.blocks = any(budget.action == "block" for budget in self.budgets)
        self._plans = Plans(self.budgets, prices)
        #: Which budgets a call belongs to and its worst case, told natively.
        self.demand = self._plans.demands()
        self._batches: dict[int, tuple[Any, list[Any]]] = {}
        #: Where the books are, once they are open.
        self.recorder: _core.Recorder | None = None
        #: Where calls that hold budgets began, by the run's key; filled natively.
        self.origins: dict[int, abandoned.Origin] = {}
        self._opening = Lock()
        self._listeners: list[Listener] = []
        self._directory: DirectoryOptions | None = None
        self._opened_by: Callable[[], Callable[[], object] | None] = lambda: None

    @classmethod
    def merged(cls, ledgers: Sequence[Ledger], prices: PriceBook | None) -> Ledger:
        """One ledger in the place of several."""
        budgets = [budget for ledger in ledgers for budget in ledger.budgets]
        for budget in budgets:
            budget._owner = None
        return cls(budgets, prices)

    def serve(self, directory: DirectoryOptions | None, opens: Callable[[], object]) -> None:
        """Name what opens the books, a bound method whose object is held weakly.

        Budgets that name no store are shared by a file in `directory`; without one they are this
        process's own. Raises ConfigError for two budgets that would be one in their store.
        """
        self._directory, self._opened_by = directory, WeakMethod(opens)
        keys: dict[tuple[str, str], Budget] = {}
        for budget in self.budgets:
            if (url := self._store_of(budget)) and (
                other := keys.setdefault((url, budget._key()), budget)
            ) is not budget:
                raise ConfigError(
                    f"budgets in one store must have different names, got {budget!r} and "
                    f"{other!r}; pass e.g. name={budget.per!r} to one of them"
                )

    def begin(self, budget: Budget) -> None:
        """Open the books for a shared budget that is read or changed before the first call."""
        opens = self._opened_by()
        if opens is not None and self.recorder is None and self._store_of(budget):
            opens()

    def _store_of(self, budget: Budget) -> str:
        """Return the address of a budget's store; empty without one."""
        if budget.store is None and self._directory is not None:
            path = os.path.join(os.path.abspath(self._directory.path), SHARED_FILE)
            return f"sqlite:///{quote(path)}"
        return budget.store or ""

    def open(self, recorder: _core.Recorder, max_run_age: float = 3600.0) -> None:
        """Open the books; once, before the first call.

        Reservations of dead processes return after `max_run_age` seconds.
        """
        with self._opening:
            if self.recorder is None:
                warn = _Warnings(recorder)
                mode = PRIVATE if self._directory is None else self._directory.mode
                stores: dict[str, Store] = {}
                for budget in self.budgets:
                    if url := self._store_of(budget):
                        own = PRIVATE if budget.store else mode
                        store = stores.setdefault(url, open_store(url, own))
                        lease = budget._share(recorder, store, max_run_age)
                        renewals.shared.add(lease)
                        finalize(self, renewals.shared.remove, lease).atexit = False
                    else:
                        budget._open(recorder)
                    callback = budget.on_threshold or warn
                    self._listeners.append(
                        notice_listener("on_threshold", callback, recorder.dropped)
                    )
                self._plans.count_in(recorder)
                self.recorder = recorder

    def state(self) -> list[BudgetState]:
        """Return where each budget stands."""
        return [
            BudgetState(
                short_name(each.name),
                each.unit,
                each.per,
                *each._figures(fresh=True),
                tuple(each.scope.items()),
            )
            for each in self.budgets
        ]

    def make_room(self, position: int, amount: int) -> bool:
        """Make room for a call that does not fit a budget, before it is refused.

        Releases what dead calls hold, then leases more of a shared budget. `amount`: what the call
        reserves, in the recorder's unit. Returns whether the call is to be judged again.
        """
        recorder, lease = self.recorder, self.budgets[position]._lease
        try:
            if recorder is not None and abandoned.release(recorder, self.origins):
                return True
            return lease is not None and lease.make_room(amount)
        except Exception as exc:
            self._plans.report(exc, "making room in a budget failed")
            return False

    def in_batch(self, run_id: Any, size: int, params: Any, refused: object) -> list[Any]:
        """Of the runs that one `generate` starts together: those to give up when one is refused.

        LangChain starts them one by one and ends none of them when a start raises.
        """
        batch = self._batches.get(id(params))
        if batch is None or batch[0] is not params:
            if len(self._batches) >= _MAX_BATCHES:
                self._batches.clear()
            batch = self._batches[id(params)] = (params, [])
        if not refused:
            batch[1].append(run_id)
        if refused or len(batch[1]) == size:
            self._batches.pop(id(params), None)
        return batch[1] if refused else []

    def exceeded(self, position: int, why: int = 0) -> BudgetExceeded:
        """The exception of a call that a budget refused."""
        budget = self.budgets[position]
        lease = budget._lease
        reason = "store" if why == 0 and lease is not None and lease.failed else REASONS[why]
        # As of the refusal: the call waits for the store no longer.
        spent, reserved, limit, resets_at = budget._figures()
        return BudgetExceeded(
            budget.name, dict(budget.scope), budget.unit, limit, spent, reserved, resets_at, reason
        )

    def crossed(self, crossed: Iterable[tuple[int, int]]) -> None:
        """Report crossed thresholds to their listeners, in a thread of its own."""
        for position, which in crossed:
            budget = self.budgets[position]
            self._listeners[position].notify(budget._threshold(budget.at[which]))


class _Warnings:
    """Log thresholds that were crossed: of all budgets of a meter the first ten of a day, in UTC.

    By the day, because one that is crossed every day is worth a line every day, and one of a budget
    by the minute is not worth 1,440.
    """

    def __init__(self, recorder: _core.Recorder) -> None:
        self._count = partial(recorder.dropped, "warnings")
        self._day: date | None = None

    def __call__(self, event: Threshold) -> None:
        today = datetime.now(UTC).date()
        if today != self._day:
            self._day = today
            self._warnings = LimitedWarnings("thresholds of budgets", self._count)
        self._warnings.warn(
            object(),  # each is told once a period
            "budget %s: %g %% of it crossed, %s spent and %s reserved of %s %s",
            event.budget.name,
            event.fraction * 100,
            *map(shown, (event.spent, event.reserved, event.limit)),
            unit_name(event.budget.unit),
        )
