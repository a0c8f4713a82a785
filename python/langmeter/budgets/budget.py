"""Budgets: limits of US dollars, tokens or calls, by period and scope."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import sha256
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import ref

from langmeter import _core
from langmeter._base import scope as scopes
from langmeter._base.check import refusal
from langmeter._base.money import PICO, plain, usd
from langmeter.budgets.checks import (
    PERIODS,
    UNITS,
    charge,
    checked_action,
    checked_fractions,
    checked_limit,
    checked_loss,
    checked_name,
    checked_period,
)
from langmeter.budgets.shared import Lease, Terms, checked_store
from langmeter.budgets.shared.periods import checked_zone
from langmeter.errors import ConfigError

if TYPE_CHECKING:
    from langmeter.budgets.ledger import Ledger
    from langmeter.budgets.shared.stores import Store

#: US dollars, or a count of tokens or calls.
Amount: TypeAlias = Decimal | int

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold of a budget was crossed; what `on_threshold` gets.

    Attributes:
        budget: whose.
        fraction: of the limit, as in `Budget(at=…)`. 1.0 is also crossed by the first refusal.
        spent, reserved, limit: where the budget stood then, US dollars (Decimal), tokens or calls.
        resets_at: when the next period begins; None for `per="total"`.
    """

    budget: Budget
    fraction: float
    spent: Amount
    reserved: Amount
    limit: Amount
    resets_at: datetime | None


