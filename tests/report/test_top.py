"""`langmeter top`: figures, texts, and the screen as `rich` draws it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
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
from langmeter.snapshot import (
    AlertState,
    BudgetState,
    CircuitState,
    DecisionState,
    OriginState,
    State,
)
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


def budgeted(*budgets: BudgetState) -> Figures:
    """Figures of models under these budgets, of which each used a dollar in ten minutes."""
    traffic, recent = Traffic(), Recent()
    traffic.everything(20)
    states = [
        State((OriginState("a", TROUBLE.taken_at_unix_nano + seconds * 10**9, parts),))
        for seconds, parts in (
            (0, tuple(replace(each, used=each.used - 1) for each in budgets)),
            (600, budgets),
        )
    ]
    reading_of(recent, traffic, states[0])
    traffic.call("openai", "gpt-4o-2024-08-06", team="search")
    return figures(reading_of(recent, traffic.everything(10), states[1]))


def scoped(name: str, used: str, **scope: str) -> BudgetState:
    """Return a budget of ten dollars that covers a part of the calls."""
    return replace(usd(used), name=name, scope=tuple((key, (of,)) for key, of in scope.items()))


def test_a_row_has_the_budget_that_covers_it_and_is_reached_first() -> None:
    """It is chosen by provider, model, or for everything; one of a label covers no whole row."""
    shown = budgeted(
        scoped("all", "2"),
        scoped("openai", "8", provider="openai"),
        scoped("gpt", "9", model="gpt-4o"),
        scoped("team", "9.5", team="search"),
        scoped("tag", "9.4", tag="batch"),
    )
    rows = {row.name: row for row in (*shown.rows, shown.total)}
    names = {name: row.budget and row.budget.budget.name for name, row in rows.items()}
    assert names["openai/gpt-4o"] == names["openai/gpt-4o-2024-08-06"] == "gpt"
    assert names["anthropic/claude-sonnet-4"] == names["total"] == "all"
    gpt = rows["openai/gpt-4o"]
    assert gpt.budget_used == 0.9
    assert gpt.budget is not None
    assert gpt.budget.seconds == pytest.approx(600)
    lines = text(shown).split("\n")
    assert lines[2].split()[-3:] == ["budget", "limit", "in"]
    assert next(row for row in lines if row.startswith("openai/gpt-4o ")).endswith("10 m 00 s")
    assert next(row for row in lines if row.startswith("anthropic/")).endswith("1 h 20 m")
    data = next(row for row in shown.to_dict()["rows"] if row["name"] == "openai/gpt-4o")
    assert (data["budget"], data["budget_used"], data["resets_first"]) == ("gpt", 0.9, False)
    assert data["seconds_to_limit"] == pytest.approx(600)
    assert shown.to_dict()["budgets"][0]["scope"] == {"team": ["search"]}


def test_rows_by_provider_or_label_have_budgets_of_those() -> None:
    """A budget of a model is only a part of its provider; one of a team covers the team's row."""
    traffic = Traffic().everything(20)
    parts = (scoped("gpt", "9", model="gpt-4o"), scoped("team", "9.5", team="search"))
    state = State((OriginState("a", TROUBLE.taken_at_unix_nano, parts),))
    reading = reading_of(Recent(), traffic, state)
    assert {row.budget for row in figures(reading, ("provider",)).rows} == {None}
    by_team = {row.name: row.budget for row in figures(reading, ("team",)).rows}
    assert {name for name, budget in by_team.items() if budget} == {"search"}
    both = figures(reading, ("team", "model")).rows
    assert {row.name for row in both if row.budget} >= {"search/gpt-4o"}


def test_a_budget_whose_scope_is_not_known_covers_no_row(later: Figures) -> None:
    """State of an older langmeter has no scopes: the columns are there, and empty."""
    assert {row.budget for row in (*later.rows, later.total)} == {None}
    assert text(later).split("\n")[4].split()[-2:] == ["-", "-"]


def test_columns_of_budgets_need_a_budget() -> None:
    """Without one the table is as wide as it must be."""
    shown = figures(reading_of(Recent(), Traffic().everything(3)))
    assert text(shown).split("\n")[2].endswith("USD/h")


def test_a_narrow_screen_keeps_the_budget() -> None:
    """Of 40 columns USD/h and the share that is used remain, of 60 the time to the limit, too."""
    screen = Screen("metrics")
    screen.take(budgeted(scoped("all", "2")))
    rows = {
        width: next(row for row in drawn(screen, width) if row.startswith("openai/gpt-4o "))
        for width in (40, 60)
    }
    assert rows[40].split()[-1] == "20%"
    assert rows[60].split()[-5:] == ["20%", "1", "h", "20", "m"]
    assert not any("…" in row for row in rows.values())


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
