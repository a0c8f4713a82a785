"""How a snapshot reads: tables, names, durations, money and counts in words."""

from __future__ import annotations

import io
import math
from decimal import Decimal

import pytest

from langmeter import Snapshot
from langmeter._base.text import format_count, format_duration, format_rate, format_usd
from langmeter.report import terminal
from tests.support.figures import CHAIN, metered, record


def test_str_is_the_table(snapshot: Snapshot) -> None:
    """Models, their total, components, what is in flight and what was dropped; 120 columns."""
    text = str(snapshot)
    header = text.splitlines()[0].split()
    assert " ".join(header) == "model calls errors in out cost p50 p95 p99 TTFT p50 per s"
    assert "p/m        4       1  300  120" in text
    assert "total      5       1" in text
    assert "chain chain" in text
    assert "in flight: 1" in text
    assert "other outcomes: cancelled 1" in text
    assert "dropped: hook_errors 2" in text
    assert max(map(len, text.splitlines())) <= 120
    assert repr(snapshot.totals) == "<ModelStats total: 5 calls, 1 error, 420 tokens>"
    assert repr(snapshot) == "<Snapshot of 2 models: 5 calls, 1 error, 420 tokens, 1 in flight>"


def test_long_names_are_cut_in_the_middle() -> None:
    """The table stays narrow whatever a model is called."""
    recorder, clock = metered()
    record(recorder, clock, model="x" * 60 + "-end")
    text = str(Snapshot(recorder.snapshot()))
    assert "…" in text
    assert "-end" in text
    assert max(map(len, text.splitlines())) <= 120


def test_money_that_is_not_all_of_it_says_so(snapshot: Snapshot) -> None:
    """`≥` where calls had no price, how many there were, and what to do."""
    text = str(snapshot)
    assert text.count("≥ $0.000000000003000") == 2  # the model and the total
    note = "unpriced: 1 call of 1 model; ask `langmeter prices MODEL`, or set own prices"
    assert note in text
    recorder, clock = metered()
    record(recorder, clock, cost=1)
    text = str(Snapshot(recorder.snapshot()))
    assert "≥" not in text
    assert "unpriced" not in text


def test_names_cannot_write_to_the_terminal() -> None:
    """Neither a new line nor an escape sequence gets through, in tables and in reprs."""
    recorder, clock = metered()
    record(recorder, clock, model="a\nb\x1b[2J\u202e")
    recorder.count(CHAIN, "c\rd", 0, 1)
    s = Snapshot(recorder.snapshot())
    for text in (str(s), *map(repr, (*s.models.values(), *s.components.values()))):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "p/a\\nb\\x1b[2J\\u202e" in str(s)
    assert "chain c\\rd" in str(s)


def test_forty_rows_are_enough() -> None:
    """Of models and of components; the totals are of all, and what is left out is counted."""
    recorder, clock = metered()
    for number in range(43):
        record(recorder, clock, model=f"m{number}")
        recorder.count(CHAIN, f"c{number}", 0, 1)
    models, components = str(Snapshot(recorder.snapshot())).split("\n\n")[:2]
    assert len(models.splitlines()) == 2 + 40 + 2
    assert models.splitlines()[-2] == "… and 3 more"
    assert models.splitlines()[-1].split()[:2] == ["total", "43"]
    assert len(components.splitlines()) == 2 + 40 + 1
    assert components.splitlines()[-1] == "… and 4 more"


def test_what_was_told_twice_is_not_lost() -> None:
    """Duplicates are ignored, and shown as that."""
    recorder, _ = metered()
    recorder.dropped("duplicate_end", 3)
    assert str(Snapshot(recorder.snapshot())).endswith("\n\nignored: duplicate_end 3")
    recorder.dropped("stray_tokens")
    assert "dropped: stray_tokens 1\nignored: " in str(Snapshot(recorder.snapshot()))


def test_the_report_says_what_it_covers(snapshot: Snapshot) -> None:
    """The date, how long, and the table."""
    report = terminal.report(snapshot)
    assert report.startswith("langmeter: ")
    assert " UTC, " in report.splitlines()[0]
    assert str(snapshot) in report
    assert terminal.report(Snapshot()) == "langmeter: nothing metered"
    assert terminal.report(Snapshot(metered()[0].snapshot())) == "langmeter: nothing metered"


def test_the_live_table_shows_the_same_cells(snapshot: Snapshot) -> None:
    """As rich draws it; a model whose name looks like markup is shown as it is."""
    from rich.console import Console

    recorder, clock = metered()
    record(recorder, clock, model="[bold]m")
    console = Console(width=140, file=io.StringIO())
    console.print(terminal.table(snapshot + Snapshot(recorder.snapshot())))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "p/[bold]m" in text
    assert "1 in flight" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (math.nan, "-"),
        (0.0, "0.00 µs"),
        (0.000_000_5, "0.50 µs"),
        (0.000_812, "812 µs"),
        (0.000_999_9, "1.00 ms"),
        (0.034_5, "34.5 ms"),
        (0.9996, "1.00 s"),
        (1.2, "1.20 s"),
        (99.9, "99.9 s"),
        (303.2, "5 m 03 s"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    """Three digits in the unit that shows them."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "-"),
        (Decimal(0), "$0"),
        (Decimal("0.000012345"), "$0.00001234"),
        (Decimal("0.5"), "$0.5000"),
        (Decimal("12.3456"), "$12.35"),
        (Decimal("12345.678"), "$12,345.68"),
    ],
)
def test_money_in_words(usd: Decimal | None, text: str) -> None:
    """Four digits that count."""
    assert format_usd(usd) == text


def test_counts_and_rates_in_words() -> None:
    """Separators, millions, and no more digits than are meant."""
    assert [format_count(n) for n in (0, 12_345, 34_567_890)] == ["0", "12,345", "34.6 M"]
    assert [format_rate(r) for r in (0.0, 0.125, 1234.5)] == ["0", "0.12", "1,234"]
