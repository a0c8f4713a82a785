"""Snapshots: the figures of a meter up to a moment, immutable and mergeable.

Rooms: `snapshot` (the whole) · `counts`, `stats`, `defect_stats` and `anomaly` (its parts) ·
`by_label` (rows of labels) · `state` (what is not a sum) · `serialize` and `parse` (as plain
data) · `table` (as text).
"""

from langmeter._core import Distribution
from langmeter.snapshot.anomaly import Anomaly
from langmeter.snapshot.counts import Rate, Tokens
from langmeter.snapshot.defect_stats import DefectStats
from langmeter.snapshot.snapshot import FORMAT, Snapshot
from langmeter.snapshot.state import (
    AlertState,
    BudgetState,
    CircuitState,
    DecisionState,
    OriginState,
    State,
    StreamState,
)
from langmeter.snapshot.stats import CallStats, ComponentStats, LabelStats, ModelStats, Overhead

__all__ = [
    "FORMAT",
    "AlertState",
    "Anomaly",
    "BudgetState",
    "CallStats",
    "CircuitState",
    "ComponentStats",
    "DecisionState",
    "DefectStats",
    "Distribution",
    "LabelStats",
    "ModelStats",
    "OriginState",
    "Overhead",
    "Rate",
    "Snapshot",
    "State",
    "StreamState",
    "Tokens",
]
