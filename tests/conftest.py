"""What several tests need."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from langchain_core.tracers.context import _configure_hooks

import langmeter
from langmeter.prices import PriceBook

if TYPE_CHECKING:
    from langmeter.testing.simulator.server import Server

# The price table of a run is its own, and its child processes read it too.
_CACHE = tempfile.TemporaryDirectory(prefix="langmeter-tests-")
os.environ["LANGMETER_CACHE"] = _CACHE.name


def pytest_unconfigure() -> None:
    """Remove the folder before the interpreter would, with a warning."""
    _CACHE.cleanup()


# A shared machine stalls now and then; that says nothing about the code.
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


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    from langmeter.testing.simulator import Traffic
    from langmeter.testing.simulator.server import Server

    faults = {"rate_limited": 0.0, "server_error": 0.0, "broken": 0.0}
    # No system prompt of its own: the words of a request are all there is to bill.
    traffic = Traffic(7, speed=math.inf, input_tokens=(0.0, 1.0), **faults)
    # One for the session. Each connection ends with its reply: LangChain's clients are cached, and
    # an async one would use a connection of the event loop of an earlier test.
    with Server(traffic, keep_alive=False) as server:
        yield server


@pytest.fixture
def service(_server: Server) -> Iterator[Server]:
    """The simulator, without delays and faults of its own; a test may script its replies."""
    yield _server
    _server.script()


@pytest.fixture(autouse=True)
def _nothing_installed() -> Iterator[None]:
    yield
    langmeter.uninstall()


@pytest.fixture
def hooks() -> list[Any]:
    """LangChain's list of configure hooks."""
    return _configure_hooks
