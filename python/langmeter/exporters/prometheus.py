"""Prometheus: a collector for any registry, and pages for its scrapes.

`pip install "langmeter[prometheus]"` brings `prometheus_client`. Metrics are made of a snapshot at
each scrape; nothing is counted twice, and nothing is on the path of a call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from langmeter import sources
from langmeter._base.check import whole_number
from langmeter._base.log import log
from langmeter.exporters import semconv
from langmeter.exporters.families import Families
from langmeter.exporters.semconv import Generation
from langmeter.sources import Source

try:
    from langmeter.exporters.metrics import SnapshotCollector
    from langmeter.exporters.pages import Pages
except ImportError as error:
    raise ImportError('metrics for Prometheus need pip install "langmeter[prometheus]"') from error

__all__ = ["MetricsServer", "SnapshotCollector", "asgi_app", "collector", "start"]

_Message: TypeAlias = "MutableMapping[str, Any]"
AsgiApp: TypeAlias = (
    "Callable[[_Message, Callable[[], Awaitable[_Message]],"
    " Callable[[_Message], Awaitable[None]]], Awaitable[None]]"
)


def collector(source: Source, *, conventions: Generation | None = None) -> SnapshotCollector:
    """Return a collector: `registry.register(collector(meter))`.

    Args:
        source: a meter, or any other source of `langmeter.sources.open`.
        conventions: "released" or "latest" GenAI conventions; None for "latest" where
            OTEL_SEMCONV_STABILITY_OPT_IN has gen_ai_latest_experimental, else "released".

    Raises:
        ConfigError: the source or the conventions are unknown.
    """
    families = Families(semconv.generation(conventions))
    return SnapshotCollector(sources.open(source), families)


def asgi_app(
    source: Source,
    *,
    native_schema: int | None = None,
    token: str | None = None,
    conventions: Generation | None = None,
) -> AsgiApp:
    """Return an ASGI application with `/metrics` and `/snapshot.json`.

    `app.mount("/", asgi_app(meter))`, after the routes of the application: what none of them takes
    is answered 404. Under another path the pages are below it, and the path itself is `/metrics`.

    Args:
        source: a meter, or any other source of `langmeter.sources.open`.
        native_schema: 3, 4 or 5 also writes native histograms of this schema for scrapers that
            accept the protobuf exposition. Such a server keeps no classic buckets, unless told to.
            None writes classic ones alone.
        token: a request must have `Authorization: Bearer TOKEN`. None for that of the variable
            LANGMETER_TOKEN; "" for none.
        conventions: as of `collector`.

    Raises:
        ConfigError: an argument is not one of these.
    """
    pages = Pages(source, native_schema, token, conventions)

    async def app(
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        asked_for = (scope["method"], path, headers.get(b"accept", ""))
        authorization = headers.get(b"authorization", "")
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(None, pages.answer, *asked_for, authorization)
        length = ("content-length", str(len(answer.body)))
        fields = (("content-type", answer.content_type), length, *answer.headers)
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
        begin = {"type": "http.response.start", "status": answer.status, "headers": encoded}
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send(begin)
        await send({"type": "http.response.body", "body": body})

    return app


class MetricsServer:
    """Server of the pages of a source, in a thread; made by `start`, and a context manager.

    Attributes:
        url: address of its pages, e.g. "http://127.0.0.1:9464".
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        host, port = server.server_address[:2]
        self.url = f"http://{host!s}:{port}"
        name = "langmeter-metrics"
        self._thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return self._server.server_address[1]

    def close(self) -> None:
        """End the server; may be called again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    port: int,
    source: Source,
    host: str = "127.0.0.1",
    *,
    native_schema: int | None = None,
    token: str | None = None,
    conventions: Generation | None = None,
) -> MetricsServer:
    """Serve `/metrics` and `/snapshot.json` from a thread of this process.

    Args:
        port: to listen on; 0 for a free one, which `port` of the server then is.
        source: as of `asgi_app`.
        host: address to listen on; "0.0.0.0" lets other hosts scrape: set a token then.
        native_schema: as of `asgi_app`.
        token: as of `asgi_app`.
        conventions: as of `asgi_app`.

    Raises:
        ConfigError: an argument is not one of these.
        OSError: the port is taken.
    """
    whole_number("port", port, 0, 65_535)
    pages = Pages(source, native_schema, token, conventions)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # seconds that a connection may be silent

        def _respond(self) -> None:
            path, header = self.path.partition("?")[0], self.headers.get
            answer = pages.answer(
                self.command, path, header("Accept", ""), header("Authorization", "")
            )
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = _respond  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            log.debug(format, *arguments)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    return MetricsServer(Server((host, port), Handler))
