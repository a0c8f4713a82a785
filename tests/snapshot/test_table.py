"""Tables fit their terminal, align names of any script, and display in notebooks."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Budget, Meter, PriceBook, Snapshot, TokenCountingCallback
from langmeter._base import output
from langmeter._base.text import render_table, shorten, text_width


def _metered(name: str, **settings: Any) -> Meter:
    usage = {"input_tokens": 1200, "output_tokens": 300, "total_tokens": 1500}
    answer = AIMessage("4", usage_metadata=usage, response_metadata={"model_name": name})
    model = GenericFakeChatModel(
        messages=iter([answer]), metadata={"ls_provider": "openai", "team": "検索"}
    )
    meter = Meter(**settings)
    model.invoke("2 + 2?", config={"callbacks": [meter]})
    return meter


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("gpt-4o", 6),
        ("通义千问", 8),
        ("クエリ", 6),
        ("ｸｴﾘ", 3),  # half-width katakana
        ("모델", 4),
        ("\u1100\u1161\u11a8", 2),  # one syllable of Hangul, in three parts
        ("modèle", 6),
        ("mode\u0300le", 6),  # the accent is a character of its own
        ("🚀", 2),
    ],
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text: str, width: int) -> None:
    """Wide characters take two columns and combining marks none, as in `wcwidth`."""
    assert text_width(text) == width


def test_a_name_is_cut_by_its_columns() -> None:
    """What is left of a wide name takes at most the columns asked for, from both of its ends."""
    assert shorten("通义千问通义千问", 9) == "通义…千问"
    assert text_width(shorten("通义千问通义千问", 8)) <= 8
    assert shorten("gpt-4o-mini", 7) == "gpt…ini"
    assert shorten("gpt-4o", 6) == "gpt-4o"


def test_columns_align_beside_names_of_east_asian_scripts() -> None:
    """Every line of a column ends at the same column of the terminal."""
    table = list(render_table(("model", "calls"), [("通义千问", "12"), ("gpt-4o", "3")]))
    assert [text_width(line) for line in table] == [15, 15, 15, 15]
    assert table[2] == "通义千问     12"


def test_a_table_is_divided_where_it_is_too_wide() -> None:
    """Each part has the first column, fits, and no column is lost."""
    header = ("model", "calls", "tokens", "cost")
    rows = [("gpt-4o", "12", "1,500", "$0.01")]
    assert list(render_table(header, rows, 20)) == [
        *("model   calls", "------  -----", "gpt-4o     12", ""),
        *("model   tokens", "------  ------", "gpt-4o   1,500", ""),
        *("model    cost", "------  -----", "gpt-4o  $0.01"),
    ]
    assert next(render_table(header, rows, 22)) == "model   calls  tokens"
    assert list(render_table(header, rows, 1)) == list(render_table(header, rows, 14))


def test_a_snapshot_fits_a_terminal_of_80_columns() -> None:
    """Without a limit its widest table takes more; with one of 80 no line does."""
    snapshot = _metered("gpt-4o-mini-2024-07-18", labels=("team",)).snapshot()
    assert max(map(text_width, snapshot.table().splitlines())) > 80
    narrow = snapshot.table(80)
    assert max(map(text_width, narrow.splitlines())) <= 80
    assert all(name in narrow for name in ("errors", "p99", "TTFT p50", "per s", "team=検索"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1


def test_str_fits_the_terminal_that_it_is_printed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`print` divides a table for a narrow terminal and never for a file."""
    snapshot = _metered("gpt-4o-mini-2024-07-18").snapshot()
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert str(snapshot) == snapshot.table()
    monkeypatch.setattr("sys.stdout", _Terminal())
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((80, 24)))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert str(snapshot) == snapshot.table(80)
    monkeypatch.setenv("COLUMNS", "60")
    assert str(snapshot) == snapshot.table(60)


@pytest.mark.parametrize("columns", ["many", "0"])
def test_a_terminal_of_unknown_width_is_no_limit(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names no width, or fails to tell it, limits nothing and raises nothing."""
    monkeypatch.setenv("COLUMNS", columns)
    assert output.terminal_width(_Terminal()) is None
    assert output.terminal_width(None) is None
    closed = io.StringIO()
    closed.close()
    assert output.terminal_width(closed) is None


def test_a_notebook_displays_a_snapshot_as_tables() -> None:
    """The HTML has the cells of the text, and a name in it is escaped."""
    text = _metered("<b>gpt</b>").snapshot()._repr_html_()
    assert "<td>openai/&lt;b&gt;gpt&lt;/b&gt;</td><td>1</td>" in text
    assert "<b>" not in text
    assert text.count("<table>") == 2  # models, components
    assert Snapshot()._repr_html_() == "<p>no model calls metered</p>"


def test_a_handler_shows_what_it_counted() -> None:
    """The repr has calls, errors, tokens and, where there is one, the cost."""
    prices = PriceBook({"openai/house-1": {"input": 1, "output": 1}})
    meter = _metered("house-1", prices=prices)
    assert repr(meter) == "<Meter: 1 call, 0 errors, 1,500 tokens, $0.001500>"
    assert repr(meter.tokens).startswith("<TokenCountingCallback: 1 call, ")


def test_the_repr_of_an_unused_handler_maps_no_recorder() -> None:
    """A handler that has seen nothing says so and stays free to join others."""
    tokens = TokenCountingCallback()
    assert repr(tokens) == "<TokenCountingCallback: nothing metered yet>"
    assert not tokens._services.is_mapped


def test_budgets_have_a_table() -> None:
    """It has where each stands, the one with the greatest part used first."""
    snapshot = _metered(
        "gpt-4o", budgets=[Budget(usd=5, per="day"), Budget(calls=2, name="few")]
    ).snapshot()
    block = next(block for block in str(snapshot).split("\n\n") if block.startswith("budget"))
    rows = [line.split("  ") for line in block.split("\n")[2:]]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    assert cells[0] == ["few", "1", "2", "50%", "0", "-"]
    assert cells[1][0] == "5 USD a day"
    assert cells[1][5].endswith("00:00")


def test_columns_of_text_stand_to_the_left() -> None:
    """As many as are asked for; the line below the last of them ends at 48 characters."""
    lines = list(render_table(("a", "from", "value"), [("x", "y", "z" * 60)], left=3))
    assert lines == ["a  from  value", f"-  ----  {'-' * 48}", f"x  y     {'z' * 60}"]
