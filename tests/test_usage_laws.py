"""Laws of `usage.read`: it never raises, and the quick look sees what the careful one sees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter.usage import LIMIT, Reading, Usage, read, requested
from langmeter.usage.careful import look_carefully
from langmeter.usage.quick import _NotCommonError, look_quickly
from langmeter.usage.shapes import _FIELD_OF, _PART_OF, _TIER_OF

LIFETIMES = {"cache_read": 0, "cache_creation": 0, "ephemeral_5m_input_tokens": 0}
counts = st.integers(0, 200)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.decimals(),
    st.sampled_from([LIMIT, -1, "12", 3.0, b"x", ()]),
)
keys = st.sampled_from(
    sorted(
        {
            *_FIELD_OF,
            *_PART_OF,
            *_TIER_OF,
            "token_usage",
            "usage",
            "total_cost",
            "cost",
            "model_name",
            "model_provider",
            "server_tool_use",
            "web_search_requests",
            "serviceTier",
            "modality",
            "ttl",
        }
    )
)
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


def result(usage: Any, meta: Any, info: Any = None, llm_output: Any = None) -> Thing:
    message = Thing(usage_metadata=usage, response_metadata=meta)
    generation = Thing(message=message, generation_info=info)
    return Thing(generations=[[generation]], llm_output=llm_output)


def assert_sound(reading: Reading) -> None:
    """The types and ranges that the recorder relies on."""
    assert type(reading) is Reading
    assert reading.usage is None or type(reading.usage) is Usage
    if reading.usage is not None:
        assert all(type(value) is int and 0 <= value < 8 * LIMIT for value in reading.usage[:12])
        assert type(reading.usage.tier) is str
    assert type(reading.provider) is type(reading.model) is str
    assert type(reading.cache_hit) is type(reading.shared) is bool
    assert type(reading.refused) is int
    assert reading.billed is None or (type(reading.billed) is Decimal and reading.billed >= 0)


def assert_agreeing(response: Any) -> None:
    """Where the quick look answers at all, it says what the careful one says.

    What it does not need of the raw figures it does not look at, so it refuses nothing there.
    """
    try:
        quick = look_quickly(response)
    except Exception:  # not of the common kind
        quick = None
    careful = look_carefully(response)
    assert quick is None or quick == careful._replace(refused=0)
    assert read(response) == (quick or careful)


@given(usage=st.one_of(mapping, tree), meta=st.one_of(mapping, tree), info=tree, output=tree)
@settings(max_examples=100, deadline=None)
def test_junk_in_every_place_is_read_without_an_exception(
    usage: Any, meta: Any, info: Any, output: Any
) -> None:
    """Any tree of any values under real keys: a sound reading, and quick agrees with careful."""
    response = result(usage, meta, info, output)
    reading = read(response)
    assert_sound(reading)
    assert_sound(read(usage))
    assert_sound(read([meta]))
    assert_agreeing(response)


details_in = st.dictionaries(
    st.sampled_from(
        [
            "audio",
            "cache_read",
            "cache_creation",
            "ephemeral_5m_input_tokens",
            "ephemeral_1h_input_tokens",
        ]
    ),
    st.one_of(counts, junk),
)
details_out = st.dictionaries(st.sampled_from(["audio", "reasoning"]), st.one_of(counts, junk))


@st.composite
def plausible(draw: st.DrawFn) -> Thing:
    """Responses near the common kind, with a surprise now and then."""
    inputs, outputs = draw(counts), draw(counts)
    usage: dict[str, Any] = {
        "input_tokens": inputs,
        "output_tokens": outputs,
        "total_tokens": draw(st.sampled_from([inputs + outputs, inputs + outputs + 8, 0])),
    }
    if draw(st.booleans()):
        usage["input_token_details"] = draw(details_in)
    if draw(st.booleans()):
        usage["output_token_details"] = draw(details_out)
    raw = draw(st.dictionaries(keys, st.one_of(counts, st.none(), st.dictionaries(keys, counts))))
    meta: dict[str, Any] = {
        "model_provider": draw(st.sampled_from(["openai", "google_genai", "anthropic"])),
        "model_name": draw(st.sampled_from(["gpt-4o", "gpt-4ogpt-4o", "m"])),
    }
    meta |= draw(st.sampled_from([{}, {"service_tier": "default"}, {"service_tier": "flex"}]))
    meta |= draw(st.sampled_from([{}, {"token_usage": raw}, {"usage": raw}]))
    return result(usage, meta, None, draw(st.sampled_from([None, {"token_usage": {}}])))


@given(plausible())
@settings(max_examples=150, deadline=None)
def test_the_quick_look_agrees_with_the_careful_one(response: Thing) -> None:
    """Where the quick look answers at all, its answer is the careful one's."""
    assert_agreeing(response)


