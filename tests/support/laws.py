"""How many examples a law is tried with."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

#: Examples of the profile `langmeter`, which counts are meant for.
EXAMPLES = 100


def examples(count: int, **more: Any) -> settings:
    """Return settings for `count` examples, fewer in the proportion of the profile that is loaded.

    A plain `settings(max_examples=count)` would overrule the profile, so that `make quick` tried
    as many as `make test`.
    """
    scaled = max(5, count * settings().max_examples // EXAMPLES)
    return settings(max_examples=min(count, scaled), **more)
