"""The present of a source: a row a model, budgets, circuits, decisions and open alerts.

Rooms: `figures` (what is shown, as data) · `text` (as plain text and as one line) · `screen` (a
terminal, by `rich`).
"""

from __future__ import annotations

from langmeter.report.top.figures import SORTS, Figures, Row, figures
from langmeter.report.top.text import line, text

__all__ = ["SORTS", "Figures", "Row", "figures", "line", "text"]
