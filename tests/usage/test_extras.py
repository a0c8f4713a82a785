"""Searches, modifiers and parts of usage in the responses that providers document."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from langchain_core.outputs import Generation, LLMResult

from langmeter import _core
from langmeter.usage import Usage, read
from langmeter.usage.reader import read_any
from tests.support.beside import FIGURES, answer, priced

RAW = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def both(response: Any) -> Usage:
    """The usage as both readers read it; the native one has to."""
    assert _core.read_response(response) is not None
    reading = read(response)
    assert reading == read_any(response)
    assert reading.usage is not None
    assert reading.usage.web_searches == reading.web_searches
    return reading.usage


def grounding(*queries: str) -> dict[str, Any]:
    return {"grounding_metadata": {"web_search_queries": list(queries), "grounding_chunks": [{}]}}


CAMEL = {"groundingMetadata": {"webSearchQueries": ["a", "b"]}}
IMAGES = {"grounding_metadata": {"image_search_queries": ["a"], "web_search_queries": ["a"]}}
POSTS = {"web_search_calls": 2, "x_search_calls": 1, "code_interpreter_calls": 5}
SHOUTED = {"SERVER_SIDE_TOOL_WEB_SEARCH": 2, "SERVER_SIDE_TOOL_X_SEARCH": 1}
SEARCHED = {"type": "search", "index": 0, "arguments": '{"query": "a"}', "output": "x"}


@pytest.mark.parametrize(
    ("response", "searches"),
    [
        (answer({"model_name": "gemini-3-pro", **grounding("a", "b", "")}), 2),
        (answer({"model_name": "gemini-3-pro", **CAMEL}), 2),
        (answer({"model_name": "gemini-3-pro", **grounding("a", "a")}), 1),
        (answer({"model_name": "gemini-2.5-flash", **grounding("a", "b")}), 1),
        (answer({"model_name": "gemini-2.5-flash", **grounding()}), 0),
        (answer({"model_name": "gemini-3-pro", "grounding_metadata": {}}), 0),
        (answer({"token_usage": {**RAW, "num_search_queries": 3}}), 3),
        (answer({"num_search_queries": 3}), 3),
        (answer({"usage": {"tool_calls_details": {"search_web": {"invocation": 2}}, **RAW}}), 2),
        (answer({"token_usage": {**RAW, "server_tool_use": {"web_search_requests": 4}}}), 4),
        (
            answer({"usage": {**RAW, "server_side_tool_usage_details": {"web_search_calls": 2}}}),
            2,
        ),
        (answer({}, executed_tools=[SEARCHED, {"type": "python"}, SEARCHED]), 2),
        (answer({}, tool_outputs=[{"type": "web_search_call", "id": "1"}]), 1),
        (answer({}, content=[{"type": "web_search_call", "status": "completed"}]), 1),
        (answer({"token_usage": {**RAW, "num_sources_used": 4}}), 4),
        (answer({"token_usage": {**RAW, "server_side_tool_usage_details": POSTS}}), 3),
        (answer({"token_usage": {**RAW, "server_side_tool_usage": SHOUTED}}), 3),
        (answer({"token_usage": {**RAW, "connectors": {"web_search": 2, "other": 1}}}), 2),
        (answer({"usage": {**RAW, "tool_usage": {"web_search": {"num_requests": 3}}}}), 3),
        (answer({"token_usage": {**RAW, "prompt_tokens_details": {"web_search_requests": 2}}}), 2),
        (answer({"model_name": "gemini-3-pro-image", **IMAGES}), 2),
        (answer({"executed_tools": [SEARCHED, {"type": "python"}]}), 1),
        (answer({"output": [{"type": "web_search_call", "action": {"type": "search"}}]}), 1),
        (answer({"tool_outputs": [{"type": "x_search_call"}]}), 1),
    ],
    ids=[
        *("gemini-3", "camel-case", "twice", "gemini-2", "gemini-2-none", "gemini-none"),
        *(
            "perplexity",
            "perplexity-in-metadata",
            "perplexity-agent",
            "openrouter",
            "xai",
            "groq",
            "items-v0",
            "no-action",
        ),
        *("xai-sources", "xai-posts", "xai-enum", "mistral", "aws", "litellm", "gemini-images"),
        *("tools-in-metadata", "items-in-metadata", "outputs-in-metadata"),
    ],
)
def test_searches_are_found_wherever_a_provider_writes_them(response: Any, searches: int) -> None:
    """Metadata, usage, output items, executed tools: read natively as carefully."""
    assert both(response) == Usage(10, 5, 15, web_searches=searches)


def test_a_failed_call_in_langchains_words_is_told_by_its_result() -> None:
    """Which of the searches failed only the careful reader finds out."""
    content = [
        {"type": "server_tool_call", "name": "web_search", "id": "1", "args": {"type": "search"}},
        {"type": "server_tool_result", "tool_call_id": "1", "status": "error"},
        {"type": "server_tool_call", "name": "web_search", "id": "2", "args": {}},
    ]
    assert read(answer({}, content=content)).web_searches == 1


@pytest.mark.parametrize(
    ("meta", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": "Priority "}, "priority"),
        ({"token_usage": {**RAW, "service_tier": "batch"}}, "batch"),
        ({"serviceTier": {"type": "priority"}}, "priority"),
        ({"performanceConfig": {"latency": "optimized"}}, "latency=optimized"),
        ({"performanceConfig": {"latency": "standard"}}, ""),
        ({"usage_metadata": {**RAW, "traffic_type": "TrafficType.ON_DEMAND"}}, ""),
        ({"usage_metadata": {**RAW, "traffic_type": "ON_DEMAND_PRIORITY"}}, "priority"),
        ({"traffic_type": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "TrafficType.ON_DEMAND"}, ""),
        ({"traffic_type": None, "usage_metadata": {**RAW, "traffic_type": "ON_DEMAND"}}, ""),
        ({"service_tier": "flex", "traffic_type": "ON_DEMAND_PRIORITY"}, "flex"),
        (
            {"usage_metadata": {**RAW, "traffic_type": "PROVISIONED_THROUGHPUT"}},
            "provisioned_throughput",
        ),
        ({"token_usage": {**RAW, "search_context_size": "high"}}, "search_context_size=high"),
        ({"token_usage": {**RAW, "search_context_size": "low"}}, ""),
        ({"search_context_size": "high"}, "search_context_size=high"),
        ({"speed": "fast", "inference_geo": "global"}, "fast"),
        ({"inference_geo": "us"}, "inference_geo=us"),
        ({"serviceTier": "flex"}, "flex"),
        ({"serviceTier": "", "trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"usage_metadata": {**RAW, "serviceTier": "SERVICE_TIER_FLEX"}}, "flex"),
        ({"usage_metadata": {**RAW, "service_tier": "ServiceTier.UNSPECIFIED"}}, ""),
        ({"traffic_type": "TRAFFIC_TYPE_UNSPECIFIED"}, ""),
    ],
)
def test_modifiers_of_price_of_other_providers_are_read(meta: dict[str, Any], tier: str) -> None:
    """OpenAI, Groq, Bedrock, Vertex AI, Perplexity."""
    assert both(answer(meta)) == Usage(10, 5, 15, tier=tier)


def test_what_a_clients_details_lack_is_taken_part_by_part() -> None:
    """Details with one part and not another: the other comes from the provider's own."""
    raw = {
        **RAW,
        "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 4, "image_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
    }
    figures = {
        **FIGURES,
        "input_token_details": {"cache_read": 5, "audio": 0},
        "output_token_details": {"audio": 0},
    }
    usage = both(answer({"token_usage": raw}, figures))
    assert (usage.cache_read, usage.cache_write, usage.image_input) == (5, 4, 2)
    assert (usage.reasoning, usage.audio_output) == (3, 1)


