"""A row of the second table: what, what is to be reached, what was measured, whether it holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line. `holds` is None where only the figure is of interest."""

    what: str
    target: str
    measured: str
    holds: bool | None = None
