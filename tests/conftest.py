"""What several tests need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
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