def test_the_common_responses_take_the_quick_look() -> None:
    """It answers for OpenAI, Anthropic, Groq, Google and Bedrock as they usually are."""
    sums = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    raw = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    nothing = {"prompt_tokens_details": None, "completion_tokens_details": None}
    known = {"prompt_tokens_details": {"cached_tokens": 4, "image_tokens": None}}
    lifetimes = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0}
    searched = {"input_tokens": 3, "server_tool_use": {"web_search_requests": 1}}
    common = [
        ({**sums, "input_token_details": {}}, "openai", {"token_usage": {**raw, **nothing}}),
        (
            {
                **sums,
                "input_token_details": {"audio": 0, "cache_read": 4},
                "output_token_details": {"audio": 0, "reasoning": 1},
            },
            "openai",
            {"service_tier": "default", "token_usage": {**raw, **known}},
        ),
        (
            {**sums, "input_token_details": {"cache_read": 1, "cache_creation": 0, **lifetimes}},
            "anthropic",
            {"usage": {**searched, "service_tier": "standard"}},
        ),
        (sums, "groq", {"service_tier": "on_demand", "token_usage": {**raw, "queue_time": 0.1}}),
        ({**sums, "input_token_details": {"cache_read": 0}}, "google_genai", {}),
        ({**sums, "input_token_details": {"cache_read": 0}}, "bedrock_converse", {}),
    ]
    for usage, dialect, more in common:
        response = result(usage, {"model_provider": dialect, "model_name": "m", **more})
        quick = look_quickly(response)
        assert quick == look_carefully(response) == read(response)
        assert quick.usage is not None
        assert quick.usage[:3] == (7, 2, 9)


@pytest.mark.parametrize(
    ("usage", "meta"),
    [
        ({"input_token_details": {"flex_cache_read": 1}}, {}),
        ({"input_token_details": {"cache_read": 1, "audio": 0, "new": 0}}, {}),
        ({"input_token_details": LIFETIMES | {"ephemeral_5m_input_tokens": "7"}}, {}),
        ({"input_token_details": LIFETIMES | {"cache_read": -1}}, {}),
        ({"output_token_details": {"flex_reasoning": 1}}, {}),
        ({"total_tokens": 10}, {}),
        ({"total_cost": 0, "input_token_details": {}, "output_token_details": {}}, {}),
        ({}, {"service_tier": "flex"}),
        ({}, {"cost": 0.1}),
        ({}, {"model_provider": "bedrock", "serviceTier": {"type": "flex"}}),
        ({}, {"token_usage": {"num_cached_tokens": 1}}),
        ({}, {"token_usage": {"prompt_tokens_details": {"cached_tokens": 1}}}),
        ({}, {"token_usage": {"completion_tokens_details": {"reasoning_tokens": 1}}}),
        ({"input_token_details": {"cache_read": 1}}, {"token_usage": {"cost": 1}}),
        ({"input_token_details": {"cache_read": 1}}, {"usage": {"service_tier": "batch"}}),
        (
            {"input_token_details": {"cache_read": 1}},
            {"token_usage": {"prompt_tokens_details": {"image_tokens": 1}}},
        ),
        (
            {"input_token_details": {"cache_read": 1}},
            {"usage": {"server_tool_use": {"web_search_requests": "2"}}},
        ),
    ],
)
def test_every_other_response_is_left_to_the_careful_look(usage: Any, meta: Any) -> None:
    """One thing out of the common, and the quick look declines."""
    sums = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    common = {"model_provider": "openai", "model_name": "m"}
    look_quickly(result(sums, common))
    with pytest.raises(_NotCommonError):
        look_quickly(result(sums | usage, common | meta))


@given(st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_prompts_add_up_as_langchain_adds_usage(parts: list[tuple[int, int, int]]) -> None:
    """The oracle is langchain-core's own `add_usage`."""
    whole = None
    generations = []
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
@settings(max_examples=100, deadline=None)
def test_requested_never_raises(metadata: Any, invocation_params: Any, serialized: Any) -> None:
    """Two strings, whatever the start hook was given."""
    provider, model = requested(metadata, invocation_params, serialized)
    assert type(provider) is type(model) is str
