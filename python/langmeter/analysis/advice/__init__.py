"""Advice on spending less, from one snapshot.

Rooms: `advise` (the questions) · `alternatives` (other models' prices) · `traffic` (what was used,
at any rates) · `waste` (calls that gave no answer) · `model_family` (models of one kind, by name) ·
`finding`.
"""

from langmeter.analysis.advice.advise import advise
from langmeter.analysis.advice.finding import Bound, Finding, text

__all__ = ["Bound", "Finding", "advise", "text"]
