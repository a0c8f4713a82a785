"""What an exception means: how a run ended, by whose fault, and in which words."""

from __future__ import annotations

from typing import Any

from langmeter import _core

ERROR, CANCELLED, INTERRUPTED = map(_core.OUTCOMES.index, ("error", "cancelled", "interrupted"))

#: Ends that are no failures, by the name of a class in the exception's MRO: langgraph need not be
#: imported, and `concurrent.futures` has a CancelledError of its own.
_CONTROL_FLOW = {
    "CancelledError": CANCELLED,
    "GeneratorExit": CANCELLED,
    "KeyboardInterrupt": CANCELLED,
    "GraphBubbleUp": INTERRUPTED,
}


def outcome_of(error: BaseException) -> int:
    """The code of the outcome that an exception means."""
    for cls in type(error).__mro__:
        code = _CONTROL_FLOW.get(cls.__name__)
        if code is not None:
            return code
    return ERROR


def refused_by_server(error: BaseException) -> bool:
    """Whether a server said that the call failed, be it in the middle of a stream.

    That is no spend. The exceptions of the clients then carry what it said; those of a connection
    that broke carry nothing.
    """
    return any(_said(error, name) is not None for name in ("status_code", "body", "response"))


def cause_of(error: BaseException) -> str:
    """How a call failed: the exception's class, and the status where a server answered."""
    name, status = type(error).__name__, _status(error)
    return name if status is None else f"{name} {status}"


def _status(error: BaseException) -> int | None:
    """The HTTP status: of openai, anthropic and httpx; of Google's clients; of botocore."""
    response = _said(error, "response")
    for status in (
        _said(error, "status_code"),
        _said(response, "status_code"),
        _said(error, "code"),
        _entry(_entry(response, "ResponseMetadata"), "HTTPStatusCode"),
    ):
        if isinstance(status, int) and 100 <= status <= 599:
            return int(status)
    return None


def _said(of: object, name: str) -> Any:
    try:
        return getattr(of, name, None)
    except Exception:  # a property of somebody else's may do anything; it says nothing then
        return None


def _entry(of: object, key: str) -> Any:
    return of.get(key) if isinstance(of, dict) else None
