"""The simulator's formats: each provider's real client reads what was sent, to the token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI

from langmeter.testing.simulator import (
    MODELS,
    Choice,
    Raw,
    Reply,
    Sent,
    Text,
    Thought,
    ToolUse,
)
from langmeter.testing.simulator.server import Server

pytestmark = pytest.mark.clients

ARGUMENTS = ("", '{"city":', ' "Oslo"}')
REPLY = Reply(
    (Choice((Thought(("let me", " see")), Text(("It", " is")), ToolUse("c-1", "w", ARGUMENTS))),),
    input=2000,
    output=30,
    cache_read=1024,
    reasoning=10,
)
WEATHER: Any = {
    "name": "w",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def chat(service: Server) -> BaseChatModel:
    made: Any = ChatOpenAI
    return made(model="gpt-4o", base_url=service.url, api_key="x", max_retries=0, stream_usage=True)


def responses(service: Server) -> BaseChatModel:
    made: Any = ChatOpenAI
    return made(
        model="o4-mini",
        base_url=service.url,
        api_key="x",
        max_retries=0,
        use_responses_api=True,
    )


def claude(service: Server) -> BaseChatModel:
    made: Any = ChatAnthropic
    return made(model="claude-haiku-4-5", base_url=service.root, api_key="x", max_retries=0)


def gemini(service: Server) -> BaseChatModel:
    made: Any = ChatGoogleGenerativeAI
    return made(model="gemini-2.5-flash", base_url=service.root, api_key="x", max_retries=1)


CLIENTS = pytest.mark.parametrize("client", [chat, responses, claude, gemini])
Client = Callable[[Server], BaseChatModel]


def receive(model: Any, stream: bool) -> AIMessage:
    """Return the message of a call."""
    if stream:
        return reduce(add, model.stream("hi"))
    return model.invoke("hi")


@CLIENTS
@pytest.mark.parametrize("stream", [False, True])
def test_usage_text_and_tools(client: Client, stream: bool, service: Server) -> None:
    """Text, tool call, finish and usage are those of the reply, and the truth has them."""
    service.script(REPLY)
    model = client(service)
    name = MODELS[model._get_ls_params()["ls_model_name"]]
    before = service.truth().sent("ok", model=name)
    message = receive(model.bind_tools([WEATHER]), stream)
    (call,) = message.tool_calls
    usage: Any = message.usage_metadata
    assert message.text == "It is"
    assert (call["name"], call["args"], call["id"]) == ("w", {"city": "Oslo"}, "c-1")
    assert (usage["input_tokens"], usage["output_tokens"]) == (2000, 30)
    assert usage["input_token_details"]["cache_read"] == 1024
    if client is not claude:
        assert usage["output_token_details"]["reasoning"] == 10
    assert name in message.response_metadata.values()
    assert service.truth().sent("ok", model=name) == Sent(
        before.calls + 1,
        before.input + 2000,
        before.output + 30,
        before.cache_read + 1024,
        before.reasoning + 10,
    )


@CLIENTS
@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_is_the_reason_to_finish(client: Client, stream: bool, service: Server) -> None:
    """An answer that the token limit cut says so, in the words of its provider."""
    service.script(Reply((Choice((Text(("cut",)),), "length"),), input=1, output=1))
    metadata = receive(client(service), stream).response_metadata
    reasons = {"length", "max_tokens", "MAX_TOKENS", "incomplete"}
    assert reasons & {value for value in metadata.values() if isinstance(value, str)}


@CLIENTS
@pytest.mark.parametrize("status", [400, 401, 429, 503])
def test_a_refusal(client: Client, status: int, service: Server) -> None:
    """A status is the client's own error of its kind, and is counted."""
    service.script(Reply(status=status))
    outcome = {429: "rate_limited", 503: "server_error"}.get(status, "invalid")
    before = service.truth().sent(outcome)
    with pytest.raises(Exception, match=f"The service answers {status}"):
        client(service).invoke("hi")
    assert service.truth().sent(outcome) == Sent(calls=before.calls + 1)


