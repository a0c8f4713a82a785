"""From snapshots to findings: what the figures say about spending less.

Rooms: `advice` (the questions) · `models` (other models' prices) · `traffic` (what was used, at any
rates) · `waste` (calls that brought nothing) · `family` (models of one kind, by name) · `finding`.
"""

from __future__ import annotations

from langmeter.analysis.advice import advise
from langmeter.analysis.finding import Bound, Finding, text

__all__ = ["Bound", "Finding", "advise", "text"]
