"""Attempts to fix defects: which model fixes which defect, how well, and at what price.

Rooms: `attempt` (blocks of code) · `outcome` (what an answer says) · `receipt` (for other
processes) · `options` (settings) · `proposal` (changes to a file) · `commands` (run with limits) ·
`scorers` (quality of a fix).
"""

from langmeter.defects.attempt import Attempt, Candidate
from langmeter.defects.options import DefectOptions
from langmeter.defects.outcome import OUTCOMES, SOURCES, Fix, read_fix

__all__ = [
    "OUTCOMES",
    "SOURCES",
    "Attempt",
    "Candidate",
    "DefectOptions",
    "Fix",
    "read_fix",
]
