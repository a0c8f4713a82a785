"""Reading of exceptions: the outcome, the HTTP status and the name of a failure.

Exceptions come from code that langmeter does not know. An attribute may be a property that raises,
or an object whose own attributes raise: whatever cannot be read counts as absent.
"""

from __future__ import annotations

from typing import Any, Final

from langmeter import _core

ERROR, CANCELLED, INTERRUPTED = map(_core.OUTCOMES.index, ("error", "cancelled", "interrupted"))

#: Outcomes other than `error`, by the name of a class in the exception's MRO: langgraph need not be
#: imported, and `concurrent.futures` has a CancelledError of its own.
_CONTROL_FLOW: Final = {
    "CancelledError": CANCELLED,
    "GeneratorExit": CANCELLED,
    "KeyboardInterrupt": CANCELLED,
    "GraphBubbleUp": INTERRUPTED,
}


def outcome_of(error: BaseException) -> int:
    """Return the code of the outcome that an exception means, an index into `_core.OUTCOMES`."""
    for cls in type(error).__mro__:
        code = _CONTROL_FLOW.get(cls.__name__)
        if code is not None:
            return code
    return ERROR


def is_server_response(error: BaseException) -> bool:
    """Return whether a server reported the failure, also in the middle of a stream.

    Such a call costs nothing. The exceptions of HTTP clients then carry the server's response;
    those of a broken connection carry none.
    """
    return any(_read(error, name) is not None for name in ("status_code", "body", "response"))


def error_label(error: BaseException) -> str:
    """Return the class of an exception, followed by the HTTP status if it carries one."""
    name, status = type(error).__name__, status_of(error)
    return name if status is None else f"{name} {status}"


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception carries, 100 to 599; None without one.

    The places are those of openai, anthropic and httpx (`status_code`, `response.status_code`), of
    Google's clients and urllib (`code`), and of botocore (`response["ResponseMetadata"]`).
    """
    response = _read(error, "response")
    for status in (
        _read(error, "status_code"),
        _read(response, "status_code"),
        _read(error, "code"),
        _entry(_entry(response, "ResponseMetadata"), "HTTPStatusCode"),
    ):
        try:
            whole = isinstance(status, int) and not isinstance(status, bool)
            if whole and 100 <= status <= 599:
                return int(status)
        except Exception:  # `__class__` or a comparison of an int subclass that raises
            continue
    return None


def _read(source: object, name: str) -> Any:
    try:
        return getattr(source, name, None)
    except Exception:
        return None


def _entry(source: object, key: str) -> Any:
    try:
        return source.get(key) if isinstance(source, dict) else None
    except Exception:
        return None
