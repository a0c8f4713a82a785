"""Shared budgets: one limit for many processes, kept in a store that is there already.

Rooms: `account` (the algorithm: what a renewal does to the figures of a budget, pure) · `periods`
(calendar periods in a time zone) · `sqlite` and `redis` (the same in one transaction, and in one
script) · `lease` (what a process holds of a budget) · `renewals` (the periodic task that renews).
"""

from __future__ import annotations

from langmeter.budgets.shared.lease import Lease, Terms
from langmeter.budgets.shared.stores import checked_store, open_store

__all__ = ["Lease", "Terms", "checked_store", "open_store"]
