"""OpenTelemetry: the figures of a source, pushed to a receiver of OTLP every minute.

`pip install "langmeter[otlp]"` brings the official exporters. They block for as long as a receiver
is away, so that a thread of its own calls them; nothing is on the path of a call.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit
from weakref import WeakSet

from langmeter import sources
from langmeter._base.check import one_of, real_number, refusal
from langmeter._base.forks import at_fork, at_worker_end
from langmeter._base.log import log
from langmeter.exporters import semconv
from langmeter.exporters.families import Families, Family
from langmeter.exporters.semconv import Generation
from langmeter.snapshot import Snapshot
from langmeter.sources import Source

try:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
    from opentelemetry.sdk.resources import Resource

    from langmeter.exporters.metrics_data import metrics_data
except ImportError as error:
    raise ImportError('an OtlpExporter needs pip install "langmeter[otlp]"') from error

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

__all__ = ["OtlpExporter"]

Protocol: TypeAlias = Literal["http/protobuf", "grpc"]
_PROTOCOLS: Final = ("http/protobuf", "grpc")
_PATH: Final = "/v1/metrics"
_INSTANCE: Final = "service.instance.id"
#: Seconds that the end of the process waits for the last export.
EXIT_TIMEOUT: Final = 5.0


class _Request:
    """An export that is waited for."""

    def __init__(self, *, is_last: bool = False) -> None:
        self.is_last = is_last
        self.is_done = threading.Event()
        self.was_delivered = False


class OtlpExporter:
    """Sends the figures of a source to a receiver of OTLP, from a thread of its own.

    It begins at once, and goes on until `close()` or the end of the process, which sends the last
    figures and waits for at most 5 s. Figures are cumulative: an export that its receiver does not
    accept is counted in `dropped`, and the next one has its calls too. It is a context manager.

    Args:
        source: a meter, or any other source of `langmeter.sources.open`.
        endpoint: URL of the receiver: "http://localhost:4318" ("/v1/metrics" is added where a URL
            for http/protobuf has no path), "http://localhost:4317" for gRPC. None for that of
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT or localhost.
        protocol: "http/protobuf" or "grpc".
        interval: seconds between two exports, 0.1 to 86,400.
        timeout: seconds that an export may take with all of its retries, 0.1 to 600.
        headers: sent with each export, e.g. {"authorization": "Bearer …"}; None for those of
            OTEL_EXPORTER_OTLP_HEADERS.
        resource: attributes of the process beside those of OTEL_RESOURCE_ATTRIBUTES, e.g.
            {"service.name": "shop"}. Each process has a `service.instance.id` of its own.
        conventions: "released" or "latest" GenAI conventions; None for "latest" where
            OTEL_SEMCONV_STABILITY_OPT_IN has gen_ai_latest_experimental, else "released".

    Attributes:
        exported: exports that the receiver accepted.
        dropped: exports that it did not.

    Raises:
        ConfigError: an argument is not one of these.
        ImportError: the extra is not installed.
    """

    def __init__(
        self,
        source: Source,
        *,
        endpoint: str | None = None,
        protocol: Protocol = "http/protobuf",
        interval: float = 60.0,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        conventions: Generation | None = None,
    ) -> None:
        self._source = sources.open(source)
        self._protocol: Protocol = one_of("protocol", protocol, _PROTOCOLS)
        self._endpoint = None if endpoint is None else _address(endpoint, protocol)
        self._interval = real_number("interval", interval, 0.1, 86_400, unit="seconds")
        self._timeout = real_number("timeout", timeout, 0.1, 600, unit="seconds")
        self._headers = None if headers is None else dict(headers)
        self._new_exporter = _exporter_of(self._protocol)
        # The SDK's own instance is that of the process that imported it, in forked children too.
        variable = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._names_instance = _INSTANCE in variable or _INSTANCE in (resource or {})
        self._about = Resource.create(dict(resource or {}))
        self._families = Families(semconv.generation(conventions))
        self._closed = False
        self._client: MetricExporter | None = None
        self._begin_process()
        _exporters.add(self)

    def __repr__(self) -> str:
        return f"<OtlpExporter {self._protocol}: {self.exported} exported, {self.dropped} dropped>"

    def __enter__(self) -> OtlpExporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout: float = 10.0) -> bool:
        """Export now; returns whether the receiver accepted it within `timeout` seconds."""
        return self._wait(self._ask(is_last=False), timeout)

    def close(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Export once more, and end; returns whether that was accepted within `timeout` seconds.

        May be called again: it then returns False at once.
        """
        return self._wait(self._ask(is_last=True), timeout)

    def _ask(self, *, is_last: bool) -> _Request | None:
        """Return a request that its thread works on; None where there is no thread for it."""
        thread = self._thread
        if self._closed or thread is None or not thread.is_alive():
            return None
        request = _Request(is_last=is_last)
        self._closed = is_last
        self._requests.put(request)
        return request

    def _wait(self, request: _Request | None, timeout: float) -> bool:
        if request is None:
            return False
        is_done = request.is_done.wait(max(timeout, 0.0))
        if request.is_last:
            _exporters.discard(self)
            if not is_done:
                self._shut_down()
        return request.was_delivered

    def _shut_down(self) -> None:
        """End the retries of an export that goes on, and its connections."""
        client, self._is_over = self._client, True
        self._client = None
        if client is not None:
            with suppress(Exception):
                client.shutdown()

    # --- in the thread ----------------------------------------------------------------------------

    def _begin_process(self) -> None:
        """Begin, as in a forked child: it has neither the thread nor what was exported."""
        self.exported = self.dropped = 0
        self._last: Snapshot | None = None
        self._begin = 0
        self._client = None
        self._is_over = False
        instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        own = {} if self._names_instance else {_INSTANCE: instance}
        self._resource = self._about.merge(Resource(own))
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if self._closed:
            return
        thread = threading.Thread(target=self._work, name="langmeter-otlp", daemon=True)
        try:
            thread.start()
        except RuntimeError as problem:  # at the end of the interpreter, or out of threads
            log.warning("no thread for %r: %s", self, problem)
            return
        self._thread = thread

    def _work(self) -> None:
        requests, due = self._requests, monotonic() + self._interval
        while True:
            request = None
            with suppress(Empty):
                request = requests.get(timeout=max(due - monotonic(), 0.0))
            delivered = self._export()
            if due <= monotonic():
                due = max(due + self._interval, monotonic())
            if request is None:
                continue
            request.was_delivered = delivered
            request.is_done.set()
            if request.is_last:
                self._shut_down()
                return

    def _export(self) -> bool:
        if self._is_over:
            return False
        try:
            client = self._client or self._new_client()
            self._client = client
            result = client.export(self._message(), timeout_millis=self._timeout * 1000)
            delivered = result is MetricExportResult.SUCCESS
        except Exception as problem:  # of the source, or of the exporter: the thread goes on
            log.warning("%r: %s", self, problem)
            delivered = False
        self.exported += delivered
        self.dropped += not delivered
        return delivered

    def _message(self) -> MetricsData:
        snapshot = self._source.snapshot()
        families = self._families.of(snapshot)
        families.append(Family(semconv.EXPORTS_DROPPED, [((), self.dropped)]))
        return metrics_data(families, self._began(snapshot), time_ns(), self._resource)

    def _began(self, snapshot: Snapshot) -> int:
        """Return the begin of the counters: a later one where the source counts from zero again."""
        last, self._last = self._last, snapshot
        begin = snapshot._native.started_at or time_ns()
        if last is None:
            self._begin = begin
        else:
            try:
                _ = snapshot - last
            except ValueError:  # of another recorder, or less was counted than before
                self._begin = max(begin, last._native.taken_at, self._begin + 1)
        return self._begin

    def _new_client(self) -> MetricExporter:
        settings: dict[str, Any] = {"timeout": self._timeout}
        if self._endpoint is not None:
            settings["endpoint"] = self._endpoint
        if self._headers is not None:
            settings["headers"] = self._headers
        return self._new_exporter(**settings)


