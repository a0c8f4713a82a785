"""Amounts of money: whole pico-dollars (1e-12 USD) inside, exact decimals outside."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

#: Pico-dollars in a dollar.
PICO: Final = 10**12

#: Our own context: the caller's may be set to six digits.
EXACT: Final = Context(prec=80)


def usd(pico_dollars: int) -> Decimal:
    """Return pico-dollars as an exact number of US dollars."""
    # A scaled 0 prints as 0E-12.
    return EXACT.scaleb(Decimal(pico_dollars), -12) if pico_dollars else Decimal(0)


def plain(amount: Decimal) -> str:
    """Return an amount as text without exponent or trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
