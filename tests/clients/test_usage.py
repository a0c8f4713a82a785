"""`usage.read` behind real clients: the oracle is the usage in the bytes that we serve them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult
from langchain_openai import ChatOpenAI, OpenAI

from langmeter.usage import Reading, Usage, read, requested

pytestmark = pytest.mark.clients

USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 40,
    "total_tokens": 160,
    "prompt_tokens_details": {"cached_tokens": 100, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
READ = Usage(input=120, output=40, total=160, cache_read=100, reasoning=30)


class Ends(BaseCallbackHandler):
    """Reads what the hooks get, inside the hooks."""

    raise_error = True
    run_inline = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.read: list[Reading] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.on_llm_start(serialized, messages, **kwargs)

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        params = kwargs.get("invocation_params")
        self.asked.append(requested(kwargs.get("metadata"), params, serialized))

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.read.append(read(response))


def serving(body: Any, content_type: str = "application/json") -> httpx.Client:
    """A client whose every request is answered with `body`, without a network."""
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": content_type}
    answer = httpx.MockTransport(lambda _: httpx.Response(200, text=content, headers=headers))
    return httpx.Client(transport=answer)


def completion(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "hello"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        **more,
    }


def chat(body: Any, content_type: str = "application/json", **kwargs: Any) -> ChatOpenAI:
    kwargs = {"model": "gpt-4o", "api_key": "x", "max_retries": 0, **kwargs}
    return ChatOpenAI(http_client=serving(body, content_type), **kwargs)


def test_openai_chat() -> None:
    """Requested and response names are both there."""
    ends = Ends()
    chat(completion()).invoke("hi", config={"callbacks": [ends]})
    assert ends.asked == [("openai", "gpt-4o")]
    assert ends.read == [Reading(READ, "openai", "gpt-4o-2024-08-06")]


def test_openai_flex_tier() -> None:
    """The renamed detail keys give the same numbers, and the tier."""
    ends = Ends()
    chat(completion(service_tier="flex")).invoke("hi", config={"callbacks": [ends]})
    assert ends.read[0].usage == READ._replace(tier="flex")


def test_openai_two_candidates() -> None:
    """The usage of a call with n = 2 counts once."""
    ends = Ends()
    choices = [
        {"index": i, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
        for i in range(2)
    ]
    chat(completion(choices=choices), n=2).invoke("hi", config={"callbacks": [ends]})
    assert ends.read == [Reading(READ, "openai", "gpt-4o-2024-08-06")]


# langchain-openai's own, when it adds up the null counts of two prompts.
@pytest.mark.filterwarnings("ignore:Unexpected type for token usage")
def test_a_batch_and_a_generate_are_read_prompt_by_prompt() -> None:
    """Each chat prompt has its own run with its own usage."""
    for how in ("batch", "generate"):
        ends = Ends()
        model = chat(completion())
        if how == "batch":
            model.batch(["a", "b"], config={"callbacks": [ends]})
        else:
            model.generate([[AIMessage("a")], [AIMessage("b")]], callbacks=[ends])
        assert [reading.usage for reading in ends.read] == [READ, READ]


def stream_of(usage: Any) -> str:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-dated"}
    deltas = [{"role": "assistant", "content": "hel"}, {"content": "lo"}, {}]
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def test_openai_stream_with_and_without_usage() -> None:
    """The usage comes in the last chunk; a stream that has none is None, not zero."""
    for usage, expected in ((USAGE, READ), (None, None)):
        ends = Ends()
        model = chat(stream_of(usage), "text/event-stream", stream_usage=usage is not None)
        assert "".join(str(c.content) for c in model.stream("hi", {"callbacks": [ends]})) == "hello"
        assert ends.read == [Reading(expected, "openai", "gpt-4o-dated")]


def test_text_completions_of_two_prompts() -> None:
    """One request, two runs: the first has the whole usage, the second says it is elsewhere."""
    body = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "davinci-002",
        "choices": [{"index": i, "text": "x", "finish_reason": "stop"} for i in range(2)],
        "usage": {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24},
    }
    ends = Ends()
    model = OpenAI(model="davinci-002", api_key="x", http_client=serving(body), max_retries=0)  # type: ignore[arg-type]
    model.generate(["a", "b"], callbacks=[ends])  # type: ignore[arg-type]
    assert ends.asked == [("openai", "davinci-002")] * 2
    assert [(r.usage, r.usage_on_first_of_batch) for r in ends.read] == [
        (Usage(8, 16, 24), False),
        (None, True),
    ]


def test_responses_api() -> None:
    """The Responses API has its own names for the same counts."""
    text = {"type": "output_text", "text": "hello", "annotations": []}
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-dated",
        "status": "completed",
        "service_tier": "priority",
        "output": [
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 120,
            "output_tokens": 40,
            "total_tokens": 160,
            "input_tokens_details": {"cached_tokens": 100},
            "output_tokens_details": {"reasoning_tokens": 30},
        },
    }
    ends = Ends()
    chat(body, use_responses_api=True).invoke("hi", config={"callbacks": [ends]})
    assert ends.read == [
        Reading(READ._replace(tier="priority"), "openai", "gpt-5-dated", tier="priority")
    ]


def fake(**kwargs: Any) -> GenericFakeChatModel:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    message = AIMessage(content="hello world", usage_metadata=usage)
    return GenericFakeChatModel(messages=iter([message, message]), **kwargs)


def test_a_response_cache_hit_is_not_spend() -> None:
    """LangChain's cache replays the first call's usage with a mark on it."""
    ends = Ends()
    model = fake(cache=InMemoryCache())
    for _ in range(2):
        model.invoke("hi", config={"callbacks": [ends]})
    first, second = ends.read
    assert first.usage == second.usage == Usage(3, 2, 5)
    assert (first.cache_hit, second.cache_hit) == (False, True)


def test_a_cached_message_without_usage_is_still_a_hit() -> None:
    """The mark is then all there is; nothing was billed a second time."""
    message = AIMessage(content="x", response_metadata={"cost": 0.1})
    message.usage_metadata = {"total_cost": 0}  # type: ignore[assignment]
    reading = read(message)
    assert (reading.usage, reading.cache_hit, reading.billed) == (None, True, None)


def test_v3_event_streams_end_in_the_same_reading() -> None:
    """`stream_events(version="v3")` fires on_llm_end with the usage of its message-finish."""
    ends = Ends()
    model = chat(stream_of(USAGE), "text/event-stream", stream_usage=True)
    stream = model.stream_events("hi", config={"callbacks": [ends]}, version="v3")
    for _ in stream:
        pass
    assert [reading.usage for reading in ends.read] == [READ]
