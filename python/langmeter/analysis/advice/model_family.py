"""Families of models of a price list, by their names alone.

A name falls into words, sizes (`mini`, `opus`, `70b`), a version and a date. Of one family are
models with the same words; a size is a choice within it. A part that is not a known size is a
word, so that `gpt-4o-audio-preview` or `gpt-4o:extended` is never taken for a `gpt-4o`: a family
too small costs a finding, one too large gives a wrong one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(r"[^a-z0-9]+")
#: Parameters: 8b, 8x7b, a22b (those active in a mixture).
_PARAMETERS: Final = re.compile(r"(?:\d+x|a)?\d+b")
#: A number stuck to a word: llama3, o4, v1; and OpenAI's 4o, whose letter does not make a family.
_NUMBERED: Final = re.compile(r"([a-z]*?)v?(\d{1,2})o?")
#: 0613, 2407, 20250929; and revisions, 001.
_DATE: Final = re.compile(r"\d{4,}|0\d+")
_FULL_DATE: Final = re.compile(r"(20\d\d)-(\d\d)-(\d\d)")

_SIZES: Final = frozenset(
    (
        *("nano", "micro", "tiny", "mini", "small", "medium", "large", "lite", "light", "flash"),
        *("air", "turbo", "fast", "plus", "pro", "premier", "max", "haiku", "sonnet", "opus"),
    )
)
_UNFINISHED: Final = frozenset({"preview", "exp", "experimental"})
#: Says when, not what.
_SILENT: Final = _UNFINISHED | {"latest"}


class ModelName(NamedTuple):
    """A model's name, taken apart."""

    words: frozenset[str]
    sizes: frozenset[str]
    version: tuple[int, ...]
    date: str
    unfinished: bool


def model_name(model: str) -> ModelName:
    """Take a model's name apart."""
    words: set[str] = set()
    sizes: set[str] = set()
    version: list[int] = []
    date = ""
    tokens = _TOKEN.split(_FULL_DATE.sub(r"\1\2\3", model.lower()))
    for token in filter(None, tokens):
        numbered = _NUMBERED.fullmatch(token)
        if token in _SIZES or _PARAMETERS.fullmatch(token):
            sizes.add(token)
        elif _DATE.fullmatch(token):
            date = token
        elif numbered:
            version.append(int(numbered[2]))
            words.update(filter(None, [numbered[1]]))
        else:
            words.add(token)
    unfinished = bool(words & _UNFINISHED)
    return ModelName(frozenset(words - _SILENT), frozenset(sizes), tuple(version), date, unfinished)


def is_successor(candidate: ModelName, current: ModelName) -> bool:
    """True for a finished model of the same family, any size, that is the same or newer."""
    if candidate.words != current.words or candidate.unfinished:
        return False
    if candidate.version and current.version:
        return candidate.version >= current.version
    # Without versions dates tell, where both are written alike.
    return (
        candidate.version == current.version
        and len(candidate.date) == len(current.date)
        and candidate.date >= current.date
    )
