"""The live page over a real connection."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langmeter import ConfigError, Meter, Snapshot
from langmeter._base.text import format_count
from langmeter.report import live
from langmeter.report.live.site import SPANS
from tests.support.days import Day, write_history
from tests.support.live import event


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def fetch(server: live.LiveServer, path: str) -> tuple[int, str]:
    """Status and text of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def events(server: live.LiveServer, path: str = "/events") -> Iterator[tuple[str, Any]]:
    """Events as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines: list[bytes] = []
    try:
        for line in answer:
            lines.append(line)
            if line == b"\n":
                if lines[0].startswith(b"event"):
                    yield event(b"".join(lines))
                lines = []
    finally:
        connection.close()


def test_it_serves_a_meter(meter: Meter) -> None:
    """The page, its events, metrics and the snapshot come from one port; no prompt is in them."""
    with live.start(meter, 0, title="<Prod>") as server:
        status, page = fetch(server, "/")
        assert status == 200
        assert "<h1>&lt;Prod&gt;</h1>" in page
        stream = events(server)
        name, whole = next(stream)
        assert name == "whole"
        assert whole["tables"]["models"][0][0] == "genericfakechatmodel/fake-1"
        assert next(stream)[0] == "frame"
        snapshot = fetch(server, "/snapshot.json")[1]
        assert Snapshot.from_json(snapshot).totals.calls == 1
        metrics = fetch(server, "/metrics")[1]
        assert "gen_ai_client_operation_duration" in metrics
        for path in ("/assets/page.js", "/assets/page.css", "/assets/icon.svg"):
            assert fetch(server, path)[0] == 200
        assert fetch(server, "/assets/..%2fview.py")[0] == 404
        assert fetch(server, "/events?span=7d")[0] == 400
        assert fetch(server, "/?span=7d")[0] == 400
        assert "secret" not in page + snapshot + metrics + json.dumps(whole)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("HEAD", "/events")
        head = connection.getresponse()
        assert (head.status, head.read()) == (200, b"")
        connection.request("GET", "/assets/icon.svg")  # the answer before had an end
        assert connection.getresponse().read().startswith(b"<svg")
        connection.close()
        site = server._site
        assert site.feeds[""].viewers == 1
        stream.close()  # type: ignore[attr-defined]
        asyncio.run(until(lambda: not site.feeds[""].viewers))
    server.close()


def test_a_server_ends_with_viewers(meter: Meter) -> None:
    """Closing sends viewers away; nothing waits for them."""
    server = live.start(meter, 0)
    stream = events(server)
    next(stream)
    server.close()
    assert all(name == "frame" for name, _ in stream)
    with pytest.raises(ConnectionRefusedError):
        fetch(server, "/")


def test_it_serves_spans_of_a_history(tmp_path: Path) -> None:
    """A history has links to spans, lines by time, and the sums of the span."""
    counted = write_history(tmp_path / "metrics.db", Day(3), range(90), 4)
    with live.start(tmp_path / "metrics.db", 0) as server:
        page = fetch(server, "/?span=all")[1]
        assert all(f'href="?span={name}"' in page for name in SPANS)
        assert page.count('aria-current="page"') == 1
        name, whole = next(events(server, "/events?span=all"))
        assert name == "whole"
        assert dict(whole["tiles"])["Calls"] == format_count(counted.totals.calls)
        assert {row[0]: row[5] for row in whole["tables"]["providers"]} == {
            name: format_count(stats.calls) for name, stats in counted.by("provider").items()
        }
        assert set(whole["charts"]) == {"calls", "tokens", "spending", "durations"}
        empty = next(events(server, "/events?span=1h"))[1]
        assert empty["tables"]["models"] == []


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    """They raise before anything listens."""
    for source, settings in (
        (Snapshot(), {"port": 70_000}),
        (Snapshot(), {"host": "0.0.0.0", "token": ""}),
        (3, {}),
    ):
        with pytest.raises(ConfigError):
            live.start(source, **{"port": 0, **settings})  # type: ignore[arg-type]
    with live.start(Snapshot(), 0) as server, pytest.raises(OSError, match="use"):
        live.start(Snapshot(), server.port)
