"""Managers of models, with real clients."""

from __future__ import annotations

import logging
import threading
from typing import Any

from langchain_openai import ChatOpenAI

from langmeter import Meter
from langmeter.testing.simulator.server import Server


def gpt(service: Server | None = None, model: str = "gpt-4o-mini", **settings: Any) -> ChatOpenAI:
    url = "http://127.0.0.1:1/v1" if service is None else service.url
    return ChatOpenAI(model=model, base_url=url, api_key="any", max_retries=0, **settings)  # type: ignore[arg-type]


def calls(meter: Meter) -> dict[str, int]:
    """Calls by provider."""
    counts: dict[str, int] = {}
    for (provider, _), stats in meter.snapshot().models.items():
        counts[provider] = counts.get(provider, 0) + stats.calls
    return counts


class Manager:
    """As fix generators have them: a mapping of providers or models."""

    def __init__(self, providers: Any, attribute: str = "providers") -> None:
        setattr(self, attribute, providers)
        self.config = {"priority": ["nim", "openai"], "retries": 3}
        self.current_provider = "nim"
        self.log = logging.getLogger("manager")
        self.lock = threading.Lock()
