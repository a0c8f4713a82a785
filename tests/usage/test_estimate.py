"""Calls whose provider sends no usage: counted here, marked estimated, and only those."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult
from langchain_openai import ChatOpenAI

from langmeter import CompositeCallback, ConfigError, Meter, TokenCountingCallback, track_embeddings
from langmeter._core import count_tokens
from langmeter.prices import PriceBook
from langmeter.snapshot import Tokens
from langmeter.testing.simulator import Raw
from langmeter.testing.simulator.server import Server
from langmeter.usage.estimate import TokenEstimator
from langmeter.usage.token_counters import counters_of, own_counter, ratio_of, rough_counter
from tests.support.models import chat_model


def o200k(text: str) -> int:
    """As tiktoken counts: another test holds the native counter to it."""
    return count_tokens(text, "o200k_base")


def words(text: str) -> int:
    """A counter that is easy to foresee."""
    return len(text.split())


def tokens(meter: Any) -> Tokens:
    """Of all models."""
    return meter.snapshot().totals.tokens


def client(service: Server, fate: str = "ok", **settings: Any) -> ChatOpenAI:
    """The real client of a proxy: usage of streams is off by default."""
    return ChatOpenAI(
        model=settings.pop("model", "gpt-4o-mini"),
        base_url=service.url,
        api_key=lambda: "any",
        max_retries=0,
        default_headers={"x-simulate": fate},
        **settings,
    )


def test_a_stream_without_usage_is_what_the_service_would_have_billed(service: Server) -> None:
    """Prompt and answer, to the token, under the model that answered, marked as estimated."""
    meter, before = Meter(), service.truth().sent("unreported")
    for prompt in ("tell me more", [SystemMessage("be brief"), HumanMessage("tell me more")]):
        list(client(service).stream(prompt, config={"callbacks": [meter]}))
    after = service.truth().sent("unreported")
    sent = after.input - before.input, after.output - before.output
    stats = meter.snapshot().models["openai", "gpt-4o-mini-2024-07-18"]
    assert (stats.tokens.input, stats.tokens.output) == sent
    assert stats.tokens.total == stats.tokens.estimated == sum(sent)
    assert stats.outcomes["ok"] == 2
    assert not meter._services.prompts


async def test_an_async_stream_is_counted_like_a_sync_one(service: Server) -> None:
    """The same sums."""
    meter, before = Meter(), service.truth().sent("unreported")
    async for _ in client(service).astream("tell me more", config={"callbacks": [meter]}):
        pass
    after = service.truth().sent("unreported")
    assert tokens(meter).total == sum(after[1:3]) - sum(before[1:3]) > 0
    assert tokens(meter).estimated == tokens(meter).total


def test_the_providers_figure_wins(service: Server) -> None:
    """Streams and answers that report usage are not counted here, whatever counter is given."""
    meter = Meter(token_counters={"gpt": lambda text: 10**6})
    client(service).invoke("tell me more", config={"callbacks": [meter]})
    list(client(service, stream_usage=True).stream("go", config={"callbacks": [meter]}))
    assert tokens(meter).estimated == 0
    assert 0 < tokens(meter).total < 10**6


def test_a_broken_stream_counts_what_had_come(service: Server) -> None:
    """The prompt and the received text; the call is an error all the same."""
    meter, got = Meter(), ""
    stream = client(service, "broken").stream("go on", config={"callbacks": [meter]})
    with pytest.raises(Exception, match="onnection"):  # noqa: PT012 - what came before it counts
        for chunk in stream:
            got += str(chunk.content)
    assert tokens(meter).output == o200k(got) > 0
    assert tokens(meter).input == 2 + 4 + 3
    assert tokens(meter).estimated == tokens(meter).total
    assert meter.snapshot().totals.errors == 1


def test_a_stream_that_was_left_counts_what_had_come(service: Server) -> None:
    """It is cancelled, and costs what was read of it."""
    meter = Meter()
    stream = client(service).stream("go on", config={"callbacks": [meter]})
    got = "".join(str(next(stream).content) for _ in range(4))
    stream.close()  # type: ignore[attr-defined]
    assert tokens(meter).output == o200k(got) > 0
    assert meter.snapshot().totals.outcomes["cancelled"] == 1


class Stalls(GenericFakeChatModel):
    """Says something and then nothing."""

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content="one two"))
        await asyncio.Event().wait()


async def test_a_cancelled_astream_counts_what_had_come() -> None:
    """The task's end brings the partial answer."""
    meter, begun = Meter(), asyncio.Event()

    async def read() -> None:
        model = Stalls(messages=iter([]))
        async for _ in model.astream("go on", config={"callbacks": [meter]}):
            begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tokens(meter).input, tokens(meter).output) == (2 + 4 + 3, 2)
    assert tokens(meter).estimated == tokens(meter).total
    assert meter.snapshot().totals.outcomes["cancelled"] == 1