CACHED = {**RAW, "prompt_tokens_details": {"cached_tokens": 4}, "service_tier": "flex"}
THOUGHT = {**RAW, "completion_tokens_details": {"reasoning_tokens": 3}}
OTHER_SUMS = {**CACHED, "prompt_tokens": 30}


@pytest.mark.parametrize(
    ("meta", "info", "whole", "parts"),
    [
        ({"token_usage": RAW, "usage": CACHED}, None, None, (4, 0, "flex")),
        ({"token_usage": RAW}, {"usage": THOUGHT}, None, (0, 3, "")),
        ({"token_usage": RAW}, None, {"token_usage": CACHED}, (4, 0, "flex")),
        ({"token_usage": THOUGHT}, {"usage": RAW}, {"usage": CACHED}, (4, 3, "flex")),
        ({"token_usage": RAW}, None, {"usage": THOUGHT, "service_tier": "flex"}, (0, 3, "flex")),
        ({"usage": {**RAW, "speed": "fast"}}, {"token_usage": CACHED}, {}, (4, 0, "both")),
        ({"token_usage": RAW}, None, {"token_usage": OTHER_SUMS}, (0, 0, "")),
        ({"token_usage": RAW}, {"usage": OTHER_SUMS}, {"model_name": "m"}, (0, 0, "")),
    ],
)
@pytest.mark.parametrize("figures", [FIGURES, None])
def test_a_part_is_taken_from_whichever_source_has_it(
    figures: Any, meta: Any, info: Any, whole: Any, parts: tuple[int, int, str]
) -> None:
    """Sources of other sums are those of another call, e.g. of a whole batch."""
    response = answer(meta, figures)
    response.generations[0][0].generation_info = info
    response.llm_output = whole
    cached, thought, tier = parts
    tier = "service_tier=flex;speed=fast" if tier == "both" else tier
    assert both(response) == Usage(10, 5, 15, cache_read=cached, reasoning=thought, tier=tier)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({**RAW, "prompt_token_details": {"cached_tokens": 4}}, Usage(10, 5, 15, cache_read=4)),
        (
            {
                **{"promptTokenCount": 10, "responseTokenCount": 5, "totalTokenCount": 15},
                "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
            },
            Usage(10, 5, 15, audio_output=2),
        ),
        (
            {
                **{"inputTokenCount": 10, "outputTokenCount": 5},
                **{"cacheReadInputTokenCount": 4, "cacheWriteInputTokenCount": 6},
            },
            Usage(20, 5, 25, cache_read=4, cache_write=6),
        ),
    ],
    ids=["mistral", "gemini-live", "bedrock"],
)
def test_counts_have_a_place_under_every_word_of_a_provider(raw: Any, usage: Usage) -> None:
    """Mistral's other word for details, Gemini's for live answers, Bedrock's metrics."""
    assert both(answer({"usage": raw}, None)) == usage


