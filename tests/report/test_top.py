"""`langmeter top`: figures, texts, and the screen as `rich` draws it."""

from __future__ import annotations

import io
import json
import math
from datetime import timedelta
from uuid import uuid4

import pytest
from rich.console import Console

from langmeter import Snapshot
from langmeter.errors import ConfigError
from langmeter.report.recent import Reading, Recent
from langmeter.report.top import SORTS, Figures, figures, line, text
from langmeter.report.top.figures import in_order
from langmeter.report.top.screen import KEYS, Screen
from langmeter.report.top.text import sparkline, title
from langmeter.snapshot import AlertState, CircuitState, DecisionState, OriginState, State
from tests.analysis.test_limits import NOON, usd
from tests.support.traffic import Traffic

#: States of a process for which a person is needed.
TROUBLE = OriginState(
    "a",
    round(NOON.timestamp()) * 10**9,
    budgets=(usd("8"),),
    circuits=(
        CircuitState("priority", "anthropic", "ready", None),
        CircuitState("priority", "openai", "errors", NOON + timedelta(seconds=30)),
    ),
    decisions=(DecisionState("priority", "anthropic", "policy", 2, "openai: errors"),),
    alerts=(AlertState("many errors", "openai", "warning", "firing", NOON, 0.25),),
)


def reading_of(recent: Recent, traffic: Traffic, state: State | None = None) -> Reading:
    """Return the next reading of traffic."""
    return recent.add(Snapshot(traffic.recorder.snapshot(), state))


@pytest.fixture(scope="module")
def later() -> Figures:
    """Figures of a second reading, with calls in flight and trouble."""
    traffic, recent = Traffic(), Recent()
    traffic.everything(20)
    before = State((OriginState("a", TROUBLE.taken_at_unix_nano - 600 * 10**9, (usd("7"),)),))
    reading_of(recent, traffic, before)
    traffic.everything(10)
    for _ in range(3):
        traffic.recorder.run_started(uuid4(), None, 0, "chat", "openai", "gpt-4o")
    return figures(reading_of(recent, traffic, State((TROUBLE,))))


def test_rows_are_of_what_was_counted_between_two_readings() -> None:
    """Rates are counts by the seconds between them; percentiles are of these calls alone."""
    traffic, recent = Traffic(), Recent()
    traffic.call(seconds=50.0)
    reading_of(recent, traffic)
    for seconds in (1.0, 2.0, 3.0, 4.0):
        traffic.call(seconds=seconds)
    traffic.call("anthropic", "claude", seconds=10.0, error="RateLimitError 429")
    now = figures(reading_of(recent, traffic))
    assert (now.seconds, now.is_whole, now.total.calls_per_second) == (20.0, False, 0.25)
    openai, anthropic = now.rows
    assert (openai.name, openai.calls_per_second, openai.errors) == ("openai/gpt-4o", 0.2, 0)
    assert openai.p50 == pytest.approx(2.0, rel=1e-3)
    assert openai.tokens_per_second == 4 * 1100 / 20
    assert openai.usd_per_hour == pytest.approx(4 * 0.001 / 20 * 3600)
    assert (anthropic.error_share, anthropic.errors) == (1.0, 1)
    assert math.isnan(anthropic.usd_per_hour)


def test_the_first_reading_has_the_rates_of_the_last_minute() -> None:
    """The recorder's own window gives them; the calls of a minute before are not among them."""
    traffic = Traffic()
    traffic.call("acme", "old", seconds=5.0)
    traffic.clock.advance(120)
    for _ in range(6):
        traffic.call(seconds=2.0)
    snapshot = traffic.snapshot()
    now = figures(Recent().add(snapshot))
    rates = {row.name: row.calls_per_second for row in now.rows}
    assert rates == {"openai/gpt-4o": snapshot.rates[60].requests, "acme/old": 0.0}
    assert now.is_whole
    assert now.rows[0].usd_per_hour == pytest.approx(6 * 0.001 * 60)


def test_rows_are_by_provider_or_label() -> None:
    """Providers have the calls in flight of their models; those of labels are not known."""
    traffic = Traffic().everything(5)
    traffic.recorder.run_started(uuid4(), None, 0, "chat", "openai", "gpt-4o")
    traffic.recorder.run_started(uuid4(), None, 0, "chat", "openai", "gpt-5")
    reading = Recent().add(traffic.snapshot())
    by_provider = figures(reading, ("provider",))
    assert {row.name: row.in_flight for row in by_provider.rows}["openai"] == 2
    assert {row.in_flight for row in figures(reading, ("team",)).rows} == {None}
    assert {row.name for row in figures(reading, ("team", "provider")).rows} >= {"search/openai"}
    with pytest.raises(ConfigError, match="by must be the keys of a declared label"):
        figures(reading, ("nothing",))
    with pytest.raises(ConfigError, match="sort must be one of cost, calls"):
        figures(reading, sort="beauty")


@pytest.mark.parametrize("sort", SORTS)
def test_rows_have_the_greatest_first(sort: str, later: Figures) -> None:
    """Each order is that of its figure, and rows without it come last."""
    values = [getattr(row, SORTS[sort]) for row in in_order(later.rows, sort)]
    if sort == "name":
        assert values == sorted(values)
        return
    numbers = [value for value in values if not math.isnan(value)]
    assert numbers == sorted(numbers, reverse=True)
    assert values[: len(numbers)] == numbers


