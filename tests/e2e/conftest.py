"""End-to-end tests: run by `make e2e`, passed over by a plain `pytest`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.peer import Peer, why_not
from tests.support import browser as browsers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing here is even imported unless `-m` asks for it."""
    return None if "e2e" in config.getoption("markexpr") else True


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The peer, for all tests."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Peer.started(tmp_path_factory.mktemp("aimock")) as peer:
        yield peer


@pytest.fixture
def peer(aimock: Peer, request: pytest.FixtureRequest) -> Peer:
    """The peer with a journal for this test alone."""
    return aimock.scoped(request.node.name)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser."""
    if reason := browsers.why_not():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, browsers.browser(playwright) as started:
        yield started
