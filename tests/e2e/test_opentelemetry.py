"""Real receivers of OTLP: what they answer is what the snapshot says."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest

from langmeter import Snapshot
from langmeter.exporters.otlp import OtlpExporter
from langmeter.exporters.semconv import DURATION, Generation
from tests.e2e.servers import Queries, collector, until, victoria_metrics
from tests.support.receiver import over_http, point, quantile
from tests.support.traffic import Traffic

pytestmark = pytest.mark.e2e

GPT = 'gen_ai_request_model="gpt-4o"'


@pytest.mark.parametrize("generation", ["released", "latest"])
def test_victoria_metrics_answers_as_the_snapshot(tmp_path: Path, generation: Generation) -> None:
    """Counts, money and tokens are equal; percentiles are within 1 %."""
    traffic = Traffic().everything(3000)
    snapshot = traffic.snapshot()
    with victoria_metrics(tmp_path) as ask:
        endpoint = f"{ask.url}/opentelemetry/v1/metrics"
        with OtlpExporter(snapshot, endpoint=endpoint, conventions=generation) as exporter:
            assert exporter.flush()
        urlopen(f"{ask.url}/internal/force_flush", timeout=10).close()
        name = DURATION[generation].prometheus_name
        until(lambda: ask(f"{name}_count{{{GPT}}}"))
        _check(ask, snapshot, name, generation)


def _check(ask: Queries, snapshot: Snapshot, name: str, generation: Generation) -> None:
    stats = snapshot.models["openai", "gpt-4o"]
    input_tokens = f'gen_ai_client_token_usage_sum{{{GPT}, gen_ai_token_type="input"}}'
    if generation == "latest":
        input_tokens = f"gen_ai_client_inference_usage_input_tokens_total{{{GPT}}}"
    for query, expected in (
        (f"{name}_count{{{GPT}}}", stats.calls),
        (f"langmeter_cost_usd_total{{{GPT}}}", float(stats.cost or 0)),
        (f'langmeter_calls_total{{{GPT}, langmeter_outcome="error"}}', stats.errors),
        (input_tokens, stats.tokens.input),
        ('langmeter_defects_fixed{langmeter_defect_type="leak"}', 2),
        ("langmeter_exports_dropped_total", 0),
    ):
        (value,) = ask(f"sum({query})").values()
        assert value == pytest.approx(expected), query
    for q in (0.5, 0.95, 0.99):
        buckets = f"sum by (vmrange) ({name}_bucket{{{GPT}}})"
        (value,) = ask(f"histogram_quantile({q}, {buckets})").values()
        assert value == pytest.approx(stats.latency.quantile(q), rel=0.01)


def test_a_collector_forwards_what_came_over_grpc(tmp_path: Path) -> None:
    """Exponential histograms arrive whole, their percentiles within 1 % of the snapshot's."""
    snapshot = Traffic().everything(3000).snapshot()
    latency = snapshot.models["openai", "gpt-4o"].latency
    with (
        over_http() as receiver,
        collector(receiver.url, tmp_path) as endpoint,
        OtlpExporter(snapshot, endpoint=endpoint, protocol="grpc") as exporter,
    ):
        assert exporter.flush()
        until(lambda: receiver.requests)
        model = {"gen_ai__request__model": "gpt-4o"}
        data = point(receiver.last["gen_ai.client.operation.duration"], **model)
        assert (data.count, data.sum, data.scale) == (latency.count, latency.sum, 5)
        for q in (0.5, 0.95, 0.99):
            assert quantile(data, q) == pytest.approx(latency.quantile(q), rel=0.01)
        cost = point(receiver.last["langmeter.cost.usd"], **model)
        assert cost.as_double == float(snapshot.models["openai", "gpt-4o"].cost or -1)
