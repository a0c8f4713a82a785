"""Labels: up to three keys of a call's metadata by whose values calls are also counted."""

from __future__ import annotations

from collections.abc import Iterable

from langmeter import _core


def checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Up to three names; ValueError for anything else."""
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if len(names) > _core.MAX_LABELS or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"labels = {labels!r}: must be up to {_core.MAX_LABELS} keys of a call's metadata, "
            'e.g. labels=("team", "customer")'
        )
    return names
