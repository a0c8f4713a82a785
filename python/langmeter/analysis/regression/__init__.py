"""Comparison of two snapshots: what got worse, with which confidence.

Rooms: `compare` (the question) · `metrics` (what is compared) · `rules` (what is refused) ·
`significance` (the tests) · `comparison` (the answer).
"""

from langmeter.analysis.regression.compare import LEVEL, compare
from langmeter.analysis.regression.comparison import Comparison

__all__ = ["LEVEL", "Comparison", "compare"]
