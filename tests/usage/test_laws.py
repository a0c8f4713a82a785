"""Laws of `usage.read`: it never raises, and the native reader reads what the careful one reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import _core
from langmeter.usage import LIMIT, Reading, Usage, read, requested
from langmeter.usage.reader import read_any
from tests.support.laws import examples

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.decimals(),
    st.sampled_from([LIMIT, -1, "12", 3.0, b"x", ()]),
)
#: Every key that some reader knows.
KEYS = sorted(
    {
        *_core.USAGE_KEYS,
        *_core.USAGE_PARTS,
        *(f"{tier}{part}" for tier in _core.TIERS for part in _core.TIER_PARTS),
        *_core.USAGE_PLACES,
        *_core.FINISH_REASONS,
        *("total_cost", "cost", "cost_in_usd_ticks", "model_name", "model", "model_id"),
        *("model_provider", "web_search_requests", "web_search_calls", "search_web", "invocation"),
        *("serviceTier", "type", "performanceConfig", "latency", "incomplete_details", "reason"),
        *("modality", "token_count", "tokenCount", "ttl", "inputTokens"),
        *("grounding_metadata", "groundingMetadata", "web_search_queries", "webSearchQueries"),
    }
)
WORDS = [
    *("default", "flex", "priority", "batch", "fast", "Standard ", "us", "global", "optimized"),
    *("length", "max_tokens", "stop", "5m", "1h", "IMAGE", "MediaModality.AUDIO", "DOCUMENT"),
    *("TrafficType.ON_DEMAND_FLEX", "compaction", "message", "a", "b", "", "low", "high"),
]
counts = st.integers(0, 200)
keys = st.sampled_from(KEYS)
tree = st.recursive(
    junk,
    lambda child: st.one_of(st.dictionaries(keys, child, max_size=6), st.lists(child, max_size=3)),
    max_leaves=12,
)
mapping = st.dictionaries(keys, tree, max_size=6)


class Thing:
    """An object with whatever attributes; no validation stands between it and the reader."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __repr__(self) -> str:
        return f"Thing({self.__dict__})"


def result(
    usage: Any,
    meta: Any,
    info: Any = None,
    llm_output: Any = None,
    content: Any = "",
    extra: Any = None,
) -> Thing:
    message = Thing(
        usage_metadata=usage,
        response_metadata=meta,
        content=content,
        additional_kwargs={} if extra is None else extra,
    )
    generation = Thing(message=message, generation_info=info)
    return Thing(generations=[[generation]], llm_output=llm_output)


def assert_sound(reading: Reading) -> None:
    """The types and ranges that the recorder relies on."""
    assert type(reading) is Reading
    assert reading.usage is None or type(reading.usage) is Usage
    if reading.usage is not None:
        assert all(type(value) is int and 0 <= value < 8 * LIMIT for value in reading.usage[:-1])
        assert type(reading.usage.tier) is str
    assert type(reading.provider) is type(reading.model) is str
    assert type(reading.cache_hit) is type(reading.usage_on_first_of_batch) is bool
    assert type(reading.refused) is int
    assert reading.billed is None or (type(reading.billed) is Decimal and reading.billed >= 0)


def assert_agreeing(response: Any) -> Reading:
    """What the native reader reads is what the careful one reads, in every field."""
    careful = read_any(response)
    reading = read(response)
    assert reading == careful
    if _core.read_response(response) is not None:
        assert reading.refused == 0
    return reading


@pytest.mark.slow
@given(usage=st.one_of(mapping, tree), meta=st.one_of(mapping, tree), info=tree, output=tree)
@examples(100)
def test_junk_in_every_place_is_read_without_an_exception(
    usage: Any, meta: Any, info: Any, output: Any
) -> None:
    """Any tree of any values under real keys: a sound reading, the same from both readers."""
    response = result(usage, meta, info, output)
    reading = read(response)
    assert_sound(reading)
    assert_sound(read(usage))
    assert_sound(read([meta]))
    assert_agreeing(response)