def _exporter_of(protocol: Protocol) -> Callable[..., MetricExporter]:
    """Return the official exporter; not at the first export, which may be that of the exit.

    Its modules start threads when they are imported, and at the exit none can be started.
    """
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as by_grpc

        return by_grpc.OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as by_http

    return by_http.OTLPMetricExporter


def _address(endpoint: str, protocol: Protocol) -> str:
    allowed = "a URL of http or https, e.g. http://localhost:4318"
    try:
        parts = urlsplit(endpoint)
    except (ValueError, AttributeError, TypeError):
        raise refusal("endpoint", allowed, endpoint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refusal("endpoint", allowed, endpoint)
    if protocol == "grpc" or parts.path not in ("", "/"):
        return endpoint
    return parts._replace(path=_PATH).geturl()


#: Exporters that are not closed; each is held by its thread.
_exporters: Final[WeakSet[OtlpExporter]] = WeakSet()


def _close_all() -> None:
    """Close every exporter at the end of the process, all within the same time."""
    deadline = monotonic() + EXIT_TIMEOUT
    requests = [(exporter, exporter._ask(is_last=True)) for exporter in list(_exporters)]
    for exporter, request in requests:
        if request is not None and not exporter._wait(request, deadline - monotonic()):
            log.warning("%r: the last figures were not accepted", exporter)


def _begin_all() -> None:
    for exporter in list(_exporters):
        exporter._begin_process()


atexit.register(_close_all)
at_worker_end(_close_all)
at_fork(after_in_child=_begin_all)
