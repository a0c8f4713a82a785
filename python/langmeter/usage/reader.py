"""The one entrance: the quick look where it is enough, the careful one otherwise."""

from __future__ import annotations

from typing import Any

from langmeter.usage.careful import look_carefully
from langmeter.usage.quick import look_quickly
from langmeter.usage.types import NOTHING, Reading


def read(response: Any) -> Reading:
    """Read what a call used, who answered and what was billed.

    Takes an `LLMResult` (of `on_llm_end`, or the partial one of `on_llm_error`), the response of a
    decision model, a message, a `message-finish` event, or anything else: what it does not find is
    empty, what is no number is counted in `refused`. Never raises. Several prompts in one response
    are added up; of several candidates the first that holds usage counts, because each repeats
    that of the whole call.
    """
    try:
        return look_quickly(response)
    except Exception:  # not of the common kind, whatever the surprise
        pass
    try:
        return look_carefully(response)
    except Exception:  # an object that raises when looked at
        return NOTHING._replace(refused=1)
