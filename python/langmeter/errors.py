"""Every exception that langmeter raises on purpose. Imports nothing."""

from __future__ import annotations


class LangmeterError(Exception):
    """Base of langmeter's own exceptions."""


class ConfigError(LangmeterError, ValueError):
    """A setting is unknown or out of range; the message names value, range and remedy."""


class SnapshotError(LangmeterError, ValueError):
    """A text or dict is no snapshot, or one of a newer format."""
