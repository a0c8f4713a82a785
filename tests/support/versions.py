"""Marks of tests that need more than langchain-core 1.0 and the packages of its time have."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel

needs_stream_events = pytest.mark.skipif(
    not hasattr(BaseCallbackHandler, "on_stream_event"),
    reason="this langchain-core has no stream events of version 3",
)
needs_profiles = pytest.mark.skipif(
    "profile" not in BaseChatModel.model_fields,
    reason="with this langchain-core no model has a profile",
)
needs_marked_agents = pytest.mark.skipif(
    version("langchain").startswith("1.0."),
    reason="this langchain does not mark the runs of its agents",
)
