"""Receipts: texts by which another process or host goes on with an attempt."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, Final

from langmeter.errors import ConfigError

#: Begins every receipt; its digit is the version of what follows.
_PREFIX: Final = "lmfix1."


def is_receipt(text: str) -> bool:
    """Return whether a text is a receipt, not the id of an attempt."""
    return text.startswith(_PREFIX)


def write(parts: tuple[Any, ...]) -> str:
    """Return the receipt of `_core.Attempts.receipt()`: JSON with a checksum, in base64."""
    body = json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()
    checked = zlib.crc32(body).to_bytes(4, "big") + body
    return _PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("=")


def read(text: str) -> tuple[Any, ...]:
    """Return what `_core.Attempts.adopt` takes.

    Raises ConfigError, a ValueError, for a text that is damaged.
    """
    body = text.removeprefix(_PREFIX)
    try:
        checked = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        if zlib.crc32(checked[4:]).to_bytes(4, "big") != checked[:4]:
            raise ValueError("its checksum does not fit")
        *parts, candidates = json.loads(checked[4:])
        # The native module takes tuples where the types differ.
        parts[6] = tuple(parts[6])
        judged = [(*known, right and tuple(right)) for *known, right in candidates]
        return (*parts, judged)
    except (ValueError, IndexError, TypeError, binascii.Error) as exc:
        raise ConfigError(
            f"receipt must be a text of attempt.receipt, got {text[:80]!r} ({exc}); hand on the "
            "whole text"
        ) from exc
