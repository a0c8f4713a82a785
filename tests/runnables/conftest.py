"""A meter for embeddings."""

from __future__ import annotations

import pytest

from langmeter import Meter


@pytest.fixture
def meter() -> Meter:
    return Meter(significant_digits=2)
