"""Budgets: limits in US dollars, tokens or calls that warn, or refuse a call before it is made.

Rooms: `budget` (what is limited) · `checks` (of what it is made with) · `options` (budgets of files
and command lines) · `scope` (what is covered) · `ledger` (all budgets of one meter) · `worst_case`
(what is asked once of a model: which budgets cover it, and its price) · `abandoned` (calls that can
end no more) · `shared/` (one limit for many processes). What a call asks is told natively, by
`_core.Demands`; the books are in the recorder.
"""

from __future__ import annotations

from langmeter.budgets.budget import Amount, Budget, Threshold
from langmeter.budgets.ledger import Ledger
from langmeter.budgets.options import BUDGETS, BudgetTable, parse_budget

__all__ = [
    "BUDGETS",
    "Amount",
    "Budget",
    "BudgetTable",
    "Ledger",
    "Threshold",
    "parse_budget",
]
