"""Handlers as an ordinary developer would write them: Python, a lock, dicts and lists.

They count rightly and keep what they need, no more; they are not inline, because nothing in
LangChain's documentation suggests it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

# US dollars per million tokens.
_PRICES = {"gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.00)}


def answer(response: Any) -> tuple[str, dict[str, Any]]:
    """(model, usage) of a result."""
    message = response.generations[0][0].message
    return message.response_metadata.get("model_name", "unknown"), message.usage_metadata or {}


class NaiveHandler(BaseCallbackHandler):
    """What the five have in common."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Chat models, too."""


class TokenCounter(NaiveHandler):
    """Tokens by model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, dict[str, int]] = {}

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Add the usage."""
        model, usage = answer(response)
        with self.lock:
            self.calls += 1
            entry = self.tokens.setdefault(model, {"input": 0, "output": 0, "total": 0})
            entry["input"] += usage.get("input_tokens", 0)
            entry["output"] += usage.get("output_tokens", 0)
            entry["total"] += usage.get("total_tokens", 0)


class CostTracker(NaiveHandler):
    """US dollars by model."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, float] = defaultdict(float)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Price the usage by the longest name that fits."""
        model, usage = answer(response)
        known = max((name for name in _PRICES if model.startswith(name)), key=len, default=None)
        with self.lock:
            self.calls += 1
            if known is not None:
                price_in, price_out = _PRICES[known]
                self.costs[model] += usage.get("input_tokens", 0) * price_in / 1e6
                self.costs[model] += usage.get("output_tokens", 0) * price_out / 1e6


class LatencyList(NaiveHandler):
    """Every latency in seconds, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[UUID, float] = {}
        self.latencies: list[float] = []

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note the time."""
        with self.lock:
            self.started[run_id] = time.perf_counter()

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep the difference."""
        now = time.perf_counter()
        with self.lock:
            self.calls += 1
            self.latencies.append(now - self.started.pop(run_id, now))


class StreamRecorder(NaiveHandler):
    """The time of every token, until the run ends; then time to first token and gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[UUID, float] = {}
        self.times: dict[UUID, list[float]] = defaultdict(list)
        self.first_token: list[float] = []
        self.gaps: list[float] = []

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note the time."""
        with self.lock:
            self.started[run_id] = time.perf_counter()

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the time."""
        with self.lock:
            self.times[run_id].append(time.perf_counter())

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep the differences."""
        with self.lock:
            self.calls += 1
            started, times = self.started.pop(run_id, None), self.times.pop(run_id, [])
            if started is not None and times:
                self.first_token.append(times[0] - started)
                self.gaps.extend(b - a for a, b in pairwise(times))


class DefectCounter(NaiveHandler):
    """Success and failure by model, with the text of the last failures."""

    def __init__(self) -> None:
        super().__init__()
        self.succeeded: dict[str, int] = defaultdict(int)
        self.failed: dict[str, int] = defaultdict(int)
        self.failures: list[str] = []

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """One success."""
        model, _ = answer(response)
        with self.lock:
            self.calls += 1
            self.succeeded[model] += 1

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """One failure."""
        with self.lock:
            self.calls += 1
            self.failed[type(error).__name__] += 1
            self.failures = [*self.failures[-99:], str(error)]
