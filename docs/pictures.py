"""Draws the pictures of the pages from what the commands really print: `make pictures`."""

from __future__ import annotations

import io
import re
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from tests.support.browser import browser  # noqa: E402
from tests.support.days import Day, traffic, write_history  # noqa: E402
from tests.support.load import Load  # noqa: E402
from tests.support.pages import Page, run, run_program  # noqa: E402

from langmeter import Snapshot  # noqa: E402
from langmeter.report import live  # noqa: E402
from langmeter.report.html import report  # noqa: E402
from langmeter.report.recent import Recent  # noqa: E402
from langmeter.report.top import figures  # noqa: E402
from langmeter.report.top.screen import Screen  # noqa: E402
from langmeter.snapshot import BudgetState, CircuitState, OriginState, State  # noqa: E402

#: Picture → the page whose program makes the files, and the beginning of the command.
PICTURES = {
    "bottlenecks": ("docs/guides/performance.md", "langmeter bottlenecks"),
    "compare": ("docs/guides/performance.md", "langmeter compare"),
    "demo": (None, "langmeter demo --calls 200 --concurrency 32"),
}


def draw(name: str, command: str, folder: Path) -> None:
    """Run a command and save what it prints as docs/images/NAME.svg."""
    printed = run(command, folder).stdout.rstrip()
    width = max(map(len, printed.splitlines()))
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text(printed))
    drawn = console.export_svg(title=command)
    # The reader's own font, if it is there, and no request to a server.
    drawn = re.sub(r'(src: local\("[^"]+"\)),[^;]+;', r"\1;", drawn)
    (DOCS / "images").mkdir(exist_ok=True)
    (DOCS / "images" / f"{name}.svg").write_text(drawn, encoding="utf8")


def photograph_report() -> None:
    """Save the beginning of a report of a day as docs/images/report.png."""
    with tempfile.TemporaryDirectory() as folder:
        history, page = Path(folder) / "metrics.db", Path(folder) / "report.html"
        write_history(history, Day(), range(1440), 30)
        page.write_text(report(history), encoding="utf8")
        with sync_playwright() as playwright, browser(playwright) as chromium:
            view = chromium.new_page(viewport={"width": 1180, "height": 900})
            view.goto(page.as_uri())
            view.screenshot(path=DOCS / "images" / "report.png")


def photograph_live() -> None:
    """Save the beginning of the live page of calls that go on as docs/images/live.png."""
    with (
        Load() as load,
        live.start(load.meter, 0) as server,
        sync_playwright() as playwright,
        browser(playwright) as chromium,
    ):
        view = chromium.new_page(viewport={"width": 1180, "height": 1000})
        view.goto(server.url)
        time.sleep(100)  # lines of more than a minute
        view.screenshot(path=DOCS / "images" / "live.png")


def draw_top() -> None:
    """Save the screen of `langmeter top` in the middle of a day as docs/images/top.svg."""
    day, recent = Day(), Recent(600.0)
    console = Console(record=True, width=120, height=24, file=io.StringIO())
    screen = Screen("meters")
    used = Decimal(46)
    for minute in range(600, 640):
        day.minute(traffic(minute, 30))
        snapshot = day.snapshot()
        used += Decimal("0.052")
        at = snapshot.taken_at or datetime.now(UTC)
        resets = at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        budgets = (
            BudgetState("50 USD a day", "usd", "day", used, Decimal(0), Decimal(50), resets, ()),
            BudgetState(
                *("anthropic, daily", "usd", "day", used / 4, Decimal(0), Decimal(16), resets),
                (("provider", ("anthropic",)),),
            ),
        )
        circuits = (CircuitState("cost", "groq", "rate_limited", at + timedelta(seconds=42)),)
        state = OriginState("1-0", round(at.timestamp() * 1e9), budgets, circuits)
        reading = recent.add(Snapshot(snapshot._native, State((state,))))
        # As of now: figures of another day say how old they are.
        screen.take(replace(figures(reading), at=datetime.now(UTC)))
    console.print(screen.draw(console))
    drawn = console.export_svg(title="langmeter top meters")
    drawn = re.sub(r'(src: local\("[^"]+"\)),[^;]+;', r"\1;", drawn)
    (DOCS / "images" / "top.svg").write_text(drawn, encoding="utf8")


def main() -> None:
    """Draw them all."""
    draw_top()
    photograph_report()
    photograph_live()
    for name, (page_name, begins) in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            command = begins
            if page_name:
                page = Page(page_name)
                page.write_files(Path(folder))
                run_program(page.program(), Path(folder))
                command = next(c for c in page.commands() if c.startswith(begins))
            draw(name, command, Path(folder))


if __name__ == "__main__":
    main()
