"""Reading of exceptions whose attributes raise: nothing is lost, and no reader waits for ever."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langmeter import Meter, StreamingCallback
from langmeter._base.failures import error_label, is_server_response, outcome_of, status_of


class RaisingResponse:
    """A response of which no attribute can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class RaisingPropertyError(Exception):
    """An exception whose documented attributes are properties that raise."""

    @property
    def status_code(self) -> int:
        raise RuntimeError("status_code")

    @property
    def response(self) -> object:
        raise RuntimeError("response")

    code = body = status_code


class RaisingObjectError(Exception):
    """An exception that carries an object of which no attribute can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.response = self.code = self.status_code = self.body = RaisingResponse()


class RaisingTextError(Exception):
    """An exception that no text can be made of."""

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


HOSTILE = [RaisingPropertyError, RaisingObjectError, RaisingTextError]


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_exception_that_cannot_be_read_is_an_error_without_a_status(
    kind: type[Exception],
) -> None:
    """Its class is all that is known of it."""
    error = kind()
    assert (outcome_of(error), status_of(error), error_label(error)) == (1, None, kind.__name__)
    assert isinstance(is_server_response(error), bool)


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ({"status_code": 429}, 429),
        ({"response": type("R", (), {"status_code": 503})()}, 503),
        ({"code": 404}, 404),
        ({"response": {"ResponseMetadata": {"HTTPStatusCode": 400}}}, 400),
        ({"status_code": True, "code": 500}, 500),
        ({"code": 7}, None),
        ({"status_code": "429"}, None),
        ({"response": {"ResponseMetadata": None}}, None),
    ],
)
def test_the_status_is_read_where_clients_put_it(
    attributes: dict[str, Any], status: int | None
) -> None:
    """openai, anthropic and httpx, urllib and Google, botocore; a bool or text is not a status."""
    error = ValueError()
    for name, value in attributes.items():
        setattr(error, name, value)
    assert status_of(error) == status
    assert error_label(error) == ("ValueError" if status is None else f"ValueError {status}")


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("make", [Meter, StreamingCallback])
@pytest.mark.parametrize("collect", [True, False])
def test_a_failure_that_cannot_be_read_ends_the_iterator_of_its_events(
    kind: type[Exception], make: type[StreamingCallback], collect: bool
) -> None:
    """The call is counted, the failure reaches `on_error`, and `events(run_id)` ends."""
    failures: list[Any] = []
    handler = make(collect=collect, on_error=failures.append)
    streaming = handler.streaming if isinstance(handler, Meter) else handler
    run_id = uuid.uuid4()
    events: Iterator[Any] = iter(streaming.events(run_id))
    handler.on_chat_model_start({}, [[]], run_id=run_id)
    chunk = ChatGenerationChunk(message=AIMessageChunk(content="one"))
    handler.on_llm_new_token("one", chunk=chunk, run_id=run_id)
    handler.on_llm_error(kind(), run_id=run_id)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(e.text for e in events), daemon=True)
    reader.start()
    reader.join(30)
    assert not reader.is_alive()
    assert seen == ["one"]
    assert [(f.outcome, f.error, f.status) for f in failures] == [("error", kind.__name__, None)]
    assert handler.snapshot().totals.outcomes["error"] == 1
    assert handler.snapshot().in_flight == 0
