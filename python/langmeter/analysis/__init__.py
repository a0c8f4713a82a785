"""From snapshots to findings: what the figures say about spending less, and what got worse.

Rooms: `advice` (spending less) · `regression` (what got worse between two snapshots) ·
`bottlenecks` (where the time of pipelines goes) · `fixes` (which model fixes which defects).
"""

from __future__ import annotations

from langmeter.analysis.advice import Bound, Finding, advise, text
from langmeter.analysis.fixes import FixReport, ModelFixes, defects
from langmeter.analysis.regression import Comparison, compare

__all__ = [
    "Bound",
    "Comparison",
    "Finding",
    "FixReport",
    "ModelFixes",
    "advise",
    "compare",
    "defects",
    "text",
]
