"""What several tests need.

Nothing here imports langmeter while it is loaded: pytest-xdist's workers start to watch coverage
only afterwards. Nor LangChain: the process that hands out the tests needs none of it, and its start
holds up the workers.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from langmeter.prices import PriceBook
    from langmeter.testing.simulator.server import Server

# The price table of a run is its own, and its child processes read it too.
_CACHE = tempfile.TemporaryDirectory(prefix="langmeter-tests-")
os.environ["LANGMETER_CACHE"] = _CACHE.name


def pytest_unconfigure() -> None:
    """Give back what the interpreter would give back at its end, with a warning for each."""
    _close_clients()
    _CACHE.cleanup()


def _close_clients() -> None:
    """Close the HTTP clients that LangChain's packages cache, and with them their connections.

    Left to the end of the interpreter they cannot close themselves: what they need is gone by then.
    """
    gc.unfreeze()
    kinds = tuple(sys.modules[name].Client for name in ("httpx", "httpx2") if name in sys.modules)
    # By its type: to `isinstance`, a proxy of openai's that is not loaded yet loads itself.
    for client in [part for part in gc.get_objects() if issubclass(type(part), kinds)]:
        client.close()


# A shared machine stalls now and then; that says nothing about the code.
settings.register_profile(
    "langmeter",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=50 if os.environ.get("CI") else 100,
)
settings.register_profile("quick", settings.get_profile("langmeter"), max_examples=10)
settings.load_profile("langmeter")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without looking for garbage, and never look at what was collected again.

    A collection of garbage passes over a million objects of imported packages, which live until the
    end: 0.2 s each time, at a hundred tests that collect and at many between them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what goes through the simulator, before `-m` chooses, and what coverage does not watch.

    Laws and slow tests pass the same lines hundreds of times, which others cover by an example;
    watched, they take half as long again.
    """
    for item in items:
        if "service" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.clients)
        law = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if law or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session", autouse=True)
def _no_bytecode() -> None:
    """Leave the writing of bytecode to the collection of tests.

    A test's process that may write little would leave half a file of it, which Python 3.11 to 3.13
    then fail to load (CPython issue 126606).
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session")
def prices() -> PriceBook:
    """Own prices in round numbers: USD per million tokens."""
    from langmeter.prices import PriceBook

    book = PriceBook({"genericfakechatmodel/fake-1": {"input": 2, "output": 10, "cache_read": 1}})
    return book.warm(wait=True)


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    from langmeter.testing.simulator import Traffic
    from langmeter.testing.simulator.server import Server

    # No system prompt of its own: the words of a request are all there is to bill.
    traffic = Traffic(
        seed=7,
        speed=math.inf,
        input_tokens=(0.0, 1.0),
        rate_limited=0.0,
        server_error=0.0,
        broken=0.0,
    )
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
    if "langmeter" in sys.modules:
        import langmeter

        langmeter.uninstall()


@pytest.fixture
def hooks() -> list[Any]:
    """LangChain's list of configure hooks."""
    from langchain_core.tracers.context import _configure_hooks

    return _configure_hooks
