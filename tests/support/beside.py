"""Responses whose usage says more than sums of tokens, and meters that price it."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import Meter
from langmeter.prices import PriceBook


def priced(provider: str, model: str, **more: Any) -> Meter:
    """A meter with a price for searches alone."""
    kinds = {"input": 0, "output": 0, "web_search": 1, "file_search": 100, **more}
    return Meter(prices=PriceBook({f"{provider}/{model}": kinds}))


FIGURES: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def answer(meta: dict[str, Any], figures: Any = FIGURES, content: Any = "ok", **extra: Any) -> Any:
    message = AIMessage(content, response_metadata=meta, additional_kwargs=extra)
    message.usage_metadata = figures
    return LLMResult(generations=[[ChatGeneration(message=message)]])
