"""Providers behind one manager."""

from __future__ import annotations

from typing import Any

from langmeter import Meter, ProviderManager
from tests.support.chats import ScriptedChat

BROKEN = ConnectionResetError("gone")


def pair(*script: Any, meter: Meter | None = None, **settings: Any) -> Any:
    """A manager of two models of which the first one has a script, and both models."""
    first = ScriptedChat(text="first", model="small", script=list(script))
    second = ScriptedChat(text="second", model="large")
    manager = ProviderManager({"nim": first, "openai": second}, meter=meter, **settings)
    return manager, first, second
