"""A handler on prometheus_client, as its documentation would have one write it."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from prometheus_client import CollectorRegistry, Counter, Histogram

from benches.naive import answer


class PrometheusHandler(BaseCallbackHandler):
    """Counters and histograms of prometheus_client, labelled by model, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llm_requests", "Calls", ["model", "outcome"], registry=self.registry
        )
        self.tokens = Counter("llm_tokens", "Tokens", ["model", "type"], registry=self.registry)
        self.latency = Histogram(
            "llm_latency_seconds", "Latency", ["model"], registry=self.registry
        )
        self.first_token = Histogram(
            "llm_time_to_first_token_seconds", "First token", ["model"], registry=self.registry
        )
        self.lock = threading.Lock()
        self.started: dict[UUID, tuple[float, str]] = {}
        self.waiting: set[UUID] = set()

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        """Note the time and the model."""
        model = (metadata or {}).get("ls_model_name", "unknown")
        with self.lock:
            self.started[run_id] = time.perf_counter(), model
            self.waiting.add(run_id)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Observe the time to the first token."""
        if run_id in self.waiting:
            with self.lock:
                self.waiting.discard(run_id)
                started, model = self.started[run_id]
            self.first_token.labels(model).observe(time.perf_counter() - started)

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Observe the latency, count the call and its tokens."""
        model, usage = answer(response)
        with self.lock:
            self.waiting.discard(run_id)
            started, asked = self.started.pop(run_id)
        self.latency.labels(asked).observe(time.perf_counter() - started)
        self.requests.labels(model, "ok").inc()
        self.tokens.labels(model, "input").inc(usage.get("input_tokens", 0))
        self.tokens.labels(model, "output").inc(usage.get("output_tokens", 0))

    @property
    def calls(self) -> int:
        """Calls counted."""
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in samples if sample.name == "llm_requests_total"))
