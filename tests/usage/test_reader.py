"""`usage.read`: each provider's shape, as its LangChain client hands it over."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, Generation, LLMResult

from langmeter import _core
from langmeter.usage import Reading, Usage, read
from tests.support.responses import RAW_OPENAI, chat, figures, usage_of


def text_result(token_usage: Any, **more: Any) -> LLMResult:
    return LLMResult(
        generations=[[Generation(text="hello")]], llm_output={"token_usage": token_usage, **more}
    )


def test_usage_starts_with_the_counts_that_the_recorder_takes() -> None:
    """All fields but the tier are ints, named and ordered as the recorder's first counters."""
    *counts, tier = Usage._fields
    first = len(_core.OUTCOMES)
    assert _core.COUNTERS[first : first + len(counts)] == tuple(counts)
    assert tier == "tier"
    assert all(type(value) is int for value in Usage()[:-1])


def test_openai_chat_is_read_with_its_details() -> None:
    """Cached, audio and reasoning tokens come from LangChain's details, names from the metadata."""
    reading = read(
        chat(
            figures(
                100,
                50,
                into={"audio": 7, "cache_read": 40, "cache_creation": 9},
                out_of={"audio": 3, "reasoning": 20},
            ),
            {"model_name": "gpt-4o-2024-08-06", "model_provider": "openai", "token_usage": {}},
        )
    )
    assert reading.usage == Usage(
        input=100,
        output=50,
        total=150,
        cache_read=40,
        cache_write=9,
        reasoning=20,
        audio_input=7,
        audio_output=3,
    )
    assert (reading.provider, reading.model) == ("openai", "gpt-4o-2024-08-06")
    assert (reading.cache_hit, reading.refused, reading.billed) == (False, 0, None)


@pytest.mark.parametrize(
    "raw",
    [
        {
            "prompt_token_count": 10,
            "candidates_token_count": 5,
            "total_token_count": 15,
            "prompt_tokens_details": [{"modality": "VIDEO", "token_count": 6}],
            "candidates_tokens_details": [
                {"modality": "IMAGE", "token_count": 3},
                {"modality": "TEXT", "token_count": 1},
                {"modality": "VIDEO", "token_count": 1},
            ],
        },
        {
            **RAW_OPENAI,
            "prompt_tokens_details": {"video_tokens": 6},
            "completion_tokens_details": {"image_tokens": 3, "video_tokens": 1},
        },
    ],
)
def test_generated_images_and_video_have_counts_of_their_own(raw: dict[str, Any]) -> None:
    """Google names them by modality, OpenRouter by key; LangChain has no word for them."""
    key = "usage_metadata" if "prompt_token_count" in raw else "token_usage"
    usage = usage_of(chat(figures(10, 5), {key: raw}))
    assert usage == Usage(
        input=10, output=5, total=15, image_output=3, video_input=6, video_output=1
    )


def test_image_tokens_are_taken_from_the_raw_usage() -> None:
    """LangChain has no word for image tokens; OpenAI's own usage has."""
    raw = {**RAW_OPENAI, "prompt_tokens_details": {"image_tokens": 6, "cached_tokens": 0}}
    usage = usage_of(chat(figures(10, 5, into={"cache_read": 0}), {"token_usage": raw}))
    assert usage == Usage(input=10, output=5, total=15, image_input=6)


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_openai_tiers_rename_the_details(tier: str) -> None:
    """`flex_cache_read` is cache_read, and the tier is told by the keys alone."""
    usage = usage_of(
        chat(
            figures(
                53,
                469,
                into={f"{tier}_cache_read": 11, f"{tier}_cache_creation": 2, tier: 42},
                out_of={f"{tier}_reasoning": 448, tier: 21},
            ),
            {"model_name": "gpt-5"},
        )
    )
    assert usage == Usage(
        input=53,
        output=469,
        total=522,
        cache_read=11,
        cache_write=2,
        reasoning=448,
        tier=tier,
    )


@pytest.mark.parametrize(
    ("meta", "tier"),
    [
        ({"service_tier": "default"}, ""),
        ({"service_tier": "on_demand"}, ""),
        ({"service_tier": None}, ""),
        ({"service_tier": 7}, ""),
        ({"service_tier": " Flex "}, "flex"),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority"}},
            "priority",
        ),
        ({"usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard"}}, ""),
        ({"model_provider": "bedrock_converse", "serviceTier": {"type": "flex"}}, "flex"),
    ],
)
def test_the_service_tier_is_found_where_each_provider_puts_it(meta: Any, tier: str) -> None:
    """OpenAI and Groq beside the usage, Anthropic within it, Bedrock in a mapping."""
    assert usage_of(chat(figures(1, 1), meta)).tier == tier


