"""A service for servers with several workers: `/ask` makes a call, `/metrics` answers for all."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app

from langmeter import Meter
from langmeter.exporters import prometheus
from tests.support.models import chat_model

meter = Meter(directory=os.environ["WORKERS_DIRECTORY"])
_metrics = prometheus.asgi_app(meter, token="")
_registry = CollectorRegistry()
_registry.register(prometheus.collector(meter))
_wsgi_metrics = make_wsgi_app(_registry)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The service of gunicorn."""
    if environ["PATH_INFO"] != "/ask":
        return _wsgi_metrics(environ, start_response)
    chat_model().invoke("hi", config={"callbacks": [meter]})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """The service of uvicorn."""
    if scope["type"] != "http" or scope["path"] != "/ask":
        await _metrics(scope, receive, send)
        return
    await chat_model().ainvoke("hi", config={"callbacks": [meter]})
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
