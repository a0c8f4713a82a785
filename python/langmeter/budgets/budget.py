"""What is limited: US dollars, tokens or calls, by period and scope."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import ref

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.money import PICO, plain, usd
from langmeter.budgets import scope as scopes
from langmeter.errors import ConfigError

if TYPE_CHECKING:
    from langmeter.budgets.ledger import Ledger

#: US dollars, or a count of tokens or calls.
Amount: TypeAlias = Decimal | int

_UNITS: Final = _core.BUDGET_UNITS
PERIODS: Final = _core.BUDGET_PERIODS
ACTIONS: Final = ("warn", "block")
_LIMIT: Final = 2**63 - 1
MAX_THRESHOLDS: Final = 8
#: As the charge of a call without a price: it is refused.
_BLOCKED: Final = 2**64 - 1
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
        name: for messages; made from limit and scope by default.

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
    ) -> None:
        given = [(unit, limit) for unit, limit in zip(_UNITS, (usd, tokens, calls), strict=True)]
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
        self._unpriced = _charge(unpriced, self.unit)
        self._name = None if name is None else checked_name("name", name)
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
        """
        units = checked_limit(self.unit, limit)
        self._limit = units
        account = self._account
        if account is not None:
            recorder, position, _ = account
            crossed = recorder.set_limit(position, units, self._thresholds(units))
            owner = None if self._owner is None else self._owner()
            if crossed and owner is not None:
                owner.crossed(crossed)

    def reset(self) -> None:
        """Begin the period anew: nothing spent, and every threshold is told again.

        Calls in flight hold what they held and count when they end. The period ends when it would
        have ended. Safe in any thread.
        """
        account = self._account
        if account is not None:
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
        """Neither spent nor reserved; never below 0."""
        spent, reserved, _, _, _, limit = self._status()
        return self._shown(max(0, limit - spent - reserved))

    @property
    def resets_at(self) -> datetime | None:
        """When the next period begins; None for `per="total"` and before the first call."""
        return _moment(self._status()[3])

    def projected(self) -> Amount | None:
        """What will be spent when this period ends, if it goes on as since it began.

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
        return (*made, self.on_threshold, self.unpriced, self._name)

    def __repr__(self) -> str:
        spent, limit = shown(self.spent), shown(self.limit)
        return f"<Budget {self.name!r}: {spent} of {limit} {unit_name(self.unit)} spent>"

    def _status(self) -> tuple[int, int, int, int | None, int, int]:
        if self._account is None:
            return 0, 0, 0, None, 0, self._limit
        recorder, position, _ = self._account
        return recorder.standing(position)

    def _opened(self) -> int:
        return 0 if self._account is None else self._account[2]

    def _open(self, recorder: _core.Recorder) -> None:
        limit = self._limit
        position = recorder.open_budget(
            _UNITS.index(self.unit),
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
        amount = f"{shown(self.limit)} {unit_name(self.unit)}"
        covers = ", ".join(f"{key} {' or '.join(values)}" for key, values in self.scope.items())
        per = "" if self.per == "total" else f" a {self.per}"
        return f"{amount}{per}" + (f" for {covers}" if covers else "")

    def _threshold(self, fraction: float) -> Threshold:
        spent, reserved, _, ends, _, limit = self._status()
        return Threshold(
            self,
            fraction,
            self._shown(spent),
            self._shown(reserved),
            self._shown(limit),
            _moment(ends),
        )


def unit_name(unit: str) -> str:
    """As it stands in messages."""
    return "USD" if unit == "usd" else unit


def shown(amount: Amount) -> str:
    """As it stands in messages: without exponent or trailing zeros."""
    return plain(Decimal(amount))


def _moment(unix_ns: int | None) -> datetime | None:
    return None if not unix_ns else _EPOCH + timedelta(microseconds=unix_ns // 1000)


def checked_limit(unit: str, limit: Any, name: str = "") -> int:
    """Return a limit in the recorder's unit: pico-dollars, tokens, calls; raises ConfigError."""
    try:
        if isinstance(limit, bool):
            raise TypeError
        if unit == "usd":
            amount = Decimal(str(limit))
            # Compared first: 1e999999 as an int has a million digits. False for nan.
            whole = int(amount * PICO) if 0 < amount <= _LIMIT // PICO else 0
        else:
            whole = operator.index(limit)
    except (TypeError, ValueError, InvalidOperation):
        whole = 0
    if not 1 <= whole <= _LIMIT:
        what, such = (
            ("an amount in USD above 0, up to 9 million", '5 or "0.25"')
            if unit == "usd"
            else (f"a whole number of {unit}, 1 or more", "1000")
        )
        raise refusal(name or unit, what, limit, f"pass e.g. {such}")
    return whole


def checked_period(name: str, per: Any) -> Any:
    """Return the name of a period; raises ConfigError."""
    if per not in PERIODS:
        raise refusal(name, f"one of {', '.join(PERIODS)}", per, "pass e.g. per='day'")
    return per


def checked_action(name: str, action: Any) -> Any:
    """Return "warn" or "block"; raises ConfigError."""
    if action not in ACTIONS:
        raise refusal(name, "'warn' or 'block'", action, "pass 'block' to refuse calls")
    return action


def checked_name(name: str, value: Any) -> str:
    """Return the name of a budget; raises ConfigError."""
    if not isinstance(value, str) or not value.strip():
        raise refusal(name, "a text that is not empty", value, "leave it out for one that is made")
    return value


def checked_fractions(name: str, at: Any) -> tuple[float, ...]:
    """Return fractions of a limit, in order; raises ConfigError."""
    try:
        fractions = tuple(sorted({float(fraction) for fraction in at}))
    except (TypeError, ValueError):
        fractions = (0.0,)
    if len(fractions) > MAX_THRESHOLDS or not all(0 < f <= 1 for f in fractions):
        what = f"up to {MAX_THRESHOLDS} fractions above 0, up to 1.0"
        raise refusal(name, what, at, "pass e.g. (0.5, 1.0)")
    return fractions


def checked_unpriced(name: str, unpriced: Any) -> Any:
    """Return "allow", "block" or US dollars a call; raises ConfigError."""
    if unpriced in ("allow", "block"):
        return unpriced
    if not isinstance(unpriced, Decimal | int | float):
        what = "'allow', 'block' or USD a call"
        raise refusal(name, what, unpriced, 'pass e.g. Decimal("0.01")')
    checked_limit("usd", unpriced, name)
    return unpriced


def _charge(unpriced: Any, unit: str) -> int:
    """What a call without a price counts as: pico-dollars, or 0 and `_BLOCKED` for the words."""
    if unpriced == "allow":
        return 0
    if unit != "usd":
        what = f"'allow' for a budget of {unit}"
        raise refusal("unpriced", what, unpriced, "leave it out, or set the limit in USD")
    amount = checked_unpriced("unpriced", unpriced)
    return _BLOCKED if amount == "block" else checked_limit("usd", amount, "unpriced")
