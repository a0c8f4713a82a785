"""Checks of what a budget is made with, by keyword, in a file or on a command line."""

from __future__ import annotations

import operator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.money import PICO

UNITS: Final = _core.BUDGET_UNITS
PERIODS: Final = _core.BUDGET_PERIODS
ACTIONS: Final = ("warn", "block")
LOSSES: Final = ("block", "local")
_LIMIT: Final = 2**63 - 1
MAX_THRESHOLDS: Final = 8
#: As the charge of a call without a price: it is refused.
_BLOCKED: Final = 2**64 - 1


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


def checked_loss(name: str, loss: Any) -> Any:
    """Return "block" or "local"; raises ConfigError."""
    if loss not in LOSSES:
        raise refusal(name, "'block' or 'local'", loss, "pass 'local' to spend what is leased")
    return loss


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


def charge(unpriced: Any, unit: str) -> int:
    """Return the pico-dollars of a call without a price, or 0 and `_BLOCKED` for the words."""
    if unpriced == "allow":
        return 0
    if unit != "usd":
        what = f"'allow' for a budget of {unit}"
        raise refusal("unpriced", what, unpriced, "leave it out, or set the limit in USD")
    amount = checked_unpriced("unpriced", unpriced)
    return _BLOCKED if amount == "block" else checked_limit("usd", amount, "unpriced")
