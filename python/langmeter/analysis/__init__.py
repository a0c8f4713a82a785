"""From snapshots to findings: what the figures say about how to spend less."""

from __future__ import annotations

from langmeter.analysis.advice import Bound, Finding, advise, text

__all__ = ["Bound", "Finding", "advise", "text"]
