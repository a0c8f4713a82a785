"""Tests of what is released: those of wheels are run by `make check-wheels` only."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of wheels unless `-m` asks for them."""
    wanted = collection_path.name != "test_wheels.py" or "wheels" in config.getoption("markexpr")
    return None if wanted else True
