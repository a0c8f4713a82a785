"""Numbers out of what providers and users write where a number belongs."""

from __future__ import annotations

import operator
from decimal import Decimal, InvalidOperation
from typing import Any

from langmeter.usage.types import LIMIT

# Longest decimal text of a count below LIMIT.
_DIGITS = len(str(LIMIT))


class NumberParser:
    """Convert values to numbers, and count those that are not numbers in `rejected`."""

    __slots__ = ("rejected",)

    def __init__(self) -> None:
        self.rejected = 0

    def count(self, value: Any) -> int:
        """Return an integer in `[0, LIMIT)`. None is 0; whole floats and decimal digits count.

        Everything else (True, NaN, 1.5, -3, "many", a list) is 0 and counted in `rejected`.
        """
        if value is None:
            return 0
        number = _integer(value)
        if number is None or not 0 <= number < LIMIT:
            self.rejected += 1
            return 0
        return number

    def amount(self, value: Any) -> Decimal | None:
        """Return an exact amount in `[0, LIMIT)`; a float is the decimal that it prints as.

        None is None; everything else is None and counted in `rejected`.
        """
        if value is None:
            return None
        amount: Decimal | None = None
        if not isinstance(value, bool) and isinstance(value, (int, float, str, Decimal)):
            try:
                amount = Decimal(str(value).strip())
            except (InvalidOperation, ValueError):  # ValueError: an int of more than 4,300 digits
                amount = None
        if amount is None or not amount.is_finite() or not 0 <= amount < LIMIT:
            self.rejected += 1
            return None
        return amount


def _integer(value: Any) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, (float, Decimal)):
            number = int(value)
            return number if number == value else None
        if isinstance(value, str):
            digits = value.strip()
            short = len(digits) <= _DIGITS and digits.isascii() and digits.isdigit()
            return int(digits) if short else None
        return operator.index(value)
    except (ValueError, OverflowError, TypeError):
        return None