@pytest.mark.parametrize("fate", ["rate_limited", "server_error"])
def test_an_error_of_the_service_counts_nothing(service: Server, fate: str) -> None:
    """Though its response is handed in with a body and headers."""
    meter = Meter()
    for call in (
        client(service, fate).invoke,
        lambda *a, **k: list(client(service, fate).stream(*a, **k)),
    ):
        with pytest.raises(Exception, match=r"429|500"):
            call("go on", config={"callbacks": [meter]})
    assert tokens(meter) == Tokens()
    assert meter.snapshot().totals.errors == 2
    assert not meter._services.prompts


class Echo(LLM):
    """A text model that reports nothing."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return prompt[::-1]


def test_text_completions_are_counted_prompt_by_prompt() -> None:
    """Without the overhead of a chat, and each prompt of a batch on its own."""
    meter = Meter()
    Echo().invoke("one two", config={"callbacks": [meter]})
    Echo().generate(["three", "four five six"], callbacks=[meter])  # type: ignore[arg-type]
    asked = ["one two", "three", "four five six"]
    assert tokens(meter).input == sum(o200k(text) for text in asked)
    assert tokens(meter).output == sum(o200k(text[::-1]) for text in asked)


@pytest.mark.parametrize(("batch_size", "counted"), [(1, True), (2, False)])
def test_the_later_prompts_of_a_batch_are_on_the_first(batch_size: int, counted: bool) -> None:
    """LangChain leaves `{}` as their usage: nothing is missing there, but in a batch of one."""
    meter, run = Meter(), uuid.uuid4()
    meter.on_llm_start({}, ["one two"], run_id=run, batch_size=batch_size)
    meter.on_llm_end(
        LLMResult(generations=[[Generation(text="x")]], llm_output={"token_usage": {}}), run_id=run
    )
    assert bool(tokens(meter).estimated) is counted


def test_chats_have_the_overhead_of_the_openai_cookbook() -> None:
    """3 for each message, its role, its name and 1, and 3 for the reply, around the contents."""
    messages = [
        SystemMessage("You are brief.", name="example_user"),
        HumanMessage(
            [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}, "it"]
        ),
        AIMessage("", tool_calls=[{"name": "look", "args": {"at": "é"}, "id": "1"}]),
        ToolMessage(
            [{"type": "tool_result", "content": [{"text": "seen"}]}], name="look", tool_call_id="1"
        ),
    ]
    texts = ["You are brief.", "See", "it", "look", '{"at":"é"}', "seen", "example_user"]
    expected = 3 + 4 * len(messages) + 1 + sum(o200k(text) for text in texts)
    assert TokenEstimator().input("openai", "gpt-4o", [messages]) == expected


#: The example of OpenAI's cookbook, "How to count tokens with tiktoken", section 7.
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "The city and state, e.g. San Francisco, CA",
                },
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}
ABOUT_WEATHER = [
    SystemMessage("You are a helpful assistant that can answer to questions about the weather."),
    HumanMessage("What's the weather like in San Francisco?"),
]


@pytest.mark.parametrize(
    ("model", "billed"),
    [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)],
)
def test_tools_cost_what_the_api_billed_in_the_cookbook(model: str, billed: int) -> None:
    """The counts that OpenAI's cookbook prints beside those of its API, which are the same."""
    assert TokenEstimator().input("openai", model, [ABOUT_WEATHER], [WEATHER]) == billed


