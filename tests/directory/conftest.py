"""Tests that fork hundreds of times, in processes that fork fast."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_INNER = "LANGMETER_TEST_ALONE"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked `alone` in a process of its own.

    A fork takes many times as long in a process that has collected every test and run a thousand.
    """
    if pyfuncitem.get_closest_marker("alone") is None or _INNER in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "--no-cov", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, _INNER: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    # Of a test that is skipped in there nothing has run, which this one must not hide.
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    return True
