"""Reading of errors: whether the provider failed, and until when to leave it alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from langmeter._base.failures import ERROR, outcome_of, status_of
from langmeter.errors import BudgetExceeded
from langmeter.runnables.resume.policy import BROKEN

#: Seconds of the longest `Retry-After` that is believed.
_LONGEST: Final = 86_400.0
#: How errors name an account without money or quota, which takes hours to change. Gemini's quota
#: by the day has its name in the details; a quota by the minute comes with a short delay.
_EXHAUSTED: Final = (
    "insufficient_quota",
    "billing_hard_limit",
    "billing_not_active",
    "credit balance is too low",
    "quota exhausted",
    "quota_exhausted",
    "perday",
)
#: How errors name a prompt that is too long for the model.
_OVERFLOW: Final = (
    "context_length_exceeded",
    "maximum context length",
    "context window",
    "prompt is too long",
    "input token count",
)
#: Classes that mean that the request, the answer's form or the calling code is at fault.
_NOT_THE_PROVIDER: Final = (
    ValueError,  # parsers of output raise it too
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    Warning,  # where the host makes warnings errors
)


class Kind(Enum):
    """The meaning of an error for the health of its provider."""

    #: It failed: its circuit counts it.
    FAILED = "failed"
    #: Too many requests: it waits, and that is not a failure.
    THROTTLED = "throttled"
    #: Its quota or money is used up.
    EXHAUSTED = "exhausted"
    #: It refuses the key.
    UNAUTHORIZED = "unauthorized"
    #: The prompt is too long for its model.
    CONTEXT = "context"
    #: The request is at fault, or what read the answer.
    REQUEST = "request"
    #: A budget refused the call.
    BUDGET = "budget"
    #: The caller gave up, or a graph interrupted.
    CANCELLED = "cancelled"


def kind_of(error: BaseException) -> Kind:
    """Return what an error means for its provider."""
    if isinstance(error, BudgetExceeded):
        return Kind.BUDGET
    if not isinstance(error, Exception) or outcome_of(error) != ERROR:
        return Kind.CANCELLED
    names = {cls.__name__ for cls in type(error).__mro__}
    status = status_of(error)
    # The cause of a broken connection may have a code of its own: aiohttp calls a short body 400.
    if status is None and names.isdisjoint(BROKEN):
        status = next((s for e in _chain(error) if (s := status_of(e)) is not None), None)
    text = _text(error) if status is None or 400 <= status < 500 else ""
    if status == 401:
        return Kind.UNAUTHORIZED
    if status == 402 or (status in (400, 403, 429) and any(sign in text for sign in _EXHAUSTED)):
        return Kind.EXHAUSTED
    if status == 429:
        return Kind.THROTTLED
    if "ContextOverflowError" in names or (
        status in (400, 413, 422) and any(sign in text for sign in _OVERFLOW)
    ):
        return Kind.CONTEXT
    if status is not None and 400 <= status < 500 and status not in (403, 408, 409):
        return Kind.REQUEST
    if "ModelRefusalError" in names:
        return Kind.REQUEST
    if status is None and isinstance(error, _NOT_THE_PROVIDER) and "JSONDecodeError" not in names:
        return Kind.REQUEST
    return Kind.FAILED


def retry_after(error: BaseException, now: datetime | None = None) -> float | None:
    """Return the seconds after which a provider may be called again, as its response says.

    Read from `retry-after-ms`, from `retry-after` in seconds or as an HTTP date, and from the
    `retryDelay` in the details of Google's errors; 0 to 86,400, None where there is none of them.
    """
    for each in _chain(error):
        headers = _headers(each)
        for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
            seconds = _seconds(headers.get(name), scale, now)
            if seconds is not None:
                return seconds
        seconds = _delay(getattr(each, "details", None))
        if seconds is not None:
            return seconds
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: clients wrap the errors of what they call."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__


def _headers(error: BaseException) -> dict[str, Any]:
    try:
        response: Any = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            headers: Any = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        else:
            headers = getattr(response, "headers", None) or getattr(error, "headers", None) or {}
        return {str(name).lower(): value for name, value in dict(headers).items()}
    except Exception:  # a foreign object may raise anything
        return {}


def _seconds(value: Any, scale: float, now: datetime | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value) / scale
    except (TypeError, ValueError):
        try:
            moment = parsedate_to_datetime(str(value))
        except (TypeError, ValueError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST) if seconds == seconds else None


def _delay(details: Any, depth: int = 4) -> float | None:
    """Find `retryDelay: "34s"` in nested details."""
    if not depth or not isinstance(details, dict | list | tuple):
        return None
    if isinstance(details, dict):
        delay = details.get("retryDelay")
        if isinstance(delay, str):
            return _seconds(delay.removesuffix("s"), 1.0, None)
        details = list(details.values())
    delays = (_delay(each, depth - 1) for each in details)
    return next((seconds for seconds in delays if seconds is not None), None)


def _text(error: BaseException) -> str:
    """Return the message, code and body of an error in lower case; "" where they raise."""
    parts = []
    for each in _chain(error):
        for read in (str, _body):
            try:
                parts.append(read(each))
            except Exception:
                continue
    return " ".join(parts).lower()


def _body(error: BaseException) -> str:
    return " ".join(str(getattr(error, name, "")) for name in ("code", "body", "details"))