def test_definitions_of_every_shape_are_counted() -> None:
    """Those of the Responses API like those of chats, nested ones, and of others as JSON."""

    def of(tools: Any, model: str = "gpt-4o") -> int:
        return TokenEstimator().input("", model, [], tools)

    flat = {"type": "function", **WEATHER["function"]}
    assert of([flat]) == of([WEATHER])
    assert of([WEATHER, WEATHER]) == 2 * of([WEATHER]) - 12
    inner = WEATHER["function"]["parameters"]
    nested = {"function": {"name": "f", "parameters": {"properties": {"x": inner}}}}
    listed = {"function": {"name": "f", "parameters": {"properties": {"x": {"items": inner}}}}}
    plain = {"function": {"name": "f", "parameters": inner}}
    assert of([nested]) == of([plain]) + 3 + 3 + o200k("x:object:")
    assert of([listed]) == of([plain]) + 3 + 3 + o200k("x::")
    bare = {"function": {"name": "f", "description": None, "parameters": {"properties": {"x": 5}}}}
    assert of([bare]) == 12 + 7 + o200k("f:") + 3 + 3 + o200k("x::")
    search = {"type": "web_search"}
    assert of([search]) == 12 + 7 + o200k('{"type":"web_search"}')
    assert of([WEATHER], "llama-3") == o200k(json.dumps(WEATHER, separators=(",", ":")))
    assert of([5, None]) == of("tools") == of(None) == of([]) == 0


def test_tools_of_a_stream_without_usage_are_in_its_estimate(service: Server) -> None:
    """What the cookbook says of the definitions, more than the same call without them."""
    counts = []
    for model in (client(service), client(service).bind_tools([WEATHER])):
        meter = Meter()
        list(model.stream(ABOUT_WEATHER, config={"callbacks": [meter]}))
        counts.append(tokens(meter).input)
        assert not meter._services.prompts
    assert counts[1] == 101
    assert counts[1] - counts[0] == 101 - TokenEstimator().input("", "gpt-4o-mini", [ABOUT_WEATHER])


def result(message: AIMessage) -> LLMResult:
    """As the end hook gets it."""
    kind: Any = ChatGenerationChunk if isinstance(message, AIMessageChunk) else ChatGeneration
    return LLMResult(generations=[[kind(message=message)]])


@pytest.mark.parametrize(
    ("message", "output", "reasoning"),
    [
        (AIMessage("one two", additional_kwargs={"reasoning_content": "three"}), 3, 1),
        (AIMessage([{"type": "thinking", "thinking": "a b"}, {"type": "text", "text": "c"}]), 3, 2),
        (AIMessage([{"type": "reasoning", "summary": [{"text": "a b"}]}, "c"]), 3, 2),
        (AIMessage([{"type": "refusal", "refusal": "no way"}]), 2, 0),
        (AIMessage("", tool_calls=[{"name": "f", "args": {"x": "y z"}, "id": "1"}]), 3, 0),
        (
            AIMessageChunk(
                content="",
                tool_call_chunks=[{"name": "f", "args": '{"x": "y', "id": "1", "index": 0}],
            ),
            3,
            0,
        ),
        (
            AIMessage(
                [{"type": "tool_use", "name": "f", "input": {"x": 1}, "id": "1"}],
                tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}],
            ),
            2,
            0,
        ),
    ],
)
def test_all_that_the_model_wrote_is_output(
    message: AIMessage, output: int, reasoning: int
) -> None:
    """Text, refusals, reasoning and tool calls, each once, in the words of a counter of words."""
    usage = TokenEstimator({"m": words}).usage("", "m", (), result(message), ended=True)
    assert usage is not None
    assert (usage.output, usage.reasoning, usage.total, usage.estimated) == (
        output,
        reasoning,
        output,
        output,
    )


def test_every_candidate_is_counted() -> None:
    """With n = 2 both answers were written."""
    both = LLMResult(generations=[[Generation(text="a b"), Generation(text="c")]])
    usage = TokenEstimator({"m": words}).usage("", "m", ["d e"], both, ended=True)
    assert usage is not None
    assert (usage.input, usage.output) == (2, 3)


class SaidError(Exception):
    """As the clients raise what a server said."""

    body = "tool call validation failed"


@pytest.mark.parametrize(("error", "output"), [(SaidError(), 0), (ConnectionError(), 2)])
def test_an_error_that_the_server_names_in_its_stream_is_no_spend(error: Any, output: int) -> None:
    """Whatever came before it; a connection that only breaks says no such thing."""
    meter, run = TokenCountingCallback(token_counters={"m": words}), uuid.uuid4()
    meter.on_chat_model_start({}, [[HumanMessage("go")]], run_id=run, batch_size=1)
    partial = result(AIMessage("a b", response_metadata={"model_name": "m"}))
    meter.on_llm_error(error, run_id=run, response=partial)
    assert tokens(meter).output == output
    assert not meter._services.prompts


