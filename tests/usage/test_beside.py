"""What providers bill beside the sums of tokens, and what changes their price.

Real clients over loopback where they are installed; other providers by the responses that they
document, as their clients hand them over.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_openai import ChatOpenAI

from langmeter import Meter, TokenCountingCallback, _core
from langmeter.prices import PriceBook
from langmeter.testing.simulator import Raw
from langmeter.testing.simulator.server import Server
from langmeter.usage import Usage, read
from langmeter.usage.reader import read_any

Events = list[dict[str, Any]]


def call(model: Any, how: str, handler: Any) -> None:
    """One call of a model, in one of the ways that LangChain has."""
    config = {"callbacks": [handler]}

    async def streamed() -> None:
        async for _ in model.astream("?", config=config):
            pass

    match how:
        case "invoke":
            model.invoke("?", config=config)
        case "stream":
            list(model.stream("?", config=config))
        case "ainvoke":
            asyncio.run(model.ainvoke("?", config=config))
        case _:
            asyncio.run(streamed())


WAYS = ("invoke", "stream", "ainvoke", "astream")


def priced(provider: str, model: str, **more: Any) -> Meter:
    """A meter with a price for searches alone."""
    kinds = {"input": 0, "output": 0, "web_search": 1, "file_search": 100, **more}
    return Meter(prices=PriceBook({f"{provider}/{model}": kinds}))


# ----------------------------------------------------------------------- OpenAI's Responses API


def search(number: int, status: str = "completed", **action: Any) -> dict[str, Any]:
    made = {"type": "web_search_call", "id": f"ws_{number}", "status": status}
    return made | ({"action": action} if action else {})


OUTPUT: Events = [
    search(1, type="search", query="a"),
    search(2, type="open_page", url="https://example.com"),
    search(3, type="find_in_page", url="https://example.com", pattern="b"),
    search(4, type="search", query="c"),
    search(5, status="failed", type="search", query="d"),
    {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["e"]},
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "ok", "annotations": []}],
    },
]


def responses(output: Events) -> Raw:
    """One answer of the Responses API, whole and as events."""
    whole = {
        **{"id": "resp_1", "object": "response", "created_at": 1, "status": "completed"},
        **{"model": "gpt-5-mini", "output": output, "parallel_tool_calls": True, "metadata": {}},
        **{"tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None},
        "usage": {
            **{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: Events = [{"type": "response.created", "response": begun}]
    for place, item in enumerate(output):
        at = {"output_index": place, "item": item}
        early = {**item, "status": "in_progress", **({"content": []} if "content" in item else {})}
        events.append({"type": "response.output_item.added", **at, "item": early})
        if "content" in item:
            part = {"output_index": place, "content_index": 0, "item_id": item["id"]}
            delta = {"type": "response.output_text.delta", "delta": "ok", "logprobs": [], **part}
            events.append(delta)
        events.append({"type": "response.output_item.done", **at})
    events.append({"type": "response.completed", "response": whole})
    return Raw(whole, [{**event, "sequence_number": n} for n, event in enumerate(events)])


@pytest.mark.parametrize("version", ["v0", "responses/v1", "v1"])
@pytest.mark.parametrize("how", WAYS)
def test_searches_of_the_responses_api_are_in_its_output(
    how: str, version: str, service: Server
) -> None:
    """Actions of type search count, once each; opening a page and failing do not."""
    meter = priced("openai", "gpt-5-mini")
    service.script(responses(OUTPUT))
    model: Any = ChatOpenAI(
        model="gpt-5-mini",
        base_url=service.url,
        api_key="x",  # type: ignore[arg-type]
        use_responses_api=True,
        output_version=version,
    )
    call(model, how, meter)
    totals = meter.snapshot().totals
    assert (totals.web_searches, totals.file_searches) == (2, 1)
    assert totals.tokens.total == 15
    assert totals.cost == 102


# ----------------------------------------------------------------------- Anthropic


FOUND: dict[str, Any] = {"type": "web_search_result", "url": "https://example.com", "title": "t"}
FOUND |= {"encrypted_content": "x", "page_age": None}
ERROR = {"type": "web_search_tool_result_error", "error_code": "unavailable"}


def claude(*results: Any, **usage: Any) -> Raw:
    """One answer of Claude after searches with these results, whole and as events."""
    blocks: Events = []
    for number, result in enumerate(results):
        call = f"srvtoolu_{number}"
        blocks.append({"type": "server_tool_use", "id": call, "name": "web_search", "input": {}})
        blocks.append({"type": "web_search_tool_result", "tool_use_id": call, "content": result})
    blocks.append({"type": "text", "text": "ok"})
    counts = {"input_tokens": 10, "output_tokens": 5, **usage}
    whole = {
        **{"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x"},
        **{"content": blocks, "stop_reason": "end_turn", "stop_sequence": None, "usage": counts},
    }
    start = {**whole, "content": [], "stop_reason": None}
    events: Events = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        begun = {**block, "text": ""} if block["type"] == "text" else block
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        if block["type"] == "text":
            delta = {"type": "text_delta", "text": "ok"}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": counts})
    return Raw(whole, [*events, {"type": "message_stop"}])


def anthropic(url: str, **more: Any) -> Any:
    # Its client takes 3 s of CPU to import, and `make quick` needs none.
    from langchain_anthropic import ChatAnthropic

    made: Any = ChatAnthropic
    tool = {"type": "web_search_20250305", "name": "web_search"}
    model = made(model="claude-x", base_url=url, api_key="x", max_tokens=100, **more)
    return model.bind_tools([tool])


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("told", [True, False])
def test_searches_of_claude_are_its_results_without_an_error(
    how: str, version: str, told: bool, service: Server
) -> None:
    """Streamed, langchain-anthropic drops their count; the blocks still show them."""
    usage = {"server_tool_use": {"web_search_requests": 2}} if told else {}
    meter = priced("anthropic", "claude-x")
    service.script(claude([FOUND], ERROR, [], **usage))
    call(anthropic(service.root, output_version=version), how, meter)
    totals = meter.snapshot().totals
    assert (totals.web_searches, totals.cost) == (2, 2)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_compaction_of_claude_costs_and_is_in_no_sum(how: str, service: Server) -> None:
    """Its cost is charged, tokens stay those of Anthropic's sums; an advisor is not charged."""
    compaction = {"type": "compaction", "input_tokens": 1000, "output_tokens": 50}
    compaction |= {"cache_read_input_tokens": 200, "cache_creation_input_tokens": 30}
    message = {"type": "message", "input_tokens": 10, "output_tokens": 5}
    advice = {"type": "advisor_message", "model": "y", "input_tokens": 9, "output_tokens": 9}
    meter = priced("anthropic", "claude-x", input=1, output=10, cache_read=0.1, cache_write=2)
    service.script(claude(iterations=[compaction, advice, message]))
    call(anthropic(service.root), how, meter)
    tokens = meter.snapshot().totals.tokens
    # 10 x 1 + 5 x 10, and (1000 x 1 + 200 x 0.1 + 30 x 2 + 50 x 10) beside, USD a million
    assert (tokens.input, tokens.output, tokens.total) == (10, 5, 15)
    assert (tokens.cache_read, tokens.cache_write) == (0, 0)
    assert meter.snapshot().totals.cost == Decimal("0.00164")