#: Keys of usage whose values are numbers.
NUMBERS = [
    key
    for key, field in _core.USAGE_KEYS.items()
    if field not in ("into", "out_of", "cached", "lifetimes", "tools", "iterations", "tier")
    and field not in ("speed", "region", "context", "queue")
]
PARTS = [
    *_core.USAGE_PARTS,
    *("flex", "flex_cache_read", "priority_reasoning", "text_tokens", "something_new"),
]
BLOCKS = [
    *("web_search_call", "file_search_call", "web_search_tool_result", "text", "search"),
    *("server_tool_result", "server_tool_call", "server_tool_use"),
]
MODELS = ["gpt-4o", "gpt-4ogpt-4o", "m", "aaaaaaaa", "gemini-2.5-pro", "gemini-3-pro", "", None]
DIALECTS = ["openai", "google_genai", "anthropic", "bedrock_converse", "xai", "", None]
QUEUES = [0.25, 1e-9, -1.0, float("nan"), float("inf"), 3, -2, 10**10, None, True, "0.5", 1 / 3]


class Client:
    """Makes responses as one of many providers and clients may, from a seed.

    Not a strategy of hypothesis: that takes 40 ms for each of them, this 0.1.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def word(self) -> str:
        return self.random.choice(WORDS)

    def count(self) -> Any:
        return self.random.choice([None, 0, LIMIT - 1, *[self.random.randint(0, 200)] * 9])

    def amount(self) -> Any:
        return self.random.choice([None, 3, 1e-07, 0.0004970133333333, self.random.random()])

    def some(self, keys: list[str], value: Callable[[], Any], most: int) -> dict[str, Any]:
        chosen = self.random.sample(keys, self.random.randint(0, min(most, len(keys))))
        return {key: value() for key in chosen}

    def made(self, share: float, **values: Callable[[], Any]) -> dict[str, Any]:
        """Each of these entries with some probability, in any order."""
        items = [(key, value()) for key, value in values.items() if self.random.random() < share]
        self.random.shuffle(items)
        return dict(items)

    def list(self, value: Callable[[], Any], most: int = 3) -> list[Any]:
        return [value() for _ in range(self.random.randint(0, most))]

    def modalities(self) -> Any:
        return self.list(lambda: {"modality": self.word(), "token_count": self.count()})

    def details(self) -> Any:
        return self.modalities() if self.random.random() < 0.2 else self.some(PARTS, self.count, 5)

    def lifetimes(self) -> Any:
        if self.random.random() < 0.5:
            return self.list(lambda: {"ttl": self.word(), "inputTokens": self.count()})
        keys = ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"]
        return self.some(keys, self.count, 2)

    def usage(self, depth: int = 1) -> dict[str, Any]:
        made = self.some(NUMBERS, self.count, 5)
        if self.random.random() < 0.7:
            made |= {"prompt_tokens": self.count(), "completion_tokens": self.count()}
        tools = ["web_search_requests", "web_search_calls", "other"]
        costs = [self.amount, lambda: {"total_cost": self.amount()}]
        made |= self.made(
            0.15,
            prompt_tokens_details=self.details,
            completion_tokens_details=self.details,
            cacheTokensDetails=self.modalities,
            cache_creation=self.lifetimes,
            server_tool_use=lambda: self.some(tools, self.count, 2),
            tool_calls_details=lambda: {"search_web": {"invocation": 2}},
            service_tier=self.word,
            speed=self.word,
            inference_geo=self.word,
            search_context_size=self.word,
            queue_time=lambda: self.random.choice(QUEUES),
            cost=self.random.choice(costs),
            cost_in_usd_ticks=self.amount,
            new_key=self.count,
        )
        if depth and self.random.random() < 0.1:
            named = lambda: self.made(0.3, model=self.word)  # noqa: E731
            one = lambda: {"type": self.word(), **named(), **self.usage(0)}  # noqa: E731
            made["iterations"] = self.list(one)
        return made

    def block(self) -> Any:
        pick = self.random.choice
        actions = [None, {}, {"type": "search"}, {"type": "open_page"}, "x"]
        if self.random.random() < 0.1:
            return "text"
        return {"type": pick(BLOCKS)} | self.made(
            0.5,
            status=lambda: pick(["completed", "failed", "success", "error", None]),
            action=lambda: pick(actions),
            args=lambda: pick(actions),
            content=lambda: pick([[], {"error_code": "unavailable"}, {}, None]),
            name=lambda: pick(["web_search", "file_search", "code"]),
            id=lambda: pick(["1", "srvtoolu_1", None]),
            tool_call_id=lambda: pick(["1", "2"]),
            extras=lambda: pick([{}, {"block_type": "web_search_tool_result"}, None]),
        )

    def metadata(self) -> dict[str, Any]:
        pick = self.random.choice
        queries = lambda: self.list(lambda: pick(["a", "b", "", None]))  # noqa: E731
        grounding = lambda: self.made(  # noqa: E731
            0.5, web_search_queries=queries, webSearchQueries=queries
        )
        made = self.made(
            0.5, model_provider=lambda: pick(DIALECTS), model_name=lambda: pick(MODELS)
        )
        made |= self.made(0.3, token_usage=self.usage, usage=self.usage)
        return made | self.made(
            0.15,
            model=lambda: pick(MODELS),
            service_tier=lambda: pick([self.word(), None]),
            serviceTier=lambda: {"type": self.word()},
            performanceConfig=lambda: {"latency": self.word()},
            finish_reason=self.word,
            stopReason=self.word,
            incomplete_details=lambda: pick([{"reason": self.word()}, None]),
            cost=self.amount,
            grounding_metadata=grounding,
            groundingMetadata=grounding,
            usage_metadata=self.usage,
            prompt_eval_count=self.count,
            eval_count=self.count,
        )

    def figures(self) -> Any:
        """LangChain's own, or none."""
        inputs, outputs = self.random.randint(0, 200), self.random.randint(0, 200)
        total = inputs + outputs + self.random.choice([0, 0, 0, 8, -inputs - outputs])
        made = {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": total}
        made |= self.made(0.4, input_token_details=self.details, output_token_details=self.details)
        made |= self.made(0.1, total_cost=lambda: self.random.choice([0, 0.0, 1, None, False]))
        return made if self.random.random() < 0.8 else None

    def candidate(self) -> Thing:
        info = self.metadata() if self.random.random() < 0.3 else None
        if self.random.random() < 0.2:
            return Thing(text="x", generation_info=info)
        tool = lambda: {"type": self.random.choice([self.word(), "search"])}  # noqa: E731
        extra = self.made(
            0.15,
            tool_outputs=lambda: self.list(self.block),
            executed_tools=lambda: self.list(tool),
            refusal=lambda: None,
        )
        content = self.list(self.block) if self.random.random() < 0.4 else "text"
        made = result(self.figures(), self.metadata(), info, None, content, extra)
        candidate: Thing = made.__dict__["generations"][0][0]
        return candidate

    def response(self) -> Thing:
        candidates = [self.candidate() for _ in range(self.random.choice([1, 1, 1, 2]))]
        output: Any = self.random.choice([None, self.metadata(), {"token_usage": {}}])
        return Thing(generations=[candidates], llm_output=output)


def test_the_native_reader_reads_everything_as_the_careful_one() -> None:
    """Usage, names, hit, bill, truncation, queue, searches, modifiers: all a call ends with.

    And it reads most of these responses, so that the law is not an empty one.
    """
    natively = 0
    for seed in range(3000):
        response = Client(seed).response()
        assert_agreeing(response)
        natively += _core.read_response(response) is not None
    assert natively > 2000


@given(st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=5))
@examples(50)
def test_prompts_add_up_as_langchain_adds_usage(parts: list[tuple[int, int, int]]) -> None:
    """The oracle is langchain-core's own `add_usage`."""
    whole = None
    generations: list[Any] = []
    for inputs, outputs, cached in parts:
        usage: Any = {
            "input_tokens": inputs + cached,
            "output_tokens": outputs,
            "total_tokens": inputs + cached + outputs,
            "input_token_details": {"cache_read": cached},
        }
        whole = add_usage(whole, usage)
        generations.append([ChatGeneration(message=AIMessage(content="x", usage_metadata=usage))])
    usage = read(LLMResult(generations=generations)).usage
    assert whole is not None
    assert usage == Usage(
        input=whole["input_tokens"],
        output=whole["output_tokens"],
        total=whole["total_tokens"],
        cache_read=whole["input_token_details"]["cache_read"],
    )


@given(metadata=tree, invocation_params=tree, serialized=tree)
@examples(100)
def test_requested_never_raises(metadata: Any, invocation_params: Any, serialized: Any) -> None:
    """Two strings, whatever the start hook was given."""
    provider, model = requested(metadata, invocation_params, serialized)
    assert type(provider) is type(model) is str
