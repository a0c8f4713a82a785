"""How an answer came to its end, by the response: at the limit of its length, after a wait."""

from __future__ import annotations

from typing import Any

_REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason")
_TOO_LONG = frozenset(("length", "model_length", "max_tokens", "MAX_TOKENS", "max_output_tokens"))


def truncated(response: Any) -> bool:
    """Whether the answer ended at the limit of its length. Never raises."""
    return any(
        meta.get(key) in _TOO_LONG
        for meta in _metadata(response)
        for key in _REASONS
        if isinstance(meta.get(key), str)
    ) or any(_incomplete(meta.get("incomplete_details")) for meta in _metadata(response))


def queue_time(response: Any) -> int | None:
    """Nanoseconds that the call waited at the provider's, as Groq tells; None when nobody does."""
    for meta in _metadata(response):
        usage = meta.get("token_usage")
        waited = usage.get("queue_time") if isinstance(usage, dict) else None
        if isinstance(waited, int | float) and 0 <= waited < 1e9:
            return round(waited * 1e9)
    return None


def _incomplete(details: Any) -> bool:
    return isinstance(details, dict) and details.get("reason") in _TOO_LONG


def _metadata(response: Any) -> list[dict[Any, Any]]:
    """What is said of each candidate: of a chat by its message, of a text beside it."""
    found = []
    try:
        for prompt in response.generations:
            for candidate in prompt:
                message = getattr(candidate, "message", None)
                found.append(getattr(message, "response_metadata", None))
                found.append(getattr(candidate, "generation_info", None))
    except Exception:  # a foreign object may do anything; it says nothing then
        found = []
    return [meta for meta in found if isinstance(meta, dict)]