@pytest.mark.parametrize("late", [False, True])
def test_each_compaction_has_the_band_of_its_own_input(late: bool, service: Server) -> None:
    """Of three requests of 150,000 tokens none exceeds 200,000; at once and priced later."""
    work = {"type": "compaction", "input_tokens": 150_000, "output_tokens": 0}
    answer = {"type": "message", "input_tokens": 10, "output_tokens": 5}
    price: Any = {"input": 1, "output": 10, "bands": [{"above": 200_000, "input": 100}]}
    book = PriceBook({} if late else {"anthropic/claude-x": price}).warm(wait=True)
    meter = Meter(prices=book)
    service.script(claude(iterations=[work, work, answer]))
    call(anthropic(service.root), "invoke", meter)
    if late:
        assert meter.cost.total_cost is None
        book.set("anthropic", "claude-x", **price)
    totals = meter.snapshot().totals
    assert totals.cost == Decimal("0.30006")
    assert (totals.tokens.total, totals.priced_calls) == (15, 1)
    assert meter.snapshot().unpriced == {}


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({"service_tier": "standard", "speed": "fast"}, "fast"),
        ({"service_tier": "standard", "speed": "standard"}, ""),
        ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "standard", "inference_geo": "us"}, "inference_geo=us"),
        ({"service_tier": "standard", "inference_geo": "global"}, ""),
        ({"inference_geo": "not_available"}, ""),
        (
            {"service_tier": "priority", "speed": "fast", "inference_geo": "us"},
            "service_tier=priority;speed=fast;inference_geo=us",
        ),
        ({"service_tier": "batch", "inference_geo": "us"}, "processing=batch;inference_geo=us"),
    ],
)
def test_what_changes_a_price_of_claude_is_read(
    usage: dict[str, Any], tier: str, service: Server
) -> None:
    """Tier, speed and region; the default of each is none."""
    readings = []

    class Ends(TokenCountingCallback):
        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            readings.append(read(response))

    service.script(claude(**usage))
    call(anthropic(service.root), "ainvoke", Ends())
    (reading,) = readings
    assert reading.usage == Usage(10, 5, 15, tier=tier)
    assert reading.tier == tier


# ----------------------------------------------------------------------- by documented responses


FIGURES: Any = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
RAW = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def answer(meta: dict[str, Any], figures: Any = FIGURES, content: Any = "ok", **extra: Any) -> Any:
    message = AIMessage(content, response_metadata=meta, additional_kwargs=extra)
    message.usage_metadata = figures
    return LLMResult(generations=[[ChatGeneration(message=message)]])


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
