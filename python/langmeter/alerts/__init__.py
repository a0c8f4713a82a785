"""Alerts: rules over what is metered, and where their alerts are sent.

Rooms: `options` (rules and sinks as settings) · `window` (sums that slide) · `engine` (when a rule
fires, and when it resolves) · `alert` (what a sink gets) · `sinks` (how it gets there) · `monitor`
(the task of a meter) · `replay` (what would have fired) · `export` (rules for Prometheus).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langmeter.alerts.options import Rule, Webhook, burn_rate

if TYPE_CHECKING:
    from langmeter.alerts.alert import Alert

__all__ = ["Alert", "Rule", "Webhook", "burn_rate"]


def __getattr__(name: str) -> Any:
    if name != "Alert":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.alert").Alert
