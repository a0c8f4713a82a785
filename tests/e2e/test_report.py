"""The HTML report in a real browser: no error, no request, no sideways scroll, accessible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langmeter.report.html import report
from tests.e2e.conftest import HERE
from tests.support.days import Day, traffic, write_history

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.e2e

AXE = HERE / "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a day of minutes, compared with a slower hour."""
    folder = tmp_path_factory.mktemp("report")
    write_history(folder / "metrics.db", Day(12), range(1440), 6)
    slower = Day(12, seed=2, slower=1.5)
    for minute in range(600, 660):
        slower.minute(traffic(minute, 20))
    path = folder / "report.html"
    path.write_text(report(folder / "metrics.db", slower.snapshot()), encoding="utf-8")
    return path


class View:
    """A page that is open, with what went wrong on it and what it asked for."""

    def __init__(self, chromium: Browser, path: Path, **settings: Any) -> None:
        self.context = chromium.new_context(**settings)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.path = path

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.errors == []
        assert self.requests == [self.path.as_uri()]


SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_without_error_or_request(
    chromium: Browser, page: Path, size: str, scheme: str
) -> None:
    """There is no console message, no request but for the file, and no sideways scroll."""
    with View(chromium, page, viewport=SIZES[size], color_scheme=scheme) as view:
        assert view.page.locator(".chart.drawn canvas").count() == 6
        width, inner = view.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= inner


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_accessible(chromium: Browser, page: Path, size: str, scheme: str) -> None:
    """axe, the auditor of accessibility, finds no violation of WCAG 2.2 A and AA."""
    with View(chromium, page, viewport=SIZES[size], color_scheme=scheme) as view:
        view.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
        view.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = view.page.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
            " 'best-practice']})"
        )
        violations = [
            (
                violation["id"],
                violation["nodes"][0]["html"],
                violation["nodes"][0]["failureSummary"],
            )
            for violation in found["violations"]
        ]
        assert violations == []
        assert len(found["passes"]) > 20


def test_arrow_keys_read_the_lines(chromium: Browser, page: Path) -> None:
    """By keyboard a reader reaches a chart, and each step says where it is and what is there."""
    with View(chromium, page, viewport=SIZES["desktop"]) as view:
        chart = view.page.locator(".chart").first
        chart.focus()
        for key in ("End", "Home", "ArrowRight", "ArrowRight"):
            chart.press(key)
        box = view.page.locator(".lines").first
        assert box.locator(".at").inner_text() == "2026-10-14 00:04 UTC"
        outputs = box.locator("output").all_inner_texts()
        assert all(text and text != "–" for text in outputs)
        assert str(chart.get_attribute("aria-label")).startswith("Throughput: calls a minute")


def test_it_is_whole_without_scripts(chromium: Browser, page: Path) -> None:
    """With scripts off each chart is a drawing of its lines."""
    with View(chromium, page, viewport=SIZES["phone"], java_script_enabled=False) as view:
        drawings = view.page.locator(".chart > svg")
        assert drawings.count() == 6
        boxes = [drawings.nth(n).bounding_box() for n in range(6)]
        assert all(box is not None and 100 < box["height"] < box["width"] < 390 for box in boxes)


def test_it_prints_drawings_and_all_rows(chromium: Browser, page: Path) -> None:
    """On paper the lines are drawings, and what opens on demand is open."""
    with View(chromium, page, viewport=SIZES["desktop"], color_scheme="dark") as view:
        view.page.emulate_media(media="print")
        assert view.page.locator(".uplot").first.is_hidden()
        assert view.page.locator(".chart > svg").first.is_visible()
        assert view.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        view.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert view.page.locator("details:not([open])").count() == 0
