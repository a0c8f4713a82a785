"""Text from outside, as the recorder takes it, and as it may be printed."""

from __future__ import annotations

from unicodedata import category, east_asian_width

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