@pytest.mark.parametrize("response", [None, 7, {"generations": 3}, LLMResult(generations=[])])
def test_what_says_nothing_counts_nothing(response: Any) -> None:
    """A call that failed without an answer, or ended with something else than one."""
    assert TokenEstimator().usage("", "m", [[HumanMessage("hi")]], response, ended=False) is None
    assert TokenEstimator().usage("", "m", (), response, ended=True) is None


def test_estimates_are_priced(prices: PriceBook) -> None:
    """As figures of the provider are."""
    meter = Meter(prices=prices, token_counters={"fake-1": words})
    chat_model(usage=None).invoke("hi", config={"callbacks": [meter]})
    stats = meter.snapshot().models["genericfakechatmodel", "fake-1"]
    assert (stats.tokens.input, stats.tokens.output) == (3 + 4 + 1, 3)
    assert stats.cost == Decimal(8 * 2 + 3 * 10) / 10**6


def test_a_counter_that_fails_is_counted_and_ends_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It raises, counts below 0 or in halves: no estimate, one warning, a call that is ok."""

    def broken(text: str) -> int:
        raise OSError(text)

    bad: list[Any] = [
        broken,
        lambda text: -1,
        lambda text: 1.5,
        lambda text: "many",
        lambda text: 1 << 60,
    ]
    for counter in bad:
        meter = Meter(token_counters={"fake": counter})
        chat_model(usage=None).invoke("hi", config={"callbacks": [meter]})
        snapshot = meter.snapshot()
        assert snapshot.dropped["hook_errors"] == 1
        assert (snapshot.totals.outcomes["ok"], snapshot.totals.tokens) == (1, Tokens())
    assert "token_counter failed" in caplog.text


def test_the_longest_beginning_of_the_name_wins() -> None:
    """With or without the provider and what else stands before the name."""
    named = counters_of(
        {
            name: (lambda text, n=n: n)
            for n, name in enumerate(
                ["Claude", "claude-3", "nvidia_nim/meta/llama", "aws.bedrock/"]
            )
        }
    )
    for provider, model, expected in (
        ("anthropic", "claude-sonnet-4-5", 0),
        ("anthropic", "claude-3-haiku", 1),
        ("gcp.vertex_ai", "us.anthropic.claude-3-haiku", 1),
        ("openrouter", "anthropic/claude-sonnet-4", 0),
        ("nvidia_nim", "meta/llama-3.1-70b-instruct", 2),
        ("groq", "meta/llama-3.1-70b-instruct", None),
        ("aws.bedrock", "amazon.nova-lite-v1:0", 3),
        ("openai", "my-claude", None),
    ):
        counter = own_counter(named, provider, model)
        assert (None if counter is None else counter("")) == expected, model


@pytest.mark.parametrize(
    ("ratio", "names"),
    [
        (
            1.19,
            "claude-3-5-sonnet-20241022 claude-sonnet-4-20250514 claude-v2:1 "
            "anthropic.claude-opus-4-6-v1:0 anthropic/claude-sonnet-4.5",
        ),
        (
            1.53,
            "claude-opus-4-7 claude-opus-4.8 claude-sonnet-5 us.anthropic.claude-opus-4-10-v1:0",
        ),
        (
            1.25,
            "open-mixtral-8x7b mistral:7b mistral-large-2407 mistral-small-2409 codestral-22b "
            "mistral.mistral-large-2402-v1:0",
        ),
        (
            1.06,
            "mistral-small-latest open-mistral-nemo-2407 ministral-8b pixtral-12b "
            "magistral-medium-2506 mistral-small-24b-instruct-2501",
        ),
        (1.04, "deepseek-chat deepseek-ai/DeepSeek-R1"),
        (1.02, "qwen2.5-72b Qwen/Qwen3-32B qwen-max qwen/qwen3-235b-a22b"),
        (1.09, "qwen3.5-397b-a17b"),
        (1.0, "meta/llama-3.1-70b-instruct gemini-2.5-pro command-r mistake x"),
    ],
)
def test_models_without_a_public_vocabulary_have_the_ratio_of_their_family(
    ratio: float, names: str
) -> None:
    """Over o200k_base, by the name of the model alone."""
    text = "A histogram counts values by range. " * 40
    for name in names.split():
        assert ratio_of(name) == ratio, name
        assert rough_counter(name)(text) == round(ratio * o200k(text))


def test_a_vocabulary_of_hugging_face_is_loaded_by_its_path(tmp_path: Path) -> None:
    """It counts without the special tokens of its template."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "one": 1, "two": 2, "[BOS]": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 3)]
    )
    made.save(str(path := tmp_path / "tokenizer.json"))
    for source in (path, str(path), os.fspath(path)):
        meter = TokenCountingCallback(token_counters={"fake": source})
        assert meter._services.estimator.counter("", "fake-1")("one two three") == 3


