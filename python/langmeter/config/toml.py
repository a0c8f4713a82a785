"""TOML with line numbers, which the standard library's parser does not give.

A document is cut into statements: the fewest lines from a point on that are TOML by themselves. The
standard library's parser says where that is, also for strings and arrays of several lines.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from langmeter._base.options import names_in, under

_LINE: Final = re.compile(r"\(at line (\d+), column \d+\)|\(at end of document\)")


class NotTomlError(ValueError):
    """A file is not TOML, or not UTF-8.

    Attributes:
        line: line of the error, from 1; None where it is not known.
    """

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


class Number(Decimal):
    """A number with a point, exact; messages show it as it is written."""

    def __repr__(self) -> str:
        return str(self)


def value(text: str) -> Any:
    """Return the TOML value that a text is, or the text itself if it is none."""
    try:
        data = tomllib.loads(f"value = {text}", parse_float=Number)
    except (ValueError, RecursionError):
        return text
    return data["value"] if len(data) == 1 else text


def read(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a document, and the line of each key in it by its name: `budgets[0].per`.

    Numbers with a point are Decimal, exact as they are written. Raises OSError and NotTomlError.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text, parse_float=Number), lines_of(text)
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        raise NotTomlError(f"not UTF-8: {error.reason}", before.count(b"\n") + 1) from error
    except tomllib.TOMLDecodeError as error:
        match = _LINE.search(str(error))
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        raise NotTomlError(_LINE.sub("", str(error)).strip(), line) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 1,000 brackets
        raise NotTomlError(str(error), None) from error


def lines_of(text: str) -> dict[str, int]:
    """Return the line of each key of a document that is TOML, by its name."""
    lines: dict[str, int] = {}
    table = ""
    #: Elements so far of each array of tables, by its name without the last index.
    lengths: dict[str, int] = {}
    rows = [f"{row}\n" for row in text.split("\n")]  # splitlines also splits at U+2028
    start = 0
    while start < len(rows):
        end, data = _statement(rows, start)
        is_header = rows[start].lstrip().startswith("[")
        if is_header:
            for table in _headers(data, lengths):
                lines.setdefault(table, start + 1)
        else:
            for name in names_in(data, table):
                lines.setdefault(name, start + 1)
        start = end
    lines.pop("", None)
    return lines


def _statement(rows: list[str], start: int) -> tuple[int, dict[str, Any]]:
    """Return where the statement that begins on a row ends, and what it says."""
    for end in range(start + 1, len(rows) + 1):
        try:
            return end, tomllib.loads("".join(rows[start:end]))
        except tomllib.TOMLDecodeError:
            continue
    return len(rows), {}


def _headers(data: dict[str, Any], lengths: dict[str, int]) -> Iterator[str]:
    """Yield the names of the tables that a header is about, the one that it opens last."""
    name, node = "", data
    while node:
        ((key, inner),) = node.items()
        name = under(name, key)
        if isinstance(inner, list):  # the last part of [[a.b]]
            lengths[name] = lengths.get(name, -1) + 1
            yield under(name, lengths[name])
            return
        if inner and name in lengths:  # [a.b] below [[a]] belongs to the last a
            name = under(name, lengths[name])
        yield name
        node = inner
