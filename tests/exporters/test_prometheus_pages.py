"""Pages with metrics: the server, the ASGI application, tokens and sources that are away."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from langmeter import ConfigError, Meter, Snapshot, sources
from langmeter.exporters import prometheus
from tests.support.exposition import samples_of, scraped
from tests.support.models import chat_model


def test_a_source_that_is_away_costs_the_host_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The metrics of the host itself are served; the log says what is missing."""
    registry = CollectorRegistry(auto_describe=True)
    Counter("own", "Of the host.", registry=registry)
    registry.register(prometheus.collector("http://127.0.0.1:1/snapshot.json"))
    assert caplog.messages == []
    assert {name for name, _ in samples_of(parse_text(generate_latest(registry).decode()))} == {
        "own_total",
        "own_created",
    }
    assert "cannot be read: Connection refused" in caplog.messages[0]


def _get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_a_server_serves_metrics_and_the_snapshot(snapshot: Snapshot) -> None:
    """`langmeter.sources` reads `/snapshot.json` back without loss."""
    with prometheus.start(0, snapshot) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        status, headers, body = _get(f"{server.url}/metrics")
        assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
        assert samples_of(parse_text(body.decode())) == scraped(snapshot)
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        _, headers, body = _get(f"{server.url}/metrics", Accept=accept)
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")
        assert sources.read(f"{server.url}/snapshot.json") == snapshot
        assert _get(f"{server.url}/other")[0] == 404
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server.url}/metrics", timeout=1)


def test_a_token_guards_the_pages(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the token there is neither page; `LANGMETER_TOKEN` serves both sides."""
    with prometheus.start(0, snapshot, token="s3cret") as server:
        url = f"{server.url}/snapshot.json"
        assert _get(url)[0] == 401
        assert _get(url, Authorization="Bearer other")[0] == 401
        assert _get(url, Authorization="Basic s3cret")[0] == 401
        assert _get(f"{server.url}/metrics")[1]["WWW-Authenticate"] == "Bearer"
        assert _get(url, Authorization="bearer s3cret")[0] == 200
        monkeypatch.setenv(sources.TOKEN, "s3cret")
        assert sources.read(url) == snapshot
    with prometheus.start(0, snapshot) as server:
        assert _get(f"{server.url}/metrics")[0] == 401
    with prometheus.start(0, snapshot, token="") as server:
        assert _get(f"{server.url}/metrics")[0] == 200


def test_a_source_that_is_away_is_an_unavailable_page() -> None:
    """The scrape fails, with a status and without a traceback."""
    with prometheus.start(0, "http://127.0.0.1:1/snapshot.json") as server:
        assert _get(f"{server.url}/metrics")[0] == 503


def test_arguments_are_refused_with_a_remedy(snapshot: Snapshot) -> None:
    """Each error names the argument."""
    for call, message in (
        (lambda: prometheus.start(-1, snapshot), "port must be a whole number"),
        (lambda: prometheus.start(0, snapshot, native_schema=8), "native_schema must be one of 3"),
        (lambda: prometheus.asgi_app(7), "source must be a meter"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_a_history_serves_the_sum_of_many_processes(tmp_path: Path) -> None:
    """Workers behind one port write a history, and one page has all of them."""
    database = tmp_path / "metrics.db"
    for _ in range(3):
        meter = Meter(history=database, prices=False)
        chat_model().invoke("x", config={"callbacks": [meter]})
        assert meter.close() is None
    samples = scraped(database)
    calls = [value for (name, labels), value in samples.items() if name == "langmeter_calls_total"]
    assert sum(calls) == 3


async def _request(app: Any, path: str, method: str = "GET", root: str = "") -> tuple[int, bytes]:
    messages: list[dict[str, Any]] = []
    scope = {"type": "http", "method": method, "path": path, "root_path": root, "headers": []}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], b"".join(each.get("body", b"") for each in messages[1:])


async def test_an_asgi_application_serves_the_pages(snapshot: Snapshot) -> None:
    """Alone or mounted under a path, in any ASGI server."""
    app = prometheus.asgi_app(snapshot)
    for path, root in (("/metrics", ""), ("/meter/metrics", "/meter"), ("/metrics/", "/metrics")):
        status, body = await _request(app, path, root=root)
        assert status == 200
        assert samples_of(parse_text(body.decode())) == scraped(snapshot)
    status, body = await _request(app, "/snapshot.json")
    assert (status, Snapshot.from_dict(json.loads(body))) == (200, snapshot)
    assert await _request(app, "/metrics", "HEAD") == (200, b"")
    assert (await _request(app, "/metrics", "POST"))[0] == 405
    for path in ("/favicon.ico", "/users/metrics", "/metrics/snapshot.json"):
        assert (await _request(app, path))[0] == 404


async def test_an_asgi_application_closes_websockets(snapshot: Snapshot) -> None:
    """Mounted at "/", it is what answers those that no route takes."""
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        messages.append(message)

    await prometheus.asgi_app(snapshot)({"type": "websocket", "path": "/"}, receive, send)
    assert messages == [{"type": "websocket.close"}]


async def test_an_asgi_application_answers_its_lifespan(snapshot: Snapshot) -> None:
    """A server that runs it alone starts and ends without a warning."""
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(events)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    await prometheus.asgi_app(snapshot)({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_pages_are_read_while_calls_go_on() -> None:
    """Scrapes from several threads each see whole families."""
    meter = Meter()
    app = prometheus.asgi_app(meter)

    async def scrape() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(_request(app, "/metrics") for _ in range(20)))

    assert {status for status, _ in asyncio.run(scrape())} == {200}
