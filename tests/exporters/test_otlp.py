"""OpenTelemetry: what real receivers of OTLP get, and what a dead one costs."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from langmeter import ConfigError, Snapshot, sources
from langmeter.exporters import semconv
from langmeter.exporters.otlp import OtlpExporter
from tests.support.receiver import Receiver, metrics, over_grpc, over_http, point, quantile
from tests.support.simulated import calls
from tests.support.traffic import Traffic

GPT = {"gen_ai__request__model": "gpt-4o"}
DURATION = "gen_ai.client.operation.duration"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with over_http() as receiver:
        yield receiver


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


async def test_a_receiver_gets_exponential_histograms() -> None:
    """oteltap: count, sum and percentiles within 1 % of the snapshot's, begin and end."""
    traffic = Traffic().everything(3000)
    snapshot = traffic.snapshot()
    port = _free_port()
    settings = OtelTapHttpProtobufReceiverSettings(http_port=port)
    async with OtelTapHttpProtobufReceiver(settings) as tap:
        wanted = asyncio.ensure_future(
            asyncio.gather(
                *(
                    tap.await_metric(lambda metric, name=name: metric.name == name, 20)  # type: ignore[misc]
                    for name in (DURATION, "langmeter.cost.usd", "gen_ai.client.token.usage")
                )
            )
        )
        await asyncio.sleep(0)
        with OtlpExporter(traffic, endpoint=f"http://127.0.0.1:{port}") as exporter:
            assert await asyncio.to_thread(exporter.flush)
        duration, cost, usage = await wanted
    latency = snapshot.models["openai", "gpt-4o"].latency
    assert duration.unit == "s"
    assert duration.exponential_histogram.aggregation_temporality == 2  # cumulative
    latency -= snapshot.models["openai", "gpt-4o"].failed_latency
    data = point(duration, **GPT, error__type="")
    assert (data.count, data.sum, data.scale, data.zero_count) == (latency.count, latency.sum, 5, 0)
    assert sum(data.positive.bucket_counts) == data.count
    assert (data.min, data.max) == (latency.min, latency.max)
    for q in (0.5, 0.95, 0.99):
        assert math.isclose(quantile(data, q), latency.quantile(q), rel_tol=0.01)
    assert data.start_time_unix_nano == snapshot._native.started_at
    assert abs(data.time_unix_nano / 1e9 - time.time()) < 60
    assert cost.sum.is_monotonic
    assert point(cost, **GPT).as_double == float(snapshot.models["openai", "gpt-4o"].cost or -1)
    tokens = point(usage, **GPT, gen_ai__token__type="input")
    stats = snapshot.models["openai", "gpt-4o"]
    assert (tokens.count, tokens.sum) == (stats.priced_calls, stats.tokens.input)
    assert (tokens.min, tokens.max) == pytest.approx((1000, 1000), rel=0.01)
    assert len(duration.SerializeToString()) < 4 * 1024


def test_grpc_carries_the_same_figures(receiver: Receiver) -> None:
    """Both protocols send the same metrics, points and values."""
    snapshot = Traffic().everything().snapshot()
    with over_grpc() as other:
        with OtlpExporter(snapshot, endpoint=other.url, protocol="grpc") as exporter:
            assert exporter.flush()
        with OtlpExporter(snapshot, endpoint=receiver.url) as exporter:
            assert exporter.flush()
        both = [each.requests[0].resource_metrics[0].scope_metrics[0] for each in (other, receiver)]
    for scope in both:
        for metric in scope.metrics:
            for each in getattr(metric, metric.WhichOneof("data")).data_points:
                each.time_unix_nano = 0
    assert repr(both[0]) == repr(both[1])  # texts: nan does not equal itself
    assert both[0].scope.name == "langmeter"


def test_every_number_is_that_of_prometheus(receiver: Receiver) -> None:
    """The two exporters name and count the same: one list of metrics feeds both."""
    from langmeter.exporters import prometheus

    snapshot = Traffic().everything().snapshot()
    with OtlpExporter(snapshot, endpoint=receiver.url, conventions="latest") as exporter:
        assert exporter.flush()
    names = {
        semconv.prometheus_label(metric.name) + ("_seconds" if metric.unit == "s" else "")
        for metric in receiver.last.values()
    }
    collected = {m.name for m in prometheus.collector(snapshot, conventions="latest").collect()}
    assert names - collected == {"langmeter_exports_dropped"}
    assert collected <= names