def test_cohere_counts_its_tokens_one_mapping_deeper() -> None:
    """Beside the units that it bills."""
    raw = {
        "billed_units": {"input_tokens": 8, "output_tokens": 5},
        "tokens": {"input_tokens": 10, "output_tokens": 5},
    }
    assert read(answer({"usage": raw}, None)).usage == Usage(10, 5, 15)


def test_parts_come_from_llm_output_where_the_messages_have_none() -> None:
    """With n = 2 LangChain leaves the provider's own figures there."""
    response = answer({"model_name": "m"})
    response.generations[0].append(response.generations[0][0])
    cached = {**RAW, "prompt_tokens_details": {"cached_tokens": 4}}
    response.llm_output = {"token_usage": cached, "service_tier": "flex"}
    assert both(response) == Usage(10, 5, 15, cache_read=4, tier="flex")


def test_cached_audio_and_images_are_parts_of_both() -> None:
    """OpenAI's realtime details, and Google's by modality, where documents are images."""
    into = {"cached_tokens": 5, "audio_tokens": 6, "cached_tokens_details": {"audio_tokens": 4}}
    usage = both(answer({"token_usage": {**RAW, "prompt_tokens_details": into}}, None))
    assert (usage.cache_read, usage.audio_input, usage.cached_audio) == (5, 6, 4)
    google = {
        **{"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
        "cachedContentTokenCount": 7,
        "cacheTokensDetails": [{"modality": "DOCUMENT", "tokenCount": 3}],
        "promptTokensDetails": [{"modality": "DOCUMENT", "tokenCount": 8}],
    }
    usage = both(answer({"usage_metadata": google}, None))
    assert usage == Usage(10, 5, 15, cache_read=7, image_input=8, cached_image=3)


def test_deep_research_has_reasoning_and_citations_beside_its_output() -> None:
    """Perplexity's own example: 7,163 tokens of output, 73,997 of reasoning, 20,016 quoted."""
    raw = {
        **{"prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196},
        **{"citation_tokens": 20016, "num_search_queries": 18, "reasoning_tokens": 73997},
        "cost": {"total_cost": 0.409},
    }
    figures = {"input_tokens": 33, "output_tokens": 7163, "total_tokens": 7196}
    usage = both(answer({"token_usage": raw}, figures))
    assert (usage.output, usage.reasoning, usage.citation) == (101176, 73997, 20016)
    assert usage.web_searches == 18


def test_searches_count_where_there_is_no_usage() -> None:
    """Tokens are then estimated, and the searches are those that the message shows."""
    meter = priced("openai", "m")
    done: Any = answer({"service_tier": "flex"}, None, [{"type": "web_search_call"}])
    metadata = {"ls_provider": "openai", "ls_model_name": "m"}

    run = uuid4()
    meter.on_chat_model_start({"name": "x"}, [[]], run_id=run, metadata=metadata)
    meter.on_llm_end(done, run_id=run)
    totals = meter.snapshot().totals
    assert (totals.web_searches, totals.cost) == (1, 1)


@pytest.mark.parametrize(
    "response",
    [
        LLMResult(
            generations=[[Generation(text="x")]],
            llm_output={"token_usage": RAW, "model_name": "davinci-002"},
        ),
        LLMResult(
            generations=[
                [
                    Generation(
                        text="x",
                        generation_info={"prompt_eval_count": 10, "eval_count": 5, "model": "m"},
                    )
                ]
            ]
        ),
        answer({"model_provider": "bedrock_converse", "stopReason": "end_turn"}),
        answer(
            {"model_provider": "deepseek", "token_usage": {**RAW, "prompt_cache_hit_tokens": 0}}
        ),
        answer({"model_provider": "mistralai", "token_usage": {**RAW, "num_cached_tokens": 0}}),
        answer({"token_usage": {**RAW, "cost": 0.00015, "is_byok": False}}),
        answer({}, {**FIGURES, "total_cost": 0}),
        answer({}, FIGURES, [{"type": "tool_use", "name": "f", "input": {}}]),
    ],
    ids=["text", "ollama", "bedrock", "deepseek", "mistral", "openrouter", "cached", "tool-call"],
)
def test_common_responses_of_every_provider_are_read_natively(response: Any) -> None:
    """None of these falls to Python."""
    assert both(response)[:3] == (10, 5, 15)
