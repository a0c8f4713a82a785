"""Answers that were collected: the final message, broken streams, refusals."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult

from langmeter import Meter, StreamingCallback
from langmeter._base.failures import status_of
from langmeter.streaming import StreamFailure, StreamResult
from langmeter.testing import ManualClock
from tests.support.streamed import Heard, Run, call, lost


@pytest.mark.parametrize(
    ("final", "kinds"),
    [
        ({"content": "ab"}, ()),
        ({"content": [{"type": "text", "text": "a"}, "b"]}, ()),
        ({"content": "other"}, ("text",)),
        ({"content": "ab", "tool_calls": [{"id": "1", "name": "f", "args": {}}]}, ("tool_calls",)),
        (
            {
                "content": "ab",
                "usage_metadata": {"input_tokens": 5, "output_tokens": 0, "total_tokens": 5},
            },
            ("usage",),
        ),
        (
            {
                "content": "ab",
                "usage_metadata": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
            },
            (),
        ),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_the_final_message_is_held_to_the_pieces(
    final: dict[str, Any],
    kinds: tuple[str, ...],
    listening: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What differs is counted each time and logged once a kind, with nothing of what was said."""
    results: list[StreamResult] = []
    handler = StreamingCallback(collect=True, on_complete=results.append if listening else None)
    with caplog.at_level(logging.WARNING, logger="langmeter"):
        for _ in range(3):
            run = Run(handler)
            run.token("a")
            run.token("b")
            run.end(**final)
    assert [result.mismatches for result in results] == [kinds] * 3 * listening
    dropped = lost(handler)
    assert sum(dropped.values()) == 3 * len(kinds), dropped
    said = [record.getMessage() for record in caplog.records if "differs" in record.getMessage()]
    assert [kind in text for kind, text in zip(kinds, said, strict=True)] == [True] * len(kinds)
    assert handler._streams._open == (0, 0)
    assert handler.snapshot().totals.outcomes["ok"] == 3


def test_broken_arguments_are_compared_as_they_are() -> None:
    """LangChain hands on arguments that are not JSON as an invalid tool call."""
    heard = Heard()
    run = Run(heard.handler)
    run.token("", tool_call_chunks=[call(0, '{"a', "f", "1")])
    broken: Any = {
        "id": "1",
        "name": "f",
        "args": '{"a',
        "error": None,
        "type": "invalid_tool_call",
    }
    run.end("", invalid_tool_calls=[broken])
    old = Run(heard.handler)
    old.token("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    old.end("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    assert [result.mismatches for result in heard.results] == [(), ()]


def test_an_answer_has_its_tokens_price_and_times(prices: Any) -> None:
    """By the final usage and the price book, on the recorder's clock."""
    clock = ManualClock()
    results: list[StreamResult] = []
    meter = Meter(on_complete=results.append, prices=prices, clock=clock)
    run = Run(meter)
    for text in ("a", "b"):
        clock.advance(0.5)
        run.token(text)
    clock.advance(1.0)
    usage: Any = {"input_tokens": 1_000_000, "output_tokens": 100_000, "total_tokens": 1_100_000}
    run.end(
        "ab",
        usage_metadata=usage,
        response_metadata={"model_name": "fake-1", "finish_reason": "stop"},
    )
    (result,) = results
    assert (result.provider, result.model, result.finish_reason) == ("p", "fake-1", "stop")
    assert (result.run_id, result.text, result.events) == (run.run_id, "ab", 2)
    assert (result.time_to_first_token, result.elapsed) == (0.5, 2.0)
    assert result.tokens is not None
    assert (result.tokens.input, result.tokens.output, result.estimated) == (
        1_000_000,
        100_000,
        False,
    )
    assert result.cost is None  # the prices of provider p are unknown
    assert "text=" not in repr(result)


def test_a_broken_stream_keeps_what_had_come(prices: Any) -> None:
    """Class and status of the cause, text, estimated tokens and their price; v1 and v3 alike."""

    class ReadError(Exception):
        pass

    for hand_over in (True, False):
        failures: list[StreamFailure] = []
        meter = Meter(on_error=failures.append, prices=prices)
        run_id = uuid.uuid4()
        metadata = {"ls_provider": "genericfakechatmodel", "ls_model_name": "fake-1"}
        meter.on_chat_model_start({}, [["hello"]], run_id=run_id, metadata=metadata, batch_size=1)  # type: ignore[list-item]
        for text in ("one ", "two ", "three"):
            meter.on_llm_new_token(text, run_id=run_id)
        generation = ChatGenerationChunk(message=AIMessageChunk(content="one two three"))
        response = LLMResult(generations=[[generation]] if hand_over else [])
        meter.on_llm_error(ReadError("cut"), run_id=run_id, response=response)
        (failure,) = failures
        assert (failure.outcome, failure.error, failure.status) == ("error", "ReadError", None)
        assert (failure.text, failure.events, failure.run_id) == ("one two three", 3, run_id)
        assert failure.tokens is not None
        assert failure.estimated
        assert failure.tokens.output == 3
        assert failure.cost is not None
        assert meter.snapshot().totals.cost == failure.cost
        assert meter.streaming.failures == (failure,)
        assert "text=" not in repr(failure)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (type("E", (Exception,), {"status_code": 429})(), 429),
        (type("E", (Exception,), {"response": type("R", (), {"status_code": 500})})(), 500),
        (type("E", (Exception,), {"code": 503})(), 503),
        (
            type("E", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 424}}})(),
            424,
        ),
        (type("E", (Exception,), {"response": {}})(), None),
        (type("E", (Exception,), {"code": "invalid_api_key"})(), None),
        (type("E", (Exception,), {"code": 7})(), None),
        (ValueError(), None),
    ],
)
def test_the_status_is_where_clients_put_it(error: BaseException, status: int | None) -> None:
    """On the exception, on its response, or as its code; nothing else is taken for one."""
    assert status_of(error) == status


def test_a_refusal_in_the_middle_is_no_spend_and_says_what_had_come() -> None:
    """A server that says it failed charges nothing; the estimate is in the failure alone."""

    class OverloadedError(Exception):
        status_code = 529

    heard = Heard()
    run = Run(heard.handler)
    run.token("one ")
    run.token("two")
    run.fail(OverloadedError(), LLMResult(generations=[]))
    (failure,) = heard.failures
    assert (failure.status, failure.text, failure.cost) == (529, "one two", None)
    assert failure.tokens is not None
    assert failure.tokens.output == 2
    assert heard.handler.snapshot().totals.tokens.total == 0


def test_a_call_that_fails_before_its_first_token_is_told_too() -> None:
    """Whether it would have streamed is unknown; an answer given at once is not a stream."""
    heard = Heard()
    Run(heard.handler).fail(TimeoutError())
    Run(heard.handler).end("all at once")
    (failure,) = heard.failures
    assert (failure.events, failure.text, failure.time_to_first_token) == (0, "", None)
    assert failure.error == "TimeoutError"
    assert heard.results == []
