"""Text from outside, as the recorder takes it, and as it may be printed."""

from __future__ import annotations


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
