"""What was metered up to a moment: immutable, mergeable, and read without asking again.

Rooms: `snapshot` (the whole) · `counts`, `stats` and `anomaly` (its parts) · `serialize` and
`parse` (as plain data) · `table` (as text).
"""

from langmeter._core import Distribution
from langmeter.snapshot.snapshot import (
    FORMAT,
    Anomaly,
    CallStats,
    ComponentStats,
    LabelStats,
    ModelStats,
    Overhead,
    Rate,
    Snapshot,
    Tokens,
)

__all__ = [
    "FORMAT",
    "Anomaly",
    "CallStats",
    "ComponentStats",
    "Distribution",
    "LabelStats",
    "ModelStats",
    "Overhead",
    "Rate",
    "Snapshot",
    "Tokens",
]
