"""What errors of real clients say about their provider."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest
from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException

from langmeter import BudgetExceeded
from langmeter.runnables.providers.failures import Kind, kind_of, retry_after

if TYPE_CHECKING:
    import anthropic

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


# langchain-core 1.0 has no such class; its name decides.
_OVERFLOW = getattr(exceptions, "ContextOverflowError", None) or type(
    "ContextOverflowError", (Exception,), {}
)


def _openai(status: int, body: Any = None, headers: Any = None) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://service/v1")
    response = httpx2.Response(status, json=body or {}, headers=headers or {}, request=request)
    client = openai.OpenAI(api_key="x")
    return client._make_status_error_from_response(response)


def _anthropic(status: int, message: str) -> anthropic.APIStatusError:
    request = httpx.Request("POST", "http://service/v1")
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    response = httpx.Response(status, json=body, request=request)
    import anthropic

    client = anthropic.Anthropic(api_key="x")
    return client._make_status_error(message, body=body, response=response)  # type: ignore[arg-type]


class WrappedError(Exception):
    """A client's error around another one."""


def _wrapped(cause: Exception) -> Exception:
    error = WrappedError("the call failed")
    error.__cause__ = cause
    return error


QUOTA = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}
LONG = {"error": {"code": "context_length_exceeded", "message": "maximum context length is 8192"}}
BUDGET = BudgetExceeded("b", {}, "usd", 1, 1, 0, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_openai(500), Kind.FAILED),
        (_openai(503), Kind.FAILED),
        (_openai(408), Kind.FAILED),
        (_openai(403), Kind.FAILED),
        (_openai(429), Kind.THROTTLED),
        (_openai(429, QUOTA), Kind.EXHAUSTED),
        (_openai(402), Kind.EXHAUSTED),
        (_openai(401), Kind.UNAUTHORIZED),
        (_openai(400), Kind.REQUEST),
        (_openai(404), Kind.REQUEST),
        (_openai(422), Kind.REQUEST),
        (_openai(400, LONG), Kind.CONTEXT),
        (_anthropic(400, "prompt is too long: 200001 tokens > 200000 maximum"), Kind.CONTEXT),
        (_anthropic(400, "Your credit balance is too low to access the API"), Kind.EXHAUSTED),
        (_anthropic(529, "Overloaded"), Kind.FAILED),
        (_wrapped(_openai(429)), Kind.THROTTLED),
        (_OVERFLOW("too long"), Kind.CONTEXT),
        (OutputParserException("not JSON"), Kind.REQUEST),
        (ValueError("a wrong argument"), Kind.REQUEST),
        (DeprecationWarning("old"), Kind.REQUEST),
        (httpx.ReadTimeout("slow"), Kind.FAILED),
        (ConnectionResetError(), Kind.FAILED),
        (TimeoutError(), Kind.FAILED),
        (RuntimeError("?"), Kind.FAILED),
        (BUDGET, Kind.BUDGET),
        (asyncio.CancelledError(), Kind.CANCELLED),
        (GeneratorExit(), Kind.CANCELLED),
        (KeyboardInterrupt(), Kind.CANCELLED),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else type(value).__name__,
)
def test_an_error_has_one_meaning(error: BaseException, kind: Kind) -> None:
    """By status, code and class, also through a client's wrapper."""
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after": "Thu, 26 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 26 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "6500"}, 6.5),
        ({"retry-after": "99999999"}, 86_400.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    """And what is neither counts as absent."""
    error = _openai(429, headers=headers)
    assert retry_after(error, NOW) == seconds
    assert retry_after(_wrapped(error), NOW) == seconds


def test_a_broken_connection_is_a_failure_whatever_code_its_cause_has() -> None:
    """The parser of aiohttp calls a body that is too short a bad request, 400."""
    error = type("ClientPayloadError", (Exception,), {})("Response payload is not completed")
    error.__cause__ = type("ContentLengthError", (Exception,), {"code": 400})()
    assert kind_of(error) is Kind.FAILED


def test_other_clients_say_it_elsewhere() -> None:
    """Google's errors in nested details, botocore's in the metadata of the response."""
    google, boto = WrappedError(), WrappedError()
    vars(google)["details"] = {"error": {"details": [{"@type": "x"}, {"retryDelay": "34.5s"}]}}
    vars(boto)["response"] = {
        "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "9"}}
    }
    assert retry_after(google) == 34.5
    assert (kind_of(boto), retry_after(boto)) == (Kind.THROTTLED, 9.0)
