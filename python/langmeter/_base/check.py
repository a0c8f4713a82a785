"""Checks of arguments: one range check, one message, one type of error.

Every message has the form `NAME must be X, got VALUE; REMEDY`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from decimal import Decimal
from math import inf
from typing import Final, TypeVar

from langmeter.errors import ConfigError, Problem

ChoiceT = TypeVar("ChoiceT")

#: Longest value in a message.
_MAX_SHOWN: Final = 200


def refusal(name: str, allowed: str, value: object, remedy: str = "") -> ConfigError:
    """Return the error about an argument that is not allowed.

    Args:
        name: the argument as the user wrote it.
        allowed: what it must be: "a whole number from 1 to 10".
        value: what was given; shown by its `repr`, or by its type where that raises.
        remedy: what to do instead; none if empty.
    """
    text = shown(value)
    message = f"{name} must be {allowed}, got {text}{remedy and '; '}{remedy}"
    return ConfigError(message, (Problem(name, message, text, allowed, remedy),))


class Refusals:
    """Collects what is refused, so that all of it is said at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep what a ConfigError in the block says, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.problems.extend(error.problems)

    def raise_all(self) -> None:
        """Raise one ConfigError for everything that was collected; return if that is nothing."""
        if self.problems:
            raise ConfigError.of(self.problems)


def shown(value: object) -> str:
    """Return the `repr` of a value for a message, cut at 200, or its type where that raises."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def whole_number(
    name: str, value: object, low: int, high: int | None = None, *, remedy: str = ""
) -> int:
    """Return `value` if it is a whole number from `low` to `high`; None stands for no upper end.

    Raises:
        ConfigError: it is not an int, is a bool, or is outside the range.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and low <= value and (high is None or value <= high):  # type: ignore[operator]
        return value  # type: ignore[return-value]
    upto = " up" if high is None else f" to {high:,}"
    raise refusal(name, f"a whole number from {low:,}{upto}", value, remedy)


def real_number(
    name: str,
    value: object,
    low: float,
    high: float | None = None,
    *,
    unit: str = "a number",
    remedy: str = "",
) -> float:
    """Return `value` as a float if it is a number from `low` to `high`; None means no upper end.

    Args:
        name: the argument as the user wrote it.
        value: what was given, a Decimal too; nan, inf and bool are refused.
        low: lowest allowed value.
        high: highest allowed value.
        unit: noun for the message: "seconds".
        remedy: what to do instead; none if empty.

    Raises:
        ConfigError: it is not a number, or is outside the range.
    """
    if isinstance(value, Decimal):
        value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # The comparison is false for nan, and exact for whole numbers that no float can hold.
    if number and low <= value and (value < inf if high is None else value <= high):  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    upto = " up" if high is None else f" to {high:,}"
    raise refusal(name, f"{unit} from {low:,}{upto}", value, remedy)


def one_of(name: str, value: object, choices: Collection[ChoiceT], *, remedy: str = "") -> ChoiceT:
    """Return `value` if it equals one of `choices`.

    Raises:
        ConfigError: it equals none of them.
    """
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise refusal(name, f"one of {', '.join(map(repr, choices))}", value, remedy)
