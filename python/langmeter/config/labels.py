"""Labels: up to three keys of a call's metadata by whose values calls are also counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.options import Rule, ruled


def checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return up to three names; raises ConfigError for anything else."""
    return _check("labels", labels)


def _check(name: str, labels: object) -> tuple[str, ...]:
    names: tuple[Any, ...] | None = None
    if isinstance(labels, Iterable) and not isinstance(labels, Mapping):
        names = (labels,) if isinstance(labels, str) else tuple(labels)
    elif labels is False:
        names = ()
    if (
        names is None
        or len(names) > _core.MAX_LABELS
        or not all(isinstance(each, str) and each for each in names)
    ):
        what = f"up to {_core.MAX_LABELS} keys of a call's metadata"
        raise refusal(name, what, labels, 'write e.g. labels = ["team", "customer"]')
    return names


#: Rule of the option `labels`.
LABELS: Final = ruled(
    Rule(
        _check,
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "maxItems": _core.MAX_LABELS,
        },
    )
)