def test_unknown_usage_by_generation(receiver: Receiver) -> None:
    """Released: not reported. Latest: 0 with the modality "unknown", also of a failed call."""
    traffic = Traffic()
    traffic.call(usage=False)
    traffic.call(error="TimeoutError")
    with OtlpExporter(traffic, endpoint=receiver.url) as exporter:
        assert exporter.flush()
    assert "gen_ai.client.token.usage" not in receiver.last
    with OtlpExporter(traffic, endpoint=receiver.url, conventions="latest") as exporter:
        assert exporter.flush()
    name = "gen_ai.client.inference.usage.input_tokens"
    tokens = point(receiver.last[name], **GPT)
    modality = {pair.key: pair.value.string_value for pair in tokens.attributes}
    assert (tokens.as_int, modality["gen_ai.token.modality"]) == (0, "unknown")
    assert tokens.WhichOneof("value") == "as_int"


def test_counters_never_go_back_and_a_restart_begins_anew(receiver: Receiver) -> None:
    """Of the same recorder the begin stays; one that counts from zero has a later begin."""

    class Restarted:
        traffic = Traffic()

        def snapshot(self) -> Snapshot:
            return self.traffic.snapshot()

    source = Restarted()
    with OtlpExporter(source, endpoint=receiver.url) as exporter:
        for _ in range(3):
            source.traffic.call(seconds=1.0)
            assert exporter.flush()
        source.traffic = Traffic()
        source.traffic.call(seconds=1.0)
        assert exporter.flush()
    points = [point(metrics(each)[DURATION], **GPT) for each in receiver.requests]
    begins = [each.start_time_unix_nano for each in points]
    assert [each.count for each in points] == [1, 2, 3, 1, 1]
    assert begins[0] == begins[1] == begins[2] < begins[3] == begins[4]
    assert all(each.start_time_unix_nano <= each.time_unix_nano for each in points)


def test_a_receiver_that_refuses_costs_counted_drops(receiver: Receiver) -> None:
    """What was refused is in the next export, and how often, too."""
    traffic = Traffic()
    with OtlpExporter(traffic, endpoint=receiver.url) as exporter:
        receiver.status = 400
        traffic.call()
        assert not exporter.flush()
        assert not exporter.flush()
        assert (exporter.exported, exporter.dropped) == (0, 2)
        receiver.status = 200
        traffic.call()
        assert exporter.flush()
        assert point(receiver.last[DURATION], **GPT).count == 2
        assert point(receiver.last["langmeter.exports.dropped"]).as_int == 2
        assert repr(exporter) == "<OtlpExporter http/protobuf: 1 exported, 2 dropped>"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_dead_receiver_does_not_hold_up_the_caller(protocol: Any) -> None:
    """`flush` and `close` return at their time, and a closed exporter has no thread."""
    traffic = Traffic()
    traffic.call()
    endpoint = f"http://127.0.0.1:{_free_port()}"
    exporter = OtlpExporter(traffic, endpoint=endpoint, protocol=protocol, timeout=60)
    begun = time.monotonic()
    assert not exporter.flush(0.1)
    traffic.call()
    assert not exporter.close(0.1)
    assert time.monotonic() - begun < 5  # it would retry for a minute
    exporter._thread.join(10)  # type: ignore[union-attr]
    assert not exporter._thread.is_alive()  # type: ignore[union-attr]
    assert exporter.close() is False
    assert exporter.flush() is False


def test_it_exports_at_its_interval(receiver: Receiver) -> None:
    """Without a word from the program; a source that fails once is asked again."""
    answers: Iterator[Any] = iter([OSError("away"), *[calls([1.0])] * 1000])

    class Source:
        def snapshot(self) -> Snapshot:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    with OtlpExporter(Source(), endpoint=receiver.url, interval=0.1) as exporter:
        deadline = time.monotonic() + 30
        while len(receiver.requests) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert exporter.dropped == 1
    assert len(receiver.requests) >= 3


