"""Embeddings whose texts are counted in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

TEXTS = ["one two three", "four five"]


def fake() -> DeterministicFakeEmbedding:
    return DeterministicFakeEmbedding(size=4)


#: The four methods, called as LangChain calls them.
WAYS: dict[str, Callable[[Embeddings], Any]] = {
    "embed_documents": lambda e: e.embed_documents(TEXTS),
    "embed_query": lambda e: e.embed_query("one two three four five"),
    "aembed_documents": lambda e: asyncio.run(e.aembed_documents(TEXTS)),
    "aembed_query": lambda e: asyncio.run(e.aembed_query("one two three four five")),
}


class Broken(Embeddings):
    """Raises what it is told to."""

    model = "broken-1"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise self.error

    def embed_query(self, text: str) -> list[float]:
        raise self.error
