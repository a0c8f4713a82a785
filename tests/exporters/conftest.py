"""A snapshot with figures of every kind."""

from __future__ import annotations

import pytest

from langmeter import Snapshot
from tests.support.traffic import Traffic


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Traffic().everything().snapshot()