def test_anthropic_cache_writes_by_lifetime_are_counted_once() -> None:
    """With lifetimes LangChain's sum is 0 and the raw sum repeats them: 300, not 600."""
    raw = {
        "input_tokens": 3,
        "output_tokens": 9,
        "cache_read_input_tokens": 50,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
        "service_tier": "standard",
    }
    into = {
        "cache_read": 50,
        "cache_creation": 0,
        "ephemeral_5m_input_tokens": 100,
        "ephemeral_1h_input_tokens": 200,
    }
    expected = Usage(
        input=353,
        output=9,
        total=362,
        cache_read=50,
        cache_write=300,
        cache_write_1h=200,
        web_searches=2,
    )
    assert usage_of(chat(figures(353, 9, into=into), {"usage": raw})) == expected
    # and the same numbers from the raw mapping alone, whose input leaves out the cache
    assert usage_of(chat(None, {"usage": raw})) == expected


def test_a_cache_write_sum_wins_over_its_lifetimes() -> None:
    """When both are given they are the same tokens."""
    into = {"cache_creation": 30, "ephemeral_5m_input_tokens": 30, "cache_read": 0}
    assert usage_of(chat(figures(40, 1, into=into))).cache_write == 30


def test_mistral_cached_tokens_are_only_in_the_raw_usage() -> None:
    """ChatMistralAI gives no details at all; both spellings of Mistral's own are read."""
    for extra in ({"num_cached_tokens": 32}, {"prompt_tokens_details": {"cached_tokens": 32}}):
        meta = {"model_provider": "mistralai", "token_usage": {**RAW_OPENAI, **extra}}
        reading = read(chat(figures(64, 6), meta))
        assert reading.usage == Usage(input=64, output=6, total=70, cache_read=32)
        assert reading.provider == "mistral_ai"


def test_deepseek_cache_hits_are_read_from_the_raw_usage() -> None:
    """`prompt_cache_hit_tokens` is part of the prompt."""
    raw = {**RAW_OPENAI, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}
    assert usage_of(chat(None, {"token_usage": raw})) == Usage(10, 5, 15, cache_read=4)


def test_a_reasoning_that_the_total_shows_to_be_extra_is_output() -> None:
    """At xAI: 8 reasoning beside 2 completion tokens, and 20 in all with 10 prompt tokens."""
    usage = usage_of(chat(figures(10, 2, 20, out_of={"reasoning": 8})))
    assert (usage.input, usage.output, usage.reasoning, usage.total) == (10, 10, 8, 20)


def test_more_reasoning_than_output_is_passed_on_when_the_total_does_not_explain_it() -> None:
    """A provider that contradicts itself is quoted, not corrected."""
    usage = usage_of(chat(figures(43, 10, 53, out_of={"reasoning": 11})))
    assert (usage.output, usage.reasoning, usage.total) == (10, 11, 53)


def test_google_corrections_downwards_do_not_inflate_the_total() -> None:
    """Merged chunks of 169 and then -90 input tokens: the total stays 169, the truth is 91."""
    first = AIMessageChunk(
        content="a",
        usage_metadata={"input_tokens": 169, "output_tokens": 0, "total_tokens": 169},
        response_metadata={"model_provider": "google_genai"},
    )
    last = AIMessageChunk(
        content="b", usage_metadata={"input_tokens": -90, "output_tokens": 12, "total_tokens": 0}
    )
    merged = ChatGenerationChunk(message=first) + ChatGenerationChunk(message=last)
    reading = read(LLMResult(generations=[[merged]]))
    assert reading.usage == Usage(input=79, output=12, total=91)
    assert reading.provider == "gcp.gemini"


def test_another_total_than_the_sum_is_the_providers() -> None:
    """Google's OpenAI endpoint leaves hidden thoughts out of the parts, not out of the total."""
    assert usage_of(chat(figures(35, 12, 109))).total == 109


@pytest.mark.parametrize("total", [None, 0])
def test_a_missing_total_is_the_sum(total: Any) -> None:
    """None and 0 beside positive parts are not totals."""
    usage = figures(4, 3)
    usage["total_tokens"] = total
    assert usage_of(chat(usage)).total == 7