def test_what_is_no_counter_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: Any) -> None:
    """When the meter is made, not when a call ends."""
    (junk := tmp_path / "junk.json").write_text("{}", encoding="utf-8")
    for sources, says in (
        ({"llama": junk}, "cannot load .*junk.json"),
        ({"llama": tmp_path / "absent"}, "cannot load .*absent"),
        ({"llama": 7}, "must be a function"),
        ({"": words}, "must be named by the beginning"),
        ({7: words}, "must be named by the beginning"),
        ([words], "must be a mapping of models' names"),
    ):
        with pytest.raises(ConfigError, match=says):
            Meter(token_counters=sources)  # type: ignore[arg-type]
    for module, source in (("tokenizers", "x.json"), ("ctok", "ctok")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigError, match=f"pip install {module}"):
            Meter(token_counters={"claude": source})


def test_ctok_counts_claude_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version in the name, without the frame that it puts around a text."""
    frames = {"3.0": 7, "4.5": 7, "4.7": 11, "5.0": 6}
    fake: Any = ModuleType("ctok")
    fake.token_count = lambda text, version: words(text) + frames[version]
    monkeypatch.setitem(sys.modules, "ctok", fake)
    offline = TokenEstimator({"claude": "ctok"})
    for model in ("claude-v2", "claude-sonnet-4-5", "claude-opus-4.7", "claude-sonnet-5-20260101"):
        assert offline.counter("anthropic", model)("one two three") == 3


def test_the_remedy_is_named_once_for_each_model(caplog: pytest.LogCaptureFixture) -> None:
    """For answers that came whole; a stream that its reader left is not a mistake."""
    name = f"silent-{uuid.uuid4()}"
    meter = Meter()
    for _ in range(2):
        model = chat_model(metadata={"model_name": name})
        stream = model.stream("hi", config={"callbacks": [meter]})
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert name not in caplog.text
    for _ in range(3):
        GenericFakeChatModel(
            messages=iter([AIMessage("x", response_metadata={"model_name": name})])
        ).invoke("hi", config={"callbacks": [meter]})
    told = [r for r in caplog.records if name in r.getMessage() and "usage" in r.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert "stream_usage=True" in told[0].getMessage()


def test_prompts_of_calls_that_nobody_ends_are_let_go() -> None:
    """The oldest first; the answer of a call whose prompt is gone is counted alone."""
    meter = TokenCountingCallback(token_counters={"m": words})
    runs = [uuid.uuid4() for _ in range(5000)]
    for run in runs:
        meter.on_chat_model_start({}, [[HumanMessage("a b")]], run_id=run, batch_size=1)
        assert len(meter._services.prompts) <= 2048
    for run in (runs[0], runs[-1]):
        meter.on_llm_end(
            result(AIMessage("x y z", response_metadata={"model_name": "m"})), run_id=run
        )
    assert (tokens(meter).input, tokens(meter).output) == (3 + 4 + 2, 6)
    assert not {runs[0].int, runs[-1].int} & set(meter._services.prompts)


def test_no_prompt_is_kept_once_its_call_has_ended() -> None:
    """Whether the usage came from the provider or from here, or the call failed."""
    meter = Meter()
    chat_model().invoke("hi", config={"callbacks": [meter]})
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    failing = GenericFakeChatModel(messages=iter([]))
    with pytest.raises((RuntimeError, StopIteration)):
        failing.invoke("hi", config={"callbacks": [meter]})
    assert not meter._services.prompts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_no_prompt_of_its_parent() -> None:
    """They belong to calls that end in the parent."""
    meter = TokenCountingCallback()
    meter.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=uuid.uuid4(), batch_size=1)
    child = os.fork()
    if not child:
        os._exit(len(meter._services.prompts))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(meter._services.prompts) == 1


def test_a_part_brings_its_counters_into_the_composite() -> None:
    """And those of the composite itself win."""
    part = TokenCountingCallback(token_counters={"a": lambda text: 1, "b": lambda text: 2})
    whole = CompositeCallback([part], token_counters={"b": lambda text: 3})
    assert [whole._services.estimator.counter("", name)("x") for name in "ab"] == [1, 3]


def test_embeddings_are_counted_by_the_meters_counters() -> None:
    """Where none is given for them alone."""

    class Named(DeterministicFakeEmbedding):
        model: str = "nomic-embed-text"

    meter = Meter(token_counters={"nomic": words})
    track_embeddings(Named(size=3), meter).embed_documents(["one two", "", "three"])
    assert (tokens(meter).input, tokens(meter).estimated) == (3, 3)


def test_the_table_of_a_meter_remembers_a_thousand_models() -> None:
    """And no more, whatever names come."""
    offline = TokenEstimator()
    for number in range(1500):
        offline.counter("", f"model-{number}")
    assert len(offline._known) <= 1024


#: The figures of a stream whose beginning, where Anthropic tells the input, was lost.
CUT: dict[str, Any] = {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"input_token_details": {"cache_read": 0, "cache_creation": 0}},
        {"output_token_details": {"reasoning": 2}},
    ],
)
def test_an_answer_to_nothing_has_its_input_estimated(details: Any) -> None:
    """The provider's output stays, the prompt is counted, and that part alone is marked."""
    meter = Meter()
    chat_model(usage={**CUT, **details}, metadata={"model_name": "gpt-4o"}).invoke(
        "tell me more", config={"callbacks": [meter]}
    )
    used = tokens(meter)
    asked = o200k("tell me more") + 4 + 3
    assert (used.input, used.output, used.total, used.estimated) == (asked, 7, asked + 7, asked)
    assert meter.snapshot().dropped == {}


