"""A meter with a call whose texts are secret."""

from __future__ import annotations

from typing import Any

import pytest

from langmeter import Meter
from tests.support.models import chat_model


@pytest.fixture
def meter() -> Meter:
    """A meter with a call whose prompt and answer are secret."""
    meter = Meter(labels=("team",))
    config: Any = {"callbacks": [meter], "metadata": {"team": "search"}}
    chat_model(content="the secret answer").invoke("the secret prompt", config=config)
    return meter
