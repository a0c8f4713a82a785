"""The live page in a real browser, under load: figures, narrow screens, a server that dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langmeter._base.text import format_count, format_usd
from langmeter.exporters import prometheus
from langmeter.report import live
from langmeter.snapshot import Snapshot
from tests.e2e.conftest import HERE
from tests.support.days import Day, write_history
from tests.support.load import MODELS, Load

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

AXE = HERE / "node_modules/axe-core/axe.min.js"
SIZES: dict[str, Any] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Calls that go on while the tests look."""
    with Load() as running:
        yield running


class View:
    """A page that is open, with what went wrong on it and what it asked for."""

    def __init__(self, chromium: Browser, url: str, **settings: Any) -> None:
        self.context = chromium.new_context(**settings)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.origin = url.partition("?")[0]
        self.page.goto(url)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert [url for url in self.requests if not url.startswith(self.origin)] == []

    def shows(self, text: str) -> None:
        """Wait until the status says so."""
        self.page.wait_for_function(
            "text => document.getElementById('status').textContent === text",
            arg=text,
            timeout=30_000,
        )

    def rows(self, name: str) -> dict[str, list[str]]:
        """The cells of a table by the names of its rows."""
        rows = self.page.locator(f"#{name} tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def server(load: Load) -> Iterator[live.LiveServer]:
    """The page of the meter that the calls go through."""
    with live.start(load.meter, 0) as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_moves_without_error_or_request_elsewhere(
    chromium: Browser, server: live.LiveServer, size: str, scheme: str
) -> None:
    """There is no console message, no request to another server, and no sideways scroll."""
    with View(chromium, server.url, viewport=SIZES[size], color_scheme=scheme) as view:
        view.shows("live")
        # The lines of costs come with the first call that has a price.
        view.page.wait_for_function("() => document.querySelectorAll('.chart canvas').length === 4")
        first = view.page.locator("#at").inner_text()
        view.page.wait_for_function("text => at.textContent !== text", arg=first)
        assert view.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert view.errors == []


def test_it_shows_the_figures_of_the_meter(chromium: Browser, load: Load) -> None:
    """Once the calls have stopped, each cell is the figure of the snapshot."""
    with Load(3) as own:
        server = live.start(own.meter, 0)
        with View(chromium, server.url, viewport=SIZES["desktop"]) as view:
            view.shows("live")
            time.sleep(3)
            own.__exit__()
            expected = own.meter.snapshot()
            view.page.wait_for_function(
                "n => [...document.querySelectorAll('#providers tbody tr')].reduce((sum, row) =>"
                " sum + Number(row.cells[5].textContent.replaceAll(',', '')), 0) === n",
                arg=expected.totals.calls,
                timeout=10_000,
            )
            rows = view.rows("models")
            for (provider, model), stats in expected.models.items():
                name = "/".join(filter(None, (provider, model)))
                assert rows[name][5] == format_count(stats.calls)
                assert rows[name][7].removeprefix("≥ ") == format_usd(stats.cost)
            assert len(rows) >= len(MODELS)
            teams = {name: row[4] for name, row in view.rows("label-1").items()}
            assert teams == {
                name: format_count(stats.calls) for name, stats in expected.by("team").items()
            }
            assert set(view.rows("budgets")) == {"search, hourly", "all, daily", "tokens, daily"}
            assert view.rows("circuits")["nim"][1] == "open"
            assert view.rows("streams")["openai/o4-mini"][0] == "stalled"
            defects = {name: row[4] for name, row in view.rows("defects").items()}
            assert sum(int(n) for n in defects.values()) == sum(
                stats.attempts for stats in expected.defects.values()
            )
            with urllib.request.urlopen(f"{server.url}snapshot.json") as answer:
                assert Snapshot.from_json(answer.read()).totals.calls == expected.totals.calls
        server.close()


def test_a_reader_clicks_through(chromium: Browser, server: live.LiveServer) -> None:
    """Each link of the contents leads to its part; Pause stops the figures until Go on."""
    with View(chromium, server.url, viewport=SIZES["desktop"]) as view:
        view.shows("live")
        links = view.page.locator("nav[aria-label=Contents] a")
        names = [
            str(href).removeprefix("#")
            for href in links.evaluate_all("links => links.map(link => link.getAttribute('href'))")
        ]
        assert {"now", "alerts", "budgets", "circuits", "streams", "models", "defects"} <= set(
            names
        )
        for number, name in enumerate(names):
            links.nth(number).click()
            view.page.wait_for_function(
                "id => { const top = document.getElementById(id).getBoundingClientRect().top;"
                " return 0 <= top && top < innerHeight; }",
                arg=name,
            )
        view.page.get_by_role("button", name="Pause").click()
        view.shows("paused")
        at = view.page.locator("#at").inner_text()
        time.sleep(2.5)
        assert view.page.locator("#at").inner_text() == at
        view.page.get_by_role("button", name="Go on").click()
        view.shows("live")
        view.page.wait_for_function("text => at.textContent !== text", arg=at)
        chart = view.page.locator(".chart").first
        chart.focus()
        chart.press("End")
        assert view.page.locator(".lines output").first.inner_text() not in ("", "–")
        assert view.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_accessible(
    chromium: Browser, server: live.LiveServer, size: str, scheme: str
) -> None:
    """axe, the auditor of accessibility, finds no violation of WCAG 2.2 A and AA."""
    settings: Any = {"viewport": SIZES[size], "color_scheme": scheme, "bypass_csp": True}
    context = chromium.new_context(**settings)
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector("#models tbody tr")
    page.get_by_role("button", name="Pause").click()
    page.evaluate(AXE.read_text(encoding="utf-8"))
    result = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']})"
    )
    violations = [
        (each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"])
        for each in result["violations"]
    ]
    context.close()
    assert violations == []
    assert len(result["passes"]) > 20


class Served:
    """`langmeter serve` as a process, on one port however often it is started."""

    def __init__(self, source: str, *options: str, **environment: str) -> None:
        self._command = [sys.executable, "-m", "langmeter", "serve", source, *options]
        self._environment = {**os.environ, **environment}
        self.line = ""

    def start(self, port: int = 0) -> str:
        """Start it; returns its address."""
        self.process = subprocess.Popen(
            [*self._command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        match = re.search(r"serving (http://\S+?)(,|\s|$)", self.line)
        assert match, self.line + str(self.process.stderr and self.process.stderr.read())
        return match[1]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> str:
        """End it by a signal; returns what it printed besides."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=20)
        return output + errors


def test_the_page_outlives_its_server(chromium: Browser, load: Load) -> None:
    """While the server is gone the page says so; once it is back the figures move again."""
    with (
        prometheus.start(0, load.meter) as source,
        Served(f"{source.url}/snapshot.json") as served,
    ):
        url = served.start()
        port = int(url.rpartition(":")[2].strip("/"))
        with View(chromium, url, viewport=SIZES["desktop"]) as view:
            view.shows("live")
            assert view.rows("budgets")
            served.end(signal.SIGKILL)
            view.shows("disconnected")
            assert "The server does not answer." in view.page.locator("#problem").inner_text()
            assert view.rows("models")  # those of before are there still
            at = view.page.locator("#at").inner_text()
            served.start(port)
            view.shows("live")
            view.page.wait_for_function("text => at.textContent !== text", arg=at)
            assert view.page.locator("#problem").is_hidden()
            source.close()
            view.shows("the source does not answer")
            assert "cannot be read" in view.page.locator("#problem").inner_text()
        assert served.end(signal.SIGINT) == ""
        assert served.process.returncode == 0


def test_the_token_is_in_no_address(chromium: Browser, tmp_path: Path) -> None:
    """The address that is printed leads to one without the token, also in the browser's history."""
    (tmp_path / "snapshot.json").write_text(Day(3).snapshot().to_json())
    with (
        Served(str(tmp_path / "snapshot.json"), "--host", "0.0.0.0") as served,
        Served(str(tmp_path / "snapshot.json"), LANGMETER_TOKEN="another-long-token") as other,
    ):
        url = served.start()
        token = url.partition("token=")[2]
        assert len(token) >= 32
        local = re.sub(r"//[^:/]+:", "//127.0.0.1:", url)
        view = View(chromium, local, viewport=SIZES["desktop"])
        view.shows("live")
        assert view.page.url == local.partition("?")[0]
        assert view.page.evaluate("document.cookie") == ""
        assert view.page.evaluate("history.length") <= 2
        assert view.page.evaluate("document.referrer") == ""
        cookie = view.context.cookies()[0]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Lax"
        assert token not in json.dumps(view.context.cookies())
        served.end(signal.SIGTERM)
        # With another token the page asks for it.
        port = int(view.page.url.rpartition(":")[2].strip("/"))
        other.start(port)
        view.page.wait_for_function(
            "() => document.getElementById('problem').textContent.includes('wants its token')",
            timeout=30_000,
        )
        view.page.reload()
        view.page.fill("#token", "wrong")
        view.page.get_by_role("button", name="Open").click()
        assert "not the token" in view.page.locator("[role=alert]").inner_text()
        view.page.fill("#token", "another-long-token")
        view.page.get_by_role("button", name="Open").click()
        view.shows("live")
        view.context.close()
        assert "another-long-token" not in other.end(signal.SIGINT)


def test_a_history_has_spans_of_time(chromium: Browser, tmp_path: Path) -> None:
    """A reader goes from span to span; each has the sums of its time."""
    counted = write_history(tmp_path / "metrics.db", Day(4), range(600, 720), 5)
    with (
        live.start(tmp_path / "metrics.db", 0) as server,
        View(chromium, server.url, viewport=SIZES["phone"]) as view,
    ):
        view.shows("up to date")
        view.page.get_by_role("link", name="all", exact=True).click()
        view.shows("up to date")
        assert view.page.url.endswith("?span=all")
        calls = view.page.locator("#tiles dd").first.inner_text()
        assert calls == format_count(counted.totals.calls)
        assert view.page.locator(".chart.drawn canvas").count() == 4
        assert view.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert view.errors == []
