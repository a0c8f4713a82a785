"""Receivers of OTLP that keep whole requests, resources among them, over HTTP and gRPC."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as stubs


class Receiver:
    """Requests that came, and the status of the next answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.url = ""

    @property
    def last(self) -> dict[str, Any]:
        """Metrics of the last request, by name."""
        return metrics(self.requests[-1])

    def resources(self) -> list[dict[str, str]]:
        """Attributes of the process of each request."""
        return [
            {each.key: each.value.string_value for each in about.resource.attributes}
            for request in self.requests
            for about in request.resource_metrics
        ]


def metrics(request: Any) -> dict[str, Any]:
    """Metrics of a request, by name."""
    scopes = (scope for about in request.resource_metrics for scope in about.scope_metrics)
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def point(metric: Any, **attributes: str) -> Any:
    """The one point with these attributes; dots are written as `__`, "" is for one it lacks."""
    wanted = {name.replace("__", "."): text for name, text in attributes.items()}
    data = getattr(metric, metric.WhichOneof("data"))
    (only,) = [
        each
        for each in data.data_points
        if all(_attributes(each).get(name, "") == text for name, text in wanted.items())
    ]
    return only


def _attributes(data: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in data.attributes}


def quantile(data: Any, q: float) -> float:
    """A quantile as receivers interpolate it in exponential buckets."""
    rank, total = q * data.count, 0.0
    for place, count in enumerate(data.positive.bucket_counts):
        if count and total + count >= rank:
            index = data.positive.offset + place + (rank - total) / count
            return float(2 ** (index / 2**data.scale))
        total += count
    raise AssertionError("more buckets than counts")


@contextmanager
def over_http() -> Iterator[Receiver]:
    """A receiver of http/protobuf on loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.status == 200:
                assert self.path == "/v1/metrics"
                receiver.requests.append(service.ExportMetricsServiceRequest.FromString(body))
                receiver.headers.append(dict(self.headers))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def over_grpc() -> Iterator[Receiver]:
    """A receiver of gRPC on loopback, of the official service."""
    receiver = Receiver()

    class Service(stubs.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
            receiver.requests.append(request)
            receiver.headers.append(dict(context.invocation_metadata()))
            return service.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    stubs.add_MetricsServiceServicer_to_server(Service(), server)
    receiver.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
