"""The handlers that are measured, the floor first.

Peers that make spans make them in full and export them nowhere: their providers have no exporter,
or one that throws away. No peer touches the network.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler

from benches.model import INPUT_TOKENS, TOKENS
from langmeter import Meter
from langmeter.callbacks.composite import HOOKS

NONE, EMPTY, METER, USAGE, NAIVE = (
    "no handler",
    "empty inline handler",
    "langmeter Meter",
    "UsageMetadataCallbackHandler",
    "five naive handlers",
)


@dataclass(frozen=True)
class Peer:
    """What goes into `callbacks`, and how many model calls it says it has seen."""

    name: str
    handlers: list[BaseCallbackHandler]
    counted: Callable[[], int] | None = None


class Empty(BaseCallbackHandler):
    """The floor: inline, and every hook that the Meter has does nothing.

    The hooks declare what LangChain sends by keyword, as those of BaseCallbackHandler do: a floor
    that spends 200 ns on a dict would flatter whatever stands on it.
    """

    run_inline = True


def _start(
    self: Any,
    serialized: Any,
    inputs: Any,
    *,
    run_id: Any,
    parent_run_id: Any = None,
    tags: Any = None,
    metadata: Any = None,
    **kwargs: Any,
) -> None:
    pass


def _token(
    self: Any,
    token: Any,
    *,
    chunk: Any = None,
    run_id: Any,
    parent_run_id: Any = None,
    tags: Any = None,
    **kwargs: Any,
) -> None:
    pass


def _end(
    self: Any,
    result: Any,
    *,
    run_id: Any,
    parent_run_id: Any = None,
    tags: Any = None,
    **kwargs: Any,
) -> None:
    pass


for _hook in HOOKS:
    if getattr(Meter, _hook) is not getattr(BaseCallbackHandler, _hook):
        _kind = _hook.rpartition("_")[2]
        setattr(Empty, _hook, {"start": _start, "token": _token}.get(_kind, _end))


def _none() -> Peer:
    return Peer(NONE, [])


def _empty() -> Peer:
    return Peer(EMPTY, [Empty()])


def ours() -> Peer:
    meter = Meter()
    # Priced from the first call on: an unpriced call would be cheaper.
    meter.cost.prices.warm(wait=True)

    def counted() -> int:
        """Calls, once everything else that every call brings agrees with them."""
        totals = meter.snapshot().totals
        figures = {
            "ok": totals.outcomes["ok"],
            "latencies": totals.latency.count,
            "input tokens": totals.tokens.input // INPUT_TOKENS,
            "output tokens": totals.tokens.output // TOKENS,
            "priced": totals.priced_calls,
        }
        assert set(figures.values()) == {totals.calls}, f"{totals.calls} calls, but {figures}"
        assert not meter.snapshot().dropped, dict(meter.snapshot().dropped)
        return totals.calls

    return Peer(METER, [meter], counted)


def _usage() -> Peer:
    handler = UsageMetadataCallbackHandler()

    def counted() -> int:
        total = sum(usage["total_tokens"] for usage in handler.usage_metadata.values())
        return total // (INPUT_TOKENS + TOKENS)

    return Peer(USAGE, [handler], counted)


def _naive() -> Peer:
    from benches.naive import CostTracker, DefectCounter, LatencyList, StreamRecorder, TokenCounter

    handlers = [TokenCounter(), CostTracker(), LatencyList(), StreamRecorder(), DefectCounter()]

    def counted() -> int:
        (calls,) = {handler.calls for handler in handlers}
        return calls

    return Peer(NAIVE, [*handlers], counted)


def _prometheus() -> Peer:
    from benches.prometheus import PrometheusHandler

    handler = PrometheusHandler()
    return Peer("prometheus_client handler", [handler], lambda: handler.calls)


def _tracer_provider() -> tuple[Any, Callable[[], int]]:
    """A provider that samples every span and only counts the ended ones."""
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

    class Counting(SpanProcessor):
        ended = 0

        def on_end(self, span: ReadableSpan) -> None:
            self.ended += 1

    counting = Counting()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(counting)
    return provider, lambda: counting.ended


def _openinference() -> Peer:
    from openinference.instrumentation import OITracer, TraceConfig
    from openinference.instrumentation.langchain._tracer import OpenInferenceTracer

    provider, ended = _tracer_provider()
    tracer: Any = OITracer(provider.get_tracer("benches"), config=TraceConfig())
    return Peer("OpenInference", [OpenInferenceTracer(tracer, False)], ended)


def _openllmetry() -> Peer:
    from opentelemetry.instrumentation.langchain.callback_handler import TraceloopCallbackHandler
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider, ended = _tracer_provider()
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    meter = meters.get_meter("benches")
    handler = TraceloopCallbackHandler(
        provider.get_tracer("benches"),
        meter.create_histogram("gen_ai.client.operation.duration"),
        meter.create_histogram("gen_ai.client.token.usage"),
    )
    return Peer("OpenLLMetry", [handler], ended)


def _langfuse() -> Peer:
    from langfuse import Langfuse
    from langfuse.langchain import CallbackHandler
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider, ended = _tracer_provider()
    Langfuse(
        public_key="bench",
        secret_key="bench",
        base_url="http://127.0.0.1:9",
        tracer_provider=provider,
        span_exporter=Nowhere(),
    )
    return Peer("Langfuse", [CallbackHandler(public_key="bench")], ended)


_MAKERS: tuple[Callable[[], Peer], ...] = (
    _none,
    _empty,
    ours,
    _usage,
    _naive,
    _prometheus,
    _openinference,
    _openllmetry,
    _langfuse,
)


def peers() -> Iterator[Peer]:
    """Every peer that is installed."""
    # No other handler may come in by the environment, and no spans by it be lost.
    for variable in list(os.environ):
        if variable.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGFUSE_", "OTEL_", "TRACELOOP_")):
            del os.environ[variable]
    for maker in _MAKERS:
        try:
            yield maker()
        except ImportError as exc:
            logging.getLogger(__name__).warning("%s left out: %s", maker.__name__[1:], exc)