def test_headers_endpoint_and_resource(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments go before the variables of OpenTelemetry, which are read too."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=search")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment=test")
    with OtlpExporter(calls([1.0])) as exporter:
        assert exporter.flush()
    own = {"service.name": "fixer", "service.instance.id": "one"}
    endpoint = f"{receiver.url}/v1/metrics"
    with OtlpExporter(calls([1.0]), endpoint=endpoint, headers={"x-a": "b"}, resource=own):
        pass
    first, *_, last = receiver.resources()
    assert first["service.name"] == "shop"
    assert first["service.instance.id"].startswith(f"{socket.gethostname()}-{os.getpid()}-")
    assert (last["service.name"], last["service.instance.id"]) == ("fixer", "one")
    assert last["deployment.environment"] == "test"
    assert receiver.headers[0]["x-team"] == "search"
    assert receiver.headers[-1]["x-a"] == "b"


def test_arguments_are_refused() -> None:
    """Each error names the argument; no thread begins."""
    before = threading.active_count()
    for settings, message in (
        ({"endpoint": "localhost:4317"}, "endpoint must be a URL of http or https"),
        ({"endpoint": 4317}, "endpoint must be a URL of http or https"),
        ({"protocol": "http/json"}, "protocol must be one of 'http/protobuf', 'grpc'"),
        ({"interval": 0}, "interval must be seconds from 0.1"),
        ({"timeout": 0}, "timeout must be seconds from 0.1"),
        ({"conventions": "old"}, "conventions must be one of"),
    ):
        with pytest.raises(ConfigError, match=message):
            OtlpExporter(calls([1.0]), **settings)
    assert threading.active_count() == before


_PROGRAM = """
import multiprocessing, os, sys, time
from langmeter import Meter
from langmeter.exporters.otlp import OtlpExporter
from tests.support.models import chat_model

meter = Meter(prices=False)
OtlpExporter(meter, endpoint=sys.argv[1], protocol=sys.argv[3], interval=3600, timeout=60)

def work():
    chat_model().invoke("x", config={"callbacks": [meter]})

work()
if sys.argv[2] == "fork":
    children = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
    for child in children: child.start()
    for child in children: child.join()
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


@pytest.mark.process
def test_the_end_of_a_process_sends_its_last_figures(receiver: Receiver) -> None:
    """Forked children too, each as an instance of its own; no variable keeps the exporter."""
    done = _run(receiver.url, "fork", "http/protobuf")
    assert done.returncode == 0, done.stderr
    counts = [
        sum(each.count for each in metrics(request)[DURATION].exponential_histogram.data_points)
        for request in receiver.requests
    ]
    assert counts == [1, 1, 1]
    assert len({each["service.instance.id"] for each in receiver.resources()}) == 3


@pytest.mark.process
def test_the_end_of_a_process_sends_its_last_figures_over_grpc() -> None:
    """At the exit no thread can be started, and the connection is made all the same."""
    with over_grpc() as receiver:
        done = _run(receiver.url, "one", "grpc")
        assert (done.returncode, done.stderr) == (0, "")
        (request,) = receiver.requests
        assert point(metrics(request)[DURATION]).count == 1


@pytest.mark.process
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_end_of_a_process_does_not_hang_on_a_dead_receiver(protocol: str) -> None:
    """It waits for its 5 s and says what was lost, although the exporter would retry for 60."""
    begun = time.monotonic()
    done = _run(f"http://127.0.0.1:{_free_port()}", "one", protocol)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 40
    assert "the last figures were not accepted" in done.stderr


def test_a_page_is_a_source_too(receiver: Receiver) -> None:
    """An agent beside a process pushes what its page serves."""
    from langmeter.exporters import prometheus

    snapshot = calls([1.0, 2.0])
    with prometheus.start(0, snapshot, token="") as server:
        page = sources.open(f"{server.url}/snapshot.json")
        with OtlpExporter(page, endpoint=receiver.url) as exporter:
            assert exporter.flush()
    assert point(receiver.last[DURATION], **GPT).count == 2