def test_the_text_has_everything(later: Figures) -> None:
    """Tables of models and budgets, then alerts, providers and decisions, the worst first."""
    plain = text(later)
    assert "openai/gpt-4o" in plain
    assert [cell.strip() for cell in plain.split("\n\n")[2].split("\n")[2].split("  ") if cell] == [
        *("money", "$8.000", "$10.00", "80%", "$0", "12 h 00 m", "20 m 00 s")
    ]
    assert plain.split("\n\n")[3].split("\n") == [
        "alert many errors of openai: firing since 2026-03-01 12:00:00 UTC, 0.25",
        "provider openai: errors until 12:00:30 UTC",
        "provider anthropic: ready",
        "chosen anthropic: policy, attempt 2 (openai: errors)",
    ]
    assert max(map(len, text(later, 60).split("\n")[1:])) <= 76


def test_the_line_has_what_matters(later: Figures) -> None:
    """One line has the rates, the first budget, and how much is not well."""
    parts = line(later).split(" | ")
    assert parts[1] == "3 in flight"
    assert parts[-3:] == [
        "money: 80%, 20 m 00 s to its limit",
        "1 provider not ready",
        "1 alert",
    ]
    assert "\n" not in line(later)


def test_the_data_is_json(later: Figures) -> None:
    """Figures that are not known are null, and budgets have the time to their limits."""
    data = json.loads(json.dumps(later.to_dict(), allow_nan=False))
    assert data["total"]["in_flight"] == 3
    assert data["budgets"][0]["seconds_to_limit"] == pytest.approx(1200)
    assert data["budgets"][0]["used"] == "8"
    assert data["alerts"][0]["status"] == "firing"
    silent = next(row for row in data["rows"] if row["name"] == "acme/silent-1")
    assert (silent["ttft"], silent["usd_per_hour"]) == (None, None)


def test_nothing_is_a_reading_too() -> None:
    """An empty snapshot has a title, a total of zeros, and a line."""
    nothing = figures(Recent().add(Snapshot()))
    assert text(nothing).startswith("nothing metered so far")
    assert line(nothing) == "0 calls/s | 0 in flight | 0 tokens/s"


def test_the_title_tells_how_old_figures_are(later: Figures) -> None:
    """Figures of a process that has ended say when that was."""
    assert later.at is not None
    assert "ago" not in title(later, later.at + timedelta(seconds=30))
    assert "(1 h 00 m ago)" in title(later, later.at + timedelta(hours=1))


def test_a_sparkline_has_a_bar_for_each_value() -> None:
    """The greatest value is the highest bar, and gaps stay gaps."""
    assert sparkline([0.0, 1.0, math.nan, 7.0]) == "▁▂ █"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


def drawn(screen: Screen, width: int = 100, height: int = 30) -> list[str]:
    """Return the lines of a screen on rich's own recording console."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height)
    console.print(screen.draw(console))
    return console.export_text().rstrip("\n").split("\n")


def test_the_screen_fits_its_terminal(later: Figures) -> None:
    """However low or narrow a terminal is, the screen is not larger, and has its help."""
    screen = Screen("metrics", "cost")
    screen.take(later)
    for width, height in ((100, 30), (80, 24), (40, 16), (200, 60)):
        lines = drawn(screen, width, height)
        assert len(lines) <= height, lines
        assert max(map(len, lines)) <= width
        assert lines[-1].startswith("q quit")
        assert any("USD/h" in row for row in lines[3:6])
    assert any("rows are not shown" in row for row in drawn(screen, 100, 14))


def test_the_screen_shows_the_source_and_its_trouble(later: Figures) -> None:
    """The figures of `text` are on it, and the name as it is, not as markup."""
    screen = Screen("[bold]metrics[/bold]\x1b[31m", "cost")
    assert drawn(screen) == [r"langmeter top [bold]metrics[/bold]\x1b[31m"]
    screen.take(later)
    lines = drawn(screen)
    assert any(row.startswith("money") and "20 m 00 s" in row for row in lines)
    assert "alert many errors of openai" in "\n".join(lines)
    assert any(row.startswith("USD/h █") for row in lines)


def test_a_source_that_cannot_be_read_keeps_its_figures(later: Figures) -> None:
    """The screen says why, until the source is read again."""
    screen = Screen("metrics")
    screen.take(later)
    screen.take(None, "http://x answered 503")
    assert "cannot be read, tried again: http://x answered 503" in drawn(screen)
    assert any(row.startswith("openai/gpt-4o") for row in drawn(screen))
    screen.take(later)
    assert not any("cannot be read" in row for row in drawn(screen))


@pytest.mark.parametrize("key", KEYS)
def test_keys_choose_the_order(key: str, later: Figures) -> None:
    """Each key has one order, and the rows are in it."""
    screen = Screen("metrics", "name" if key != "n" else "cost")
    screen.take(later)
    assert screen.press(key)
    names = [row.name for row in in_order(later.rows, KEYS[key])]
    lines = [row.split("  ")[0] for row in drawn(screen, height=60)]
    assert [name for name in lines if name in names] == names


def test_the_other_keys_pause_and_end(later: Figures) -> None:
    """While it is paused the screen keeps its figures; q ends it, and others do nothing."""
    screen = Screen("metrics")
    screen.take(later)
    assert screen.press("p")
    screen.take(figures(Recent().add(Snapshot())))
    assert screen.figures is later
    assert any(row.endswith("paused") for row in drawn(screen))
    assert screen.press("z")
    assert not screen.press("q")
    assert sorted(KEYS.values()) == sorted(SORTS)
