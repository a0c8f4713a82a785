"""Counts of tokens to compare with."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI

from langmeter._core import count_tokens
from langmeter.snapshot import Tokens
from langmeter.testing.simulator.server import Server


def o200k(text: str) -> int:
    """As tiktoken counts: another test holds the native counter to it."""
    return count_tokens(text, "o200k_base")


def words(text: str) -> int:
    """A counter that is easy to foresee."""
    return len(text.split())


def tokens(meter: Any) -> Tokens:
    """Of all models."""
    return meter.snapshot().totals.tokens


def client(service: Server, fate: str = "ok", **settings: Any) -> ChatOpenAI:
    """The real client of a proxy: usage of streams is off by default."""
    return ChatOpenAI(
        model=settings.pop("model", "gpt-4o-mini"),
        base_url=service.url,
        api_key=lambda: "any",
        max_retries=0,
        default_headers={"x-simulate": fate},
        **settings,
    )
