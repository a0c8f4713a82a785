"""The simulator's chat completions, through the real OpenAI client and LangChain's integration."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI

from langmeter.testing.simulator import MODELS, Choice, Reply, Sent, Text, Traffic
from langmeter.testing.simulator.reply import Fault
from langmeter.testing.simulator.server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.clients

NO_FAULTS: dict[str, Any] = {"rate_limited": 0.0, "server_error": 0.0, "broken": 0.0}


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    """The simulator with system prompts, so that some are cached; without delays and faults."""
    with Server(Traffic(7, speed=math.inf, **NO_FAULTS)) as server:
        yield server


@pytest.fixture(autouse=True)
def _unscripted(service: Server) -> Iterator[None]:
    yield
    service.script()


TWO_WORDS = Choice((Text(("one", " two")),))


@contextmanager
def chat(service: Server, model: str = "gpt-4o-mini", **settings: Any) -> Iterator[ChatOpenAI]:
    with openai.DefaultHttpxClient(trust_env=False) as client:
        yield ChatOpenAI(
            model=model,
            base_url=service.url,
            api_key="any",  # type: ignore[arg-type]
            stream_usage=True,
            http_client=client,
            **{"max_retries": 0, **settings},
        )


def body(text: str = "hello", model: str = "gpt-4o-mini", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def usage(message: AIMessage) -> Sent:
    """Return the usage that the client received."""
    told = message.usage_metadata
    assert told is not None
    assert told["total_tokens"] == told["input_tokens"] + told["output_tokens"]
    return Sent(
        1,
        told["input_tokens"],
        told["output_tokens"],
        told["input_token_details"]["cache_read"],
        told["output_token_details"]["reasoning"],
    )


def receive(llm: ChatOpenAI, question: str, stream: bool, words: list[str]) -> None:
    """Add to `words` what comes, until it ends or fails."""
    for piece in llm.stream(question) if stream else [llm.invoke(question)]:
        words += [piece.text] if piece.text else []


def during(service: Server, *outcomes: str) -> Callable[[], Sent]:
    """What was sent from now until the call."""
    before = service.truth().sent(*outcomes)
    return lambda: Sent(
        *(b - a for a, b in zip(before, service.truth().sent(*outcomes), strict=True))
    )


@pytest.mark.parametrize("model", ["gpt-4o-mini", "o4-mini", "mystery"])
def test_invoke(service: Server, model: str) -> None:
    """The usage in a whole reply is what the books say, under the dated name."""
    sent = during(service, "ok")
    with chat(service, model) as llm:
        message = llm.invoke(f"What is {model}?")
    assert usage(message) == sent()
    assert message.response_metadata["model_name"] == MODELS.get(model, model)
    words = len(message.text.split())
    assert words == usage(message).output - usage(message).reasoning
    assert (usage(message).reasoning > 0) == (model == "o4-mini")


def test_stream(service: Server) -> None:
    """A stream sends an empty role, one word at a time, and the usage once, at the end."""
    sent = during(service, "ok")
    with chat(service) as llm:
        pieces = list(llm.stream("Count for me."))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert isinstance(whole, AIMessageChunk)
    assert usage(whole) == sent()
    assert pieces[0].text == ""
    words = [piece.text for piece in pieces if piece.text]
    assert len(words) == usage(whole).output
    assert len(whole.text.split()) == len(words)
    assert whole.response_metadata["finish_reason"] == "stop"


async def test_async(service: Server) -> None:
    """64 calls at once, half of them streamed: the client's sum is the books' sum."""
    sent = during(service, "ok")
    async with openai.DefaultAsyncHttpxClient(trust_env=False) as client:
        llm = ChatOpenAI(
            model="gpt-4.1",
            base_url=service.url,
            api_key="any",  # type: ignore[arg-type]
            stream_usage=True,
            http_async_client=client,
            max_completion_tokens=40,
        )

        async def stream(number: int) -> AIMessage:
            chunks = [chunk async for chunk in llm.astream(f"stream {number}")]
            return sum(chunks[1:], start=chunks[0])

        messages = await asyncio.gather(
            *(llm.ainvoke(f"whole {n}") for n in range(32)), *map(stream, range(32))
        )
    told = map(usage, messages)
    assert tuple(map(sum, zip(*told, strict=True))) == sent()
    finishes = {m.response_metadata["finish_reason"] for m in messages}
    assert finishes == {"stop", "length"}


@pytest.mark.parametrize("stream", [True, False])
def test_several_choices(service: Server, stream: bool) -> None:
    """With n = 3 three answers come, and one usage for all of them."""
    sent = during(service, "ok")
    with openai.DefaultHttpxClient(trust_env=False) as http_client:
        client = openai.OpenAI(base_url=service.url, api_key="any", http_client=http_client)
        texts = ["", "", ""]
        request = {**body("three, please"), "n": 3}
        if stream:
            more = {"stream": True, "stream_options": {"include_usage": True}}
            bills = []
            for chunk in client.chat.completions.create(**request, **more):  # type: ignore[call-overload]
                bills += [chunk.usage] if chunk.usage else []
                for choice in chunk.choices:
                    texts[choice.index] += choice.delta.content or ""
            (bill,) = bills
        else:
            whole = client.chat.completions.create(**request)
            bill = whole.usage
            for choice in whole.choices:
                texts[choice.index] = choice.message.content
    assert all(texts)
    assert sum(len(text.split()) for text in texts) == bill.completion_tokens == sent().output


def test_stream_without_usage(service: Server) -> None:
    """A stream whose client did not ask for usage gets none; the books call it unreported."""
    sent = during(service, "unreported")
    with chat(service) as llm:
        pieces = list(llm.stream("No bill.", stream_usage=False))
    assert all(piece.usage_metadata is None for piece in pieces)
    assert sent().calls == 1
    assert sent().output == sum(bool(piece.text) for piece in pieces)


def test_nothing_visible(service: Server) -> None:
    """A token limit that reasoning uses up leaves an empty answer that was cut."""
    with chat(service, "o4-mini", max_completion_tokens=10) as llm:
        chunks = list(llm.stream("Think."))
    whole = sum(chunks[1:], start=chunks[0])
    assert (whole.text, usage(whole).reasoning, usage(whole).output) == ("", 10, 10)
    assert whole.response_metadata["finish_reason"] == "length"


def test_rate_limited(service: Server) -> None:
    """429 comes as OpenAI's error with a time to wait, and costs no tokens."""
    sent = during(service, "rate_limited")
    with (
        chat(service, default_headers={"x-simulate": "rate_limited"}) as llm,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        llm.invoke("Too fast?")
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert float(caught.value.response.headers["retry-after-ms"]) >= 0
    assert sent() == Sent(calls=1)


def test_server_error(service: Server) -> None:
    """500 comes as OpenAI's error."""
    sent = during(service, "server_error")
    with (
        chat(service, default_headers={"x-simulate": "server_error"}) as llm,
        pytest.raises(openai.InternalServerError),
    ):
        list(llm.stream("Well?"))
    assert sent() == Sent(calls=1)


@pytest.mark.parametrize("stream", [True, False])
def test_broken(service: Server, stream: bool) -> None:
    """A reply that breaks off is an error to the client, after the tokens in the books."""
    sent = during(service, "broken")
    words: list[str] = []
    with (
        chat(service, default_headers={"x-simulate": "broken"}) as llm,
        pytest.raises(openai.APIConnectionError),
    ):
        receive(llm, "And then?", stream, words)
    assert (sent().calls, sent().output) == (1, len(words))
    assert bool(words) == stream


def leave(service: Server, stream: bool) -> None:
    """Give up after the first word of a stream, or after a while without an answer."""
    # Only the wait for an answer is short: a busy machine may take its time to connect.
    with chat(service, timeout=openai.Timeout(60, read=60 if stream else 0.2)) as llm:
        if stream:
            pieces = llm.stream("Are you there?")
            assert next(piece for piece in pieces if piece.text)
            pieces.close()  # type: ignore[attr-defined]
        else:
            with pytest.raises(openai.APITimeoutError):
                llm.invoke("Are you there?")


@pytest.mark.parametrize("stream", [True, False])
def test_stall(service: Server, stream: bool) -> None:
    """A reply that falls silent lasts until the client gives up, and is counted then."""
    sent = during(service, "disconnected")
    service.script(Reply((TWO_WORDS,), input=9, output=2, fault="stall", cut=1))
    leave(service, stream)
    assert eventually(lambda: sent().calls == 1)
    assert sent() == Sent(1, 9, int(stream))


@pytest.mark.parametrize("stream", [True, False])
def test_disconnected(service: Server, stream: bool) -> None:
    """A client that leaves a reply on its way is noticed, and no usage is counted as sent."""
    sent = during(service)
    service.script(Reply((TWO_WORDS,), input=9, output=2, delays=(0.0, 600.0)))
    leave(service, stream)
    assert eventually(lambda: sent().calls == 1)
    assert sent() == Sent(1, 9, int(stream))


@pytest.mark.parametrize("fault", ["truncated", "error_event"])
def test_streams_that_end_otherwise(service: Server, fault: Fault) -> None:
    """A stream may end without its last events, or with an error in one of them."""
    sent = during(service, "broken")
    service.script(Reply((TWO_WORDS,), input=9, output=2, fault=fault, cut=1))
    words: list[str] = []
    with chat(service) as llm:
        if fault == "truncated":
            receive(llm, "And then?", True, words)
        else:
            with pytest.raises(openai.APIError, match="The server had an error"):
                receive(llm, "And then?", True, words)
    assert words == ["one"]
    assert sent() == Sent(1, 9, 1)


def test_rates() -> None:
    """Faults come at their rates, each as the client's error of its kind."""
    with (
        Server(Traffic(1, math.inf, rate_limited=0.2, server_error=0.1, broken=0.1)) as moody,
        chat(moody) as llm,
    ):
        questions = [f"question {n}" for n in range(200)]
        replies = llm.batch(questions, {"max_concurrency": 8}, return_exceptions=True)  # type: ignore[arg-type]
        truth = moody.truth()
    told = [usage(reply) for reply in replies if isinstance(reply, AIMessage)]
    assert tuple(map(sum, zip(*told, strict=True))) == truth.sent("ok")
    for outcome, error, expected in (
        ("rate_limited", openai.RateLimitError, 40),
        ("server_error", openai.InternalServerError, 20),
        ("broken", openai.APIConnectionError, 20),
    ):
        calls = truth.sent(outcome).calls
        assert calls == sum(isinstance(reply, error) for reply in replies)
        assert calls == pytest.approx(expected, abs=15)


def test_retries() -> None:
    """The client's own retries wait as long as they are told, and get through."""
    with (
        Server(Traffic(1, 1000, rate_limited=0.5, server_error=0, broken=0)) as busy,
        chat(busy, max_retries=10) as llm,
    ):
        told = [usage(llm.invoke(f"question {n}")) for n in range(30)]
    assert tuple(map(sum, zip(*told, strict=True))) == busy.truth().sent("ok")
    assert busy.truth().sent("rate_limited").calls > 10
