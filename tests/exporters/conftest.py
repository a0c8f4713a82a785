"""A snapshot with figures of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.traffic import Traffic

if TYPE_CHECKING:
    from langmeter import Snapshot


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Traffic().everything().snapshot()
