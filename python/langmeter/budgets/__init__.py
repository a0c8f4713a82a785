"""Budgets: limits in US dollars, tokens or calls that warn, or refuse a call before it is made.

Rooms: `budget` (what is limited) · `scope` (what is covered) · `ledger` (all budgets of one meter)
· `plans` (what is asked once of a model: which budgets cover it, and its price) · `dead` (calls
that can end no more). What a call asks is told natively, by `_core.Demands`; the books are in the
recorder.
"""

from __future__ import annotations

from langmeter.budgets.budget import Amount, Budget, Threshold
from langmeter.budgets.ledger import Ledger

__all__ = ["Amount", "Budget", "Ledger", "Threshold"]
