"""A real browser: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

#: Names under which systems have it.
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def why_not() -> str:
    """Return why there is no browser here, and how it gets there; "" where there is one."""
    if find_spec("playwright") is None:
        return "playwright is not installed; run `make e2e`"
    if not any(map(shutil.which, _NAMES)):
        return "there is no Chromium here; `CI=1 make e2e` or `apt-get install chromium`"
    return ""


@contextmanager
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Start the browser, without a sandbox, which root has not; it is closed at the end."""
    path = next(path for name in _NAMES if (path := shutil.which(name)))
    chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    try:
        yield chromium
    finally:
        chromium.close()
