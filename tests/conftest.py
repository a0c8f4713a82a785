"""What several tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tracers.context import _configure_hooks

import langmeter
from langmeter.prices import PriceBook

# The price table of a run is its own, and its child processes read it too.
_CACHE = tempfile.TemporaryDirectory(prefix="langmeter-tests-")
os.environ["LANGMETER_CACHE"] = _CACHE.name

# A shared machine stalls now and then; that is no finding about the code.
settings.register_profile(
    "langmeter",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=50 if os.environ.get("CI") else 100,
)
settings.load_profile("langmeter")

USAGE = {
    "input_tokens": 100,
    "output_tokens": 40,
    "total_tokens": 140,
    "input_token_details": {"cache_read": 30, "cache_creation": 5},
    "output_token_details": {"reasoning": 12},
}


def chat_model(**response: Any) -> GenericFakeChatModel:
    """Langchain's own fake model, answering `alpha beta gamma` with the usage above."""
    message = AIMessage(
        response.pop("content", "alpha beta gamma"),
        usage_metadata=response.pop("usage", USAGE),
        response_metadata=response.pop("metadata", {"model_name": "fake-1"}),
    )
    fresh = (message.model_copy(deep=True) for message in repeat(message))
    return GenericFakeChatModel(messages=fresh, **response)


@pytest.fixture(scope="session")
def prices() -> PriceBook:
    """Own prices in round numbers: USD per million tokens."""
    book = PriceBook({"genericfakechatmodel/fake-1": {"input": 2, "output": 10, "cache_read": 1}})
    return book.warm(wait=True)


@pytest.fixture(autouse=True)
def _nothing_installed() -> Iterator[None]:
    yield
    langmeter.uninstall()


@pytest.fixture
def hooks() -> list[Any]:
    """LangChain's list of configure hooks."""
    return _configure_hooks