def test_an_estimated_input_is_priced_and_a_told_one_kept(prices: PriceBook) -> None:
    """At 2 and 10 USD per million; nothing is estimated where the input is known, or both are 0."""
    meter = Meter(prices=prices, token_counters={"fake": words})
    chat_model(usage=CUT).invoke("a b c", config={"callbacks": [meter]})
    assert meter.cost.total_cost == (Decimal(3 + 4 + 3) * 2 + 7 * 10) / 10**6
    for figures in ({**CUT, "input_tokens": 1, "total_tokens": 8}, {**CUT, "output_tokens": 0}):
        before = tokens(meter).estimated
        chat_model(usage=figures).invoke("a b c", config={"callbacks": [meter]})
        assert tokens(meter).estimated == before


def test_a_counter_that_fails_leaves_what_the_provider_told() -> None:
    """The output is there, the failure is counted."""
    meter = Meter(token_counters={"fake": lambda text: -1})
    chat_model(usage=CUT).invoke("a b c", config={"callbacks": [meter]})
    assert (tokens(meter).input, tokens(meter).output, tokens(meter).estimated) == (0, 7, 0)
    assert meter.snapshot().dropped == {"hook_errors": 1}


def test_a_stream_of_anthropic_whose_end_names_no_input_has_it_estimated(service: Server) -> None:
    """The client drops what `message_start` says, and not every server repeats it at the end."""
    # Its client takes 3 s of CPU to import, and `make quick` needs none.
    from langchain_anthropic import ChatAnthropic

    name = "claude-test-4-6"
    told = {"id": "m", "type": "message", "role": "assistant", "model": name, "content": []}
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {**told, "usage": {"input_tokens": 12, "output_tokens": 1}},
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "four"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    ]
    service.script(Raw(events=events))
    meter = Meter()
    settings: Any = {"model_name": name, "api_key": "any", "base_url": service.root}
    chunks = ChatAnthropic(**settings).stream("2 + 2?", {"callbacks": [meter]})
    assert "".join(str(chunk.text) for chunk in chunks) == "four"
    stats = meter.snapshot().models["anthropic", name]
    assert (stats.tokens.output, stats.outcomes["ok"]) == (3, 1)
    # 1.19 tokens for each of o200k_base, 4 for the message and 3 for the reply.
    assert stats.tokens.input == stats.tokens.estimated == round(1.19 * o200k("2 + 2?")) + 7
    assert stats.tokens.total == stats.tokens.input + 3
