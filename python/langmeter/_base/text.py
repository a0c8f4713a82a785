"""Text as the recorder takes it."""

from __future__ import annotations


def as_text(name: str) -> str:
    """Return a string that UTF-8 can encode: half a surrogate pair is replaced."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
