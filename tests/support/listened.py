"""Streams that listeners hear."""

from __future__ import annotations

import uuid
from typing import Any

from langmeter import StreamingCallback
from tests.support.models import chat_model

ANSWER = "alpha beta gamma"
PIECES = ["alpha", " ", "beta", " ", "gamma"]


def stream(handler: StreamingCallback, run_id: uuid.UUID | None = None) -> str:
    """The text of one whole stream."""
    config: Any = {"callbacks": [handler], "run_id": run_id}
    return "".join(str(chunk.content) for chunk in chat_model().stream("hi", config=config))


async def astream(handler: StreamingCallback, run_id: uuid.UUID | None = None) -> str:
    config: Any = {"callbacks": [handler], "run_id": run_id}
    return "".join([str(c.content) async for c in chat_model().astream("hi", config=config)])
