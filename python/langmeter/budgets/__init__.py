"""Budgets: limits in US dollars, tokens or calls that warn, or refuse a call before it is made.

Rooms: `budget` (what is limited) · `ledger` (all budgets of one meter: which of them a call belongs
to) · `demand` (what a call can use at its worst). The books are in the recorder.
"""

from __future__ import annotations

from langmeter.budgets.budget import Amount, Budget, Threshold
from langmeter.budgets.ledger import Demand, Ledger

__all__ = ["Amount", "Budget", "Demand", "Ledger", "Threshold"]
