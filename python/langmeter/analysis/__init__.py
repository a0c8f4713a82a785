"""From snapshots to findings: what the figures say about spending less, and what got worse.

Rooms: `advice` (the questions) · `models` (other models' prices) · `traffic` (what was used, at any
rates) · `waste` (calls that brought nothing) · `family` (models of one kind, by name) · `finding`.
And `regression` (two snapshots) · `measures` (what is compared) · `rules` (what is refused) ·
`statistics` (the tests) · `comparison`. And `bottlenecks` (where the time of pipelines goes).
"""

from __future__ import annotations

from langmeter.analysis.advice import advise
from langmeter.analysis.comparison import Comparison
from langmeter.analysis.finding import Bound, Finding, text
from langmeter.analysis.regression import compare

__all__ = ["Bound", "Comparison", "Finding", "advise", "compare", "text"]
