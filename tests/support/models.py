"""Models of LangChain that answer what a test decides."""

from __future__ import annotations

from itertools import repeat
from operator import methodcaller
from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

USAGE: dict[str, Any] = {
    "input_tokens": 100,
    "output_tokens": 40,
    "total_tokens": 140,
    "input_token_details": {"cache_read": 30, "cache_creation": 5},
    "output_token_details": {"reasoning": 12},
}


def chat_model(**response: Any) -> GenericFakeChatModel:
    """Langchain's own fake model, answering `alpha beta gamma` with the usage above."""
    message = AIMessage(
        response.pop("content", "alpha beta gamma"),
        usage_metadata=response.pop("usage", USAGE),
        response_metadata=response.pop("metadata", {"model_name": "fake-1"}),
    )
    # Not a generator: two threads may take the next one at once.
    fresh = map(methodcaller("model_copy", deep=True), repeat(message))
    return GenericFakeChatModel(messages=fresh, **response)


def call(meter: Any, times: int = 1) -> None:
    """Call a model `times` times, with the meter as its handler."""
    model = chat_model()
    for _ in range(times):
        model.invoke("hello", config={"callbacks": [meter]})