class Budget:
    """A limit on what calls may cost.

    Give exactly one of `usd`, `tokens` and `calls`. Periods are those of the calendar in UTC; a
    call counts in the one it ends in. A budget belongs to the meter it is handed to.

    With a `store` the limit is one for all processes with a budget of the same name, or without
    names of the same unit, period and scope; figures are then those of all, at most a second old.

    `action="block"` raises `BudgetExceeded` when the worst case of a call does not fit what is
    left, before the call is made. The worst case is the input, tools and schemas included, at one
    token a byte (which no byte-level vocabulary exceeds; 2,048 for an image, a sound or a file) and
    for each answer asked for (`n` and its like) the output limit of the call (`max_tokens` and its
    like) or, without one, the most the model gave so far, at least 2,048; at the model's list
    price. What a call turns out to have used replaces the worst case when it ends; calls that fail
    cost what they are known to have used, cached responses nothing, abandoned calls their input, as
    estimated, and no call. A call that costs nothing is never refused by a budget in USD.

    Args:
        usd: US dollars, exact as `Decimal`, `str` or `int`; a float counts as what it prints as.
        tokens: input and output tokens together.
        calls: calls that did not fail.
        per: "total", "minute", "hour", "day" or "month".
        scope: what it covers, everything by default. Keys: "provider" (by any of its names),
            "model" (as requested; `gpt-4o*` matches the rest), "tag" for a tag of the run, any
            other for an entry of its metadata. Values: a text, or several of which one must match.
        unpriced: what a budget in USD does about calls of a model that neither the loaded catalogue
            nor your own prices know. "allow": they hold and spend nothing, and only an exhausted
            budget refuses them; "block": it refuses them; a Decimal: each that did not fail spends
            so many USD, and holds them before.
        at: fractions of the limit, up to 8, whose crossing is told once a period.
        action: "warn" or "block".
        on_threshold: called with a `Threshold` in a thread of its own; logs a warning by default.
        name: for messages; made from limit and scope by default. Also the key in the store.
        store: where processes share the budget: "sqlite:///budgets.db" (a path),
            "redis://HOST:PORT" or "valkey://HOST:PORT". None: `budgets.db` in the directory of the
            meter if it has one, else this process alone; False: this process alone.
        on_store_loss: "block" refuses calls when the lease of this process has ended and the store
            does not answer; "local" first spends what is leased, then refuses.
        time_zone: of the periods of a budget with a store: "Europe/Berlin".

    Raises:
        ConfigError: a value is out of range; the message names it, and what to pass.
    """

    def __init__(
        self,
        *,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        per: Literal["total", "minute", "hour", "day", "month"] = "total",
        scope: Mapping[str, str | Collection[str]] | None = None,
        unpriced: Literal["allow", "block"] | Decimal = "allow",
        at: Iterable[float] = (0.5, 0.8, 1.0),
        action: Literal["warn", "block"] = "warn",
        on_threshold: Callable[[Threshold], Any] | None = None,
        name: str | None = None,
        store: str | Literal[False] | None = None,
        on_store_loss: Literal["block", "local"] = "block",
        time_zone: str = "UTC",
    ) -> None:
        given = [(unit, limit) for unit, limit in zip(UNITS, (usd, tokens, calls), strict=True)]
        given = [(unit, limit) for unit, limit in given if limit is not None]
        if len(given) != 1:
            got = " and ".join(unit for unit, _ in given) or "none of them"
            raise ConfigError(
                f"a budget must have exactly one of usd, tokens and calls, got {got}; "
                "pass e.g. Budget(usd=5)"
            )
        self.unit, limit = given[0]
        self._limit = self._made_with = checked_limit(self.unit, limit)
        self.per = checked_period("per", per)
        self.scope: Mapping[str, tuple[str, ...]] = MappingProxyType(scopes.checked(scope or {}))
        self.at = checked_fractions("at", at)
        self.action = checked_action("action", action)
        self.on_threshold = on_threshold
        self.unpriced = unpriced
        self._unpriced = charge(unpriced, self.unit)
        self._name = None if name is None else checked_name("name", name)
        self.store = checked_store("store", store)
        self.on_store_loss = checked_loss("on_store_loss", on_store_loss)
        self.time_zone = checked_zone("time_zone", time_zone)
        if self.time_zone != "UTC" and not self.store:
            remedy = "name a store, or leave it out"
            raise refusal("time_zone", "'UTC' for a budget without a store", time_zone, remedy)
        #: What this process leases of it, once it is open and shared.
        self._lease: Lease | None = None
        #: Weak, as the ledger holds the budget.
        self._owner: ref[Ledger] | None = None
        self._account: tuple[_core.Recorder, int, int] | None = None

    @property
    def name(self) -> str:
        """Its name in messages; made from limit and scope where none was given."""
        return self._name or self._describe()

    @property
    def limit(self) -> Amount:
        """The most of a period: US dollars, tokens or calls."""
        return self._shown(self._status()[5])

    def set_limit(self, limit: Decimal | float | str) -> None:
        """Set another limit, from the next call on; calls in flight go on.

        The fractions of `at` are then those of the new limit: one that is no longer reached is told
        again when it is, one that is reached by the change is told now. Safe in any thread.

        Args:
            limit: US dollars, tokens or calls, as the budget was made with.

        Raises:
            ConfigError: the limit is not a positive amount of the budget's unit.
            StoreError: the store of a shared budget does not answer.
        """
        units = checked_limit(self.unit, limit)
        self._begin()
        if self._lease is not None:
            self._lease.change(limit=max(1, units // self._scale))
        self._limit = units
        account = self._account
        if self._lease is None and account is not None:
            recorder, position, _ = account
            crossed = recorder.set_limit(position, units, self._thresholds(units))
            owner = None if self._owner is None else self._owner()
            if crossed and owner is not None:
                owner.crossed(crossed)

    def reset(self) -> None:
        """Begin the period anew: nothing spent, and every threshold is told again.

        Calls in flight hold what they held and count when they end. The period ends when it would
        have ended. Safe in any thread. Raises StoreError if the store of a shared budget does not
        answer.
        """
        self._begin()
        account = self._account
        if self._lease is not None:
            self._lease.change(reset=True)
        elif account is not None:
            recorder, position, _ = account
            recorder.reset_budget(position)
            self._account = (recorder, position, recorder.standing(position)[4])

    @property
    def spent(self) -> Amount:
        """Spent in this period by the calls that have ended."""
        return self._shown(self._status()[0])

    @property
    def reserved(self) -> Amount:
        """Held for calls in flight, at their worst; a budget that only warns holds nothing."""
        return self._shown(self._status()[1])

    @property
    def remaining(self) -> Amount:
        """Part of the limit that is neither spent nor reserved, at least 0."""
        spent, reserved, _, _, _, limit = self._status()
        return self._shown(max(0, limit - spent - reserved))

    @property
    def resets_at(self) -> datetime | None:
        """When the next period begins; None for `per="total"` and before the first call."""
        return _moment(self._status()[3])

    @property
    def renewals_in_calls(self) -> int:
        """Number of calls of this process that waited for the store of a shared budget."""
        return 0 if self._lease is None else self._lease.renewals_in_calls

    def projected(self) -> Amount | None:
        """The amount spent at the end of this period if it goes on as since it began.

        Since the first call, in the period in which that came. None for `per="total"`.
        """
        if self.per == "total":
            return None
        spent, _, begins, ends, now, _ = self._status()
        if not spent or ends is None:
            return self._shown(0)
        elapsed = max(now - max(begins, self._opened()), 1)
        return self._shown(spent + spent * (ends - now) // elapsed)

    def _setting(self) -> object:
        """Return what it was made of, as `install()` compares it."""
        made = (self.unit, self._made_with, self.per, self.scope, self.at, self.action)
        shared = (self.store, self.on_store_loss, self.time_zone)
        return (*made, self.on_threshold, self.unpriced, self._name, *shared)

    def __reduce__(self) -> tuple[Callable[[], Budget], tuple[()]]:
        """Copy and pickle the terms: the copy is of no meter yet, and has spent nothing itself."""
        limit = self._limit if self._lease is None else self._made_with
        words: dict[str, Any] = {
            self.unit: self._shown(limit),
            "per": self.per,
            "scope": dict(self.scope),
            "unpriced": self.unpriced,
            "at": self.at,
            "action": self.action,
            "on_threshold": self.on_threshold,
            "name": self._name,
            "store": self.store,
            "on_store_loss": self.on_store_loss,
            "time_zone": self.time_zone,
        }
        return partial(type(self), **words), ()

    def __repr__(self) -> str:
        spent, _, limit, _ = self._figures()
        amounts = f"{shown(spent)} of {shown(limit)} {unit_name(self.unit)}"
        return f"<Budget {self.name!r}: {amounts} spent>"

    def _status(self) -> tuple[int, int, int, int | None, int, int]:
        """Return spent, reserved, begin and end of the period, now and limit, as they are now."""
        self._begin()
        if self._lease is not None:
            self._lease.refresh()
        return self._last_status()

    def _last_status(self) -> tuple[int, int, int, int | None, int, int]:
        """Return the same without asking a store."""
        if self._account is None:
            return 0, 0, 0, None, 0, self._limit
        if self._lease is not None:
            return self._lease.status()
        recorder, position, _ = self._account
        return recorder.standing(position)

    def _figures(self, *, fresh: bool = False) -> tuple[Amount, Amount, Amount, datetime | None]:
        """Return spent, reserved, limit and the end of the period at one moment."""
        if fresh and self._lease is not None:
            self._lease.refresh()
        spent, reserved, _, ends, _, limit = self._last_status()
        amounts = self._shown(spent), self._shown(reserved), self._shown(limit)
        return (*amounts, _moment(ends))

    def _begin(self) -> None:
        """Open a shared budget that no call has opened: it has figures without calls."""
        owner = None if self._owner is None or self._account is not None else self._owner()
        if owner is not None:
            owner.begin(self)

    def _opened(self) -> int:
        return 0 if self._account is None else self._account[2]

    def _share(self, recorder: _core.Recorder, store: Store, hold: float) -> Lease:
        """Open the budget as a slice of the one in a store; returns what renews it."""
        position = recorder.open_budget(
            UNITS.index(self.unit), 1, 0, self.action == "block", [], self._unpriced
        )
        self._account = (recorder, position, recorder.standing(position)[4])
        owner = self._owner

        def crossed(places: tuple[int, ...]) -> None:
            ledger = None if owner is None else owner()
            if ledger is not None:
                ledger.crossed([(position, place) for place in places])

        terms = Terms(
            self._key(),
            self._scale,
            max(1, self._limit // self._scale),
            self.per,
            self.time_zone,
            self.at,
            self.action == "block",
            self.on_store_loss == "local",
            hold,
        )
        self._lease = Lease(store, terms, recorder, position, crossed)
        return self._lease

    @property
    def _scale(self) -> int:
        """Units of the recorder in one of a store, which has nano-dollars."""
        return PICO // 10**9 if self.unit == "usd" else 1

    def _key(self) -> str:
        """Return the key in a store: name, or hash of unit, period and scope; never the limit."""
        if self._name is not None:
            return self._name
        scope = {key: sorted(values) for key, values in self.scope.items()}
        text = json.dumps([self.unit, self.per, scope], sort_keys=True)
        return f"{self.unit}-{self.per}-{sha256(text.encode()).hexdigest()[:16]}"

    def _open(self, recorder: _core.Recorder) -> None:
        limit = self._limit
        position = recorder.open_budget(
            UNITS.index(self.unit),
            limit,
            PERIODS.index(self.per),
            self.action == "block",
            self._thresholds(limit),
            self._unpriced,
        )
        self._account = (recorder, position, recorder.standing(position)[4])
        if self._limit != limit:  # set by another thread meanwhile
            recorder.set_limit(position, self._limit, self._thresholds(self._limit))

    def _thresholds(self, limit: int) -> list[int]:
        return [max(1, ceil(Decimal(str(fraction)) * limit)) for fraction in self.at]

    def _shown(self, amount: int) -> Amount:
        return usd(amount) if self.unit == "usd" else amount

    def _describe(self) -> str:
        amount = f"{shown(self._figures()[2])} {unit_name(self.unit)}"
        covers = ", ".join(f"{key} {' or '.join(values)}" for key, values in self.scope.items())
        per = "" if self.per == "total" else f" a {self.per}"
        return f"{amount}{per}" + (f" for {covers}" if covers else "")

    def _threshold(self, fraction: float) -> Threshold:
        spent, reserved, limit, resets_at = self._figures()
        return Threshold(self, fraction, spent, reserved, limit, resets_at)


def unit_name(unit: str) -> str:
    """Return the unit as messages show it."""
    return "USD" if unit == "usd" else unit


def shown(amount: Amount) -> str:
    """Return the number as messages show it, without exponent or trailing zeros."""
    return plain(Decimal(amount))


def _moment(unix_ns: int | None) -> datetime | None:
    return None if not unix_ns else _EPOCH + timedelta(microseconds=unix_ns // 1000)
