"""Labels: keys of a call's metadata, or several crossed, by whose values calls are counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.options import Rule, ruled

#: A label: a key, or a tuple of keys that are crossed.
Label: TypeAlias = str | tuple[str, ...]
#: Labels as users write them.
Labels: TypeAlias = Iterable[str | Iterable[str]]

#: Keys of a label at most, and bytes of one: so many fit into the name of a row.
_MAX_KEYS: Final = 3
_MAX_KEY: Final = 80
#: Recorded with every label.
_RESERVED: Final = ("provider", "model")
_REMEDY: Final = 'write e.g. labels = ["team", ["team", "customer"]]'


def keys_of(label: Label) -> tuple[str, ...]:
    """Return the keys of a label."""
    return (label,) if isinstance(label, str) else label


def checked_labels(labels: Labels) -> tuple[Label, ...]:
    """Return up to three labels, each once; raises ConfigError for anything else."""
    return _check("labels", labels)


def _check(name: str, labels: object) -> tuple[Label, ...]:
    listed: Iterable[object] | None = None
    if isinstance(labels, str):
        listed = (labels,)
    elif isinstance(labels, Iterable) and not isinstance(labels, Mapping | bytes):
        listed = tuple(labels)
    elif labels is False:
        listed = ()
    # The same keys in another order are the same label.
    each_once: dict[frozenset[str], Label] = {}
    for label in listed or ():
        keys = _keys(label)
        if keys:
            each_once.setdefault(frozenset(keys), keys[0] if len(keys) == 1 else keys)
        else:
            listed = None
            break
    if listed is None or len(each_once) > _core.MAX_LABELS:
        most = _core.MAX_LABELS
        what = f"up to {most} keys of a call's metadata, or lists of up to {_MAX_KEYS} to cross"
        raise refusal(name, what, labels, _REMEDY)
    for key in (key for label in each_once.values() for key in keys_of(label)):
        if key in _RESERVED:
            remedy = f'by("team", "{key}") has it beside every label'
            raise refusal(name, "keys other than provider and model", key, remedy)
    return tuple(each_once.values())


def _keys(label: object) -> tuple[str, ...] | None:
    """Return the keys of what may be a label; None where it is none."""
    if isinstance(label, str):
        keys: tuple[Any, ...] = (label,)
    elif isinstance(label, Iterable) and not isinstance(label, Mapping | bytes):
        keys = tuple(label)
    else:
        return None
    good = all(map(_is_key, keys)) and 0 < len(set(keys)) == len(keys) <= _MAX_KEYS
    return keys if good else None


def _is_key(key: object) -> bool:
    # SEPARATOR and halves of surrogate pairs do not print.
    if not (isinstance(key, str) and key and key.isprintable()):
        return False
    return len(key.encode()) <= _MAX_KEY


_KEY: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": _MAX_KEY,
    "not": {"enum": list(_RESERVED)},
}
#: Rule of the option `labels`.
LABELS: Final = ruled(
    Rule(
        _check,
        {
            "type": "array",
            "items": {
                "anyOf": [
                    _KEY,
                    {
                        "type": "array",
                        "items": _KEY,
                        "minItems": 1,
                        "maxItems": _MAX_KEYS,
                        "uniqueItems": True,
                    },
                ]
            },
            "maxItems": _core.MAX_LABELS,
        },
    )
)
