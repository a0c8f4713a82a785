"""Lines of the keys of a TOML document."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter._base.options import names_in, under
from langmeter.config import toml

DOCUMENT = '''\
# comment with [brackets] and = signs
a = 1

"b c" = """
x = 1
[not.a.table]
"""
d.e = [
  1, # one
  { f = 2 },
]
[t]
g = '\u2028'
[t . "u v"]  # comment
h = 1
[[l]]
i = 1
[[l]]
i = 2
[l.m]
n = 1
[[l.o]]
[[l.o]]
p = { q = 1 }
[[l]]
[[l.o]]
p = 2
'''


def test_each_key_has_the_line_on_which_its_statement_begins() -> None:
    """Also after strings and arrays of several lines, in tables and arrays of tables."""
    assert toml.lines_of(DOCUMENT) == {
        "a": 2,
        '"b c"': 4,
        "d": 8,
        "d.e": 8,
        "d.e[0]": 8,
        "d.e[1]": 8,
        "d.e[1].f": 8,
        "t": 12,
        "t.g": 13,
        't."u v"': 14,
        't."u v".h': 15,
        "l[0]": 16,
        "l[0].i": 17,
        "l[1]": 18,
        "l[1].i": 19,
        "l[1].m": 20,
        "l[1].m.n": 21,
        "l[1].o[0]": 22,
        "l[1].o[1]": 23,
        "l[1].o[1].p": 24,
        "l[1].o[1].p.q": 24,
        "l[2]": 25,
        "l[2].o[0]": 26,
        "l[2].o[0].p": 27,
    }


def test_windows_line_ends_count_once(tmp_path: Path) -> None:
    """A file of another editor has the same lines."""
    (path := tmp_path / "x.toml").write_bytes(b"# c\r\na = 1\r\n[b]\r\nc = 1.50\r\n")
    tree, lines = toml.read(path)
    assert lines == {"a": 2, "b": 3, "b.c": 4}
    assert tree == {"a": 1, "b": {"c": Decimal("1.50")}}


_KEYS = st.text("ab .\"'#[]=\n\u2028é", min_size=1, max_size=4)
_LEAVES = st.one_of(
    st.integers(-9, 9), st.booleans(), st.text("x=[]#\"'\\\n", max_size=5), st.lists(st.integers())
)
_TREES: st.SearchStrategy[Any] = st.recursive(
    st.dictionaries(_KEYS, _LEAVES, max_size=3),
    lambda inner: st.dictionaries(
        _KEYS, st.one_of(_LEAVES, inner, st.lists(inner, min_size=1, max_size=3)), max_size=3
    ),
    max_leaves=12,
)


def _basic(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[\n" + "".join(f"  {_inline(each)}, # ]\n" for each in value) + "]"
    return _basic(value) if isinstance(value, str) else str(value)


def _write(tree: dict[str, Any], keys: list[str], name: str, rows: list[str]) -> dict[str, int]:
    """Write a table as a person would, and return the line of each key."""
    lines: dict[str, int] = {}
    is_table = {
        key: isinstance(value, dict)
        or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
        for key, value in tree.items()
    }
    for key, value in sorted(tree.items(), key=lambda item: is_table[item[0]]):
        place = under(name, key)
        if not is_table[key]:
            lines |= dict.fromkeys(names_in(value, place), len(rows) + 1)
            rows += f"{_basic(key)} = {_inline(value)}".split("\n")
            continue
        many = isinstance(value, list)
        for number, each in enumerate(value if many else [value]):
            path = ".".join(map(_basic, [*keys, key]))
            rows += ["# comment", f"[[{path}]]" if many else f"[{path}]"]
            inside = under(place, number) if many else place
            lines[inside] = len(rows)
            lines |= _write(each, [*keys, key], inside, rows)
    return lines


@given(_TREES)
def test_lines_are_those_of_whoever_wrote_the_document(tree: dict[str, Any]) -> None:
    """Whatever the keys and values, and however many lines a value takes."""
    rows: list[str] = []
    lines = _write(tree, [], "", rows)
    text = "\n".join(rows)
    assert tomllib.loads(text) == tree
    assert toml.lines_of(text) == lines


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.10", Decimal("0.10")),
        ("true", True),
        ('["a", 2]', ["a", 2]),
        ("{ a = 1 }", {"a": 1}),
        ("team", "team"),
        ("team,user", "team,user"),
        ("True", "True"),
        ("1\nx = 2", "1\nx = 2"),
        ("1 # c", 1),
        ("", ""),
    ],
)
def test_a_text_is_a_value_or_itself(text: str, value: object) -> None:
    """A value cannot smuggle in a second key."""
    assert toml.value(text) == value
