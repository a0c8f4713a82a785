"""Text from outside as it may be recorded and printed, and figures as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from unicodedata import category, east_asian_width

#: What stands where there is no figure.
NOTHING = "-"
#: Characters of the longest name; rows of models and of components, of labels, failures and
#: anomalies that are shown.
MAX_NAME_WIDTH = 48
MAX_ROWS = 40
MAX_SHORT_ROWS = 10
#: The password of a URL in a text.
_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*:)[^\s/@]*(?=@)")
#: Categories of characters that are drawn over the one before them.
_ZERO_WIDTH = ("Mn", "Me", "Cf")


def as_text(name: str) -> str:
    """Return a string that UTF-8 can encode: half a surrogate pair is replaced."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def printable(text: object) -> str:
    """Escape what does not print in a text: control characters, line ends, escape sequences.

    For tables, messages and logs: nothing in the result begins a line, moves the cursor or changes
    a colour. An object is converted by `str`; where that fails, the name of its type stands for it.
    """
    try:
        name = str(text)
    except Exception:
        name = f"<{type(text).__name__}>"
    if name.isprintable():
        return name
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name
    )


def printable_lines(text: object) -> str:
    """Escape what does not print in each line of a text; the lines stay lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def without_password(text: str) -> str:
    """Replace the password of a URL: `postgresql://user:***@host/database`."""
    return _PASSWORD.sub(r"\1***", text)


def without_path(url: str) -> str:
    """Return a URL without what may be secret: `https://hooks.example/…`, `slack://…`.

    A path of a webhook is a secret, and so is the host of an address of apprise. Other texts stay.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}/…" if scheme.lower() in ("http", "https") else f"{scheme}://…"


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    Characters of East Asian scripts and most emoji take two, combining marks none, as `wcwidth`
    has it; characters of ambiguous width count as one.
    """
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    # Vowels and finals of Hangul join the consonant before them, which takes both columns.
    if category(char) in _ZERO_WIDTH or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """Cut the middle out of a text that takes more than `width` columns, 3 or more.

    The middle is cut because the names of models differ least there.
    """
    if text_width(text) <= width:
        return text
    head = _fitting(text, (width - 1) // 2)
    tail = _fitting(text[::-1], width - 1 - text_width(head))[::-1]
    return f"{head}…{tail}"


def _fitting(text: str, width: int) -> str:
    """Return the longest beginning of a text that takes at most `width` columns."""
    for place, char in enumerate(text):
        width -= text_width(char)
        if width < 0:
            return text[:place]
    return text


def format_duration(seconds: float) -> str:
    """Format seconds with three digits: `812 µs`, `34.5 ms`, `1.20 s`, `5 m 03 s`, `2 h 05 m`."""
    if math.isnan(seconds):
        return NOTHING
    if seconds >= 99.95:
        whole = round(seconds)
        if whole < 3600:
            return f"{whole // 60} m {whole % 60:02d} s"
        minutes = round(seconds / 60)
        if minutes < 1440:
            return f"{minutes // 60} h {minutes % 60:02d} m"
        hours = round(seconds / 3600)
        return f"{hours // 24:,} d {hours % 24:02d} h"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * scale or unit == "µs":
            value = seconds / scale
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def format_count(n: int) -> str:
    """A count with separators, above ten million in millions: `12,345`, `34.6 M`."""
    return f"{n:,}" if n < 10_000_000 else f"{n / 1e6:,.1f} M"


def format_usd(usd: Decimal | None) -> str:
    """US dollars with four digits that count; `-` while unpriced."""
    if usd is None:
        return NOTHING
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if abs(usd) >= 100 else f"${usd:.{max(2, 3 - usd.adjusted())}f}"


def format_amount(amount: Decimal | int) -> str:
    """Format an amount of a budget without its unit: `$4.20` of a Decimal, `12,000` of a count."""
    return format_count(amount) if isinstance(amount, int) else format_usd(amount)


def format_used(share: float, digits: int = 0) -> str:
    """Format the part of a limit that is used: `80%`, `104%`; far beyond it `> 10,000%`."""
    return f"{share:,.{digits}%}" if share <= 100 else "> 10,000%"


def format_rate(per_second: float) -> str:
    """Events per second with about three digits."""
    if per_second == 0:
        return "0"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.2f}"


def plural(n: int, noun: str) -> str:
    """A count of something: `1 call`, `1,234 calls`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def short_name(name: str) -> str:
    """Escape a name as `printable` does, and cut its middle out beyond `MAX_NAME_WIDTH` columns."""
    return shorten(printable(name), MAX_NAME_WIDTH)


def label_name(*pairs: tuple[str, str]) -> str:
    """Format keys and values: `team=search`; `team=(none)` is the row of calls without a value."""
    return short_name(" ".join(f"{key}={value or '(none)'}" for key, value in pairs))


def render_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None = None,
    *,
    left: int = 1,
) -> Iterator[str]:
    """Lay out a table: `left` columns to the left, the others to the right, two spaces between.

    A table wider than `width` columns becomes several, one below the other, each with the first
    column and as many of the others as fit; None for one table whatever its width.
    """
    cells = [header, *rows]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    for part, places in enumerate(_parts(widths, width)):
        if part:
            yield ""
        for number, row in enumerate(cells):
            padding = [" " * (widths[place] - text_width(row[place])) for place in places]
            texts = [
                row[place] + space if place < left else space + row[place]
                for place, space in zip(places, padding, strict=True)
            ]
            yield "  ".join(texts).rstrip()
            if number == 0:
                # A text at the end may be longer than a terminal is wide.
                ends = [min(widths[place], MAX_NAME_WIDTH) for place in places[-1:]]
                rules = [*(widths[place] for place in places[:-1]), *ends]
                yield "  ".join("-" * rule for rule in rules)


def _parts(widths: Sequence[int], width: int | None) -> Iterator[list[int]]:
    """Divide the columns of a table into groups that fit; the first column is in each."""
    group, used = [0], widths[0]
    for place in range(1, len(widths)):
        if width is not None and used + 2 + widths[place] > width and len(group) > 1:
            yield group
            group, used = [0], widths[0]
        group.append(place)
        used += 2 + widths[place]
    yield group
