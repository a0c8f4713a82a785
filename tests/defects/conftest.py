"""A meter whose prices are round numbers."""

from __future__ import annotations

import pytest

from langmeter import Meter, PriceBook
from tests.support.repairs import PRICES


@pytest.fixture
def meter() -> Meter:
    """A meter with prices of its own."""
    return Meter(prices=PriceBook(PRICES))