def test_google_raw_usage_includes_tool_prompts_and_thoughts() -> None:
    """Vertex AI's own names, in a text model's generation_info: modalities are a list there."""
    raw = {
        "prompt_token_count": 20,
        "candidates_token_count": 7,
        "thoughts_token_count": 5,
        "tool_use_prompt_token_count": 3,
        "cached_content_token_count": 8,
        "total_token_count": 35,
        "prompt_tokens_details": [
            {"modality": "TEXT", "token_count": 4},
            {"modality": "MediaModality.AUDIO", "token_count": 10},
            {"modality": "IMAGE", "token_count": 6},
        ],
        "candidates_tokens_details": [{"modality": "AUDIO", "token_count": 2}],
    }
    result = LLMResult(
        generations=[[Generation(text="x", generation_info={"usage_metadata": raw})]]
    )
    assert usage_of(result) == Usage(
        input=23,
        output=12,
        total=35,
        cache_read=8,
        reasoning=5,
        audio_input=10,
        image_input=6,
        audio_output=2,
    )


def test_bedrock_names_no_model_and_keeps_the_cache_beside_the_input() -> None:
    """Its model_name is an echo of the request; Converse's inputTokens exclude the cache."""
    meta = {"model_provider": "bedrock_converse", "model_name": "some.profile"}
    into = {"cache_read": 5, "cache_creation": 0}
    assert read(chat(figures(9, 1, into=into), meta))[1:3] == ("aws.bedrock", "")
    raw = {
        "inputTokens": 3,
        "outputTokens": 4,
        "totalTokens": 37,
        "cacheReadInputTokens": 10,
        "cacheWriteInputTokens": 20,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 5}],
    }
    assert usage_of(chat(None, {"usage": raw})) == Usage(
        input=33, output=4, total=37, cache_read=10, cache_write=20, cache_write_1h=15
    )


def test_bedrock_invoke_llm_output_has_the_cache_beside_the_prompt() -> None:
    """BedrockLLM leaves the usage under "usage" of the llm_output."""
    raw = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cache_read_input_tokens": 0,
        "cache_write_input_tokens": 20,
        "total_tokens": 7,
    }
    reading = read(
        LLMResult(
            generations=[[Generation(text="x")]],
            llm_output={"usage": raw, "model_id": "anthropic.claude-v2"},
        )
    )
    assert reading.usage == Usage(input=23, output=4, total=27, cache_write=20)
    assert reading.model == "anthropic.claude-v2"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"prompt_eval_count": 26, "eval_count": 298, "total_duration": 5}, Usage(26, 298, 324)),
        ({"token_count": {"input_tokens": 8.0, "output_tokens": 3.0}}, Usage(8, 3, 11)),
        (
            {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 2, "outputTokenCount": 9}},
            Usage(2, 9, 11),
        ),
        ({"finish_reason": "stop"}, None),
    ],
    ids=["ollama", "cohere", "bedrock", "none"],
)
def test_usage_in_generation_info(info: Any, expected: Any) -> None:
    """Ollama writes counts straight into it, Cohere (as floats) and Bedrock under a key."""
    generation = Generation(text="x", generation_info=info)
    assert read(LLMResult(generations=[[generation]])).usage == expected


def test_watsonx_text_usage() -> None:
    """IBM's own words."""
    raw = {"input_token_count": 3, "generated_token_count": 4}
    assert usage_of(text_result(raw)) == Usage(3, 4, 7)


def test_perplexity_searches_and_reasoning() -> None:
    """Both stand beside the counts in Perplexity's usage; the cost is a mapping there."""
    raw = {
        **RAW_OPENAI,
        "num_search_queries": 3,
        "reasoning_tokens": 2,
        "cost": {"total_cost": 0.012},
    }
    reading = read(chat(figures(10, 5), {"token_usage": raw}))
    assert reading.usage == Usage(10, 5, 15, reasoning=2, web_searches=3)
    assert reading.billed == Decimal("0.012")


def test_nvidia_gives_figures_without_any_details() -> None:
    """ChatNVIDIA: three numbers and a model name, no provider; the total may be 0."""
    reading = read(chat(figures(7, 2, 0), {"model_name": "meta/llama-3.1-70b-instruct"}))
    assert reading == Reading(Usage(7, 2, 9), model="meta/llama-3.1-70b-instruct")