@CLIENTS
@pytest.mark.parametrize("fault", ["broken", "error_event"])
def test_a_stream_that_fails(client: Client, fault: Any, service: Server) -> None:
    """The first piece arrives, then the client raises; the truth has the prompt and the piece."""
    text = Choice((Text(("It", " is")),))
    service.script(replace(REPLY, choices=(text,), fault=fault, cut=1))
    before = service.truth().sent("broken")
    texts = []
    with pytest.raises(Exception, match=r"."):  # noqa: PT012 - what came before it counts
        for chunk in client(service).stream("hi"):
            texts += [chunk.text] if chunk.text else []
    assert texts == ["It"]
    assert service.truth().sent("broken") == Sent(
        before.calls + 1,
        before.input + 2000,
        before.output + 1,
        before.cache_read,
        before.reasoning,
    )


@CLIENTS
def test_drawn_replies(client: Client, service: Server) -> None:
    """Without a script, what a client reads is what the truth says was sent."""
    before = service.truth().sent("ok")
    usages: list[Any] = [
        receive(client(service), stream).usage_metadata for stream in (True, False)
    ]
    after = service.truth().sent("ok")
    assert after.input - before.input == sum(usage["input_tokens"] for usage in usages)
    assert after.output - before.output == sum(usage["output_tokens"] for usage in usages) > 0


def post(service: Server, path: str, body: Any, **headers: str) -> httpx.Response:
    """Send a request without a client of the provider."""
    with httpx.Client(trust_env=False) as client:
        content = body if isinstance(body, bytes) else None
        json = None if content is not None else body
        return client.post(f"{service.root}{path}", content=content, json=json, headers=headers)


MESSAGES = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/chat/completions", b"{", {}),
        ("/v1/chat/completions", [], {}),
        ("/v1/chat/completions", {"model": "m"}, {}),
        ("/v1/chat/completions", {**MESSAGES, "model": None}, {}),
        ("/v1/chat/completions", {**MESSAGES, "n": 0.5}, {}),
        ("/v1/chat/completions", {**MESSAGES, "max_tokens": -1}, {}),
        ("/v1/chat/completions", {**MESSAGES, "max_tokens": 0.5}, {}),
        ("/v1/chat/completions", MESSAGES, {"x-simulate": "magic"}),
        ("/v1/responses", {"model": "m"}, {}),
        ("/v1/embeddings", {"model": "m"}, {}),
        ("/v1/messages", {"model": "m", "messages": "hi"}, {}),
        ("/v1beta/models/m:embedContent", {"contents": []}, {}),
    ],
)
def test_a_bad_request(path: str, body: Any, headers: dict[str, str], service: Server) -> None:
    """What a provider would refuse is refused with status 400, and counted."""
    before = service.truth().sent("invalid")
    answer = post(service, path, body, **headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert service.truth().sent("invalid") == Sent(calls=before.calls + 1)


def test_routes(service: Server) -> None:
    """A path or a method without a route is 404; the query is not part of a path."""
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{service.root}/v2").status_code == 404
        assert client.get(f"{service.url}/chat/completions").json()["error"]["code"] == "not_found"
        models = client.get(f"{service.url}/models?a=b").json()["data"]
    assert {model["id"] for model in models} == set(MODELS)


def test_embeddings(service: Server) -> None:
    """Vectors tell texts apart; tokens are the words, or those that came; faults apply."""
    body = {"model": "m", "input": ["one two", [1, 2, 3]]}
    answer = post(service, "/v1/embeddings", body).json()
    assert [each["embedding"] for each in answer["data"]] == [[7.0, 1.0], [3.0, 1.0]]
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    azure = post(service, "/openai/deployments/mine/embeddings", {"input": "one"}).json()
    assert (azure["model"], azure["usage"]["prompt_tokens"]) == ("mine", 1)
    refused = post(service, "/v1/embeddings", body, **{"x-simulate": "server_error"})
    assert refused.status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        post(service, "/v1/embeddings", body, **{"x-simulate": "broken"})


def test_a_script(service: Server) -> None:
    """Replies come in their order, the last one from then on; raw ones are not in the truth."""
    before = service.truth().sent()
    raw = Raw({"whole": True}, [{"type": "a", "n": 1}, {"n": 2}])
    service.script(Reply(status=404), raw)
    path = "/v1/chat/completions"
    assert post(service, path, MESSAGES).status_code == 404
    assert [post(service, path, MESSAGES).json() for _ in range(2)] == [{"whole": True}] * 2
    stream = post(service, path, {**MESSAGES, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text == 'event: a\ndata: {"type":"a","n":1}\n\ndata: {"n":2}\n\n'
    assert service.truth().sent().calls == before.calls + 1
