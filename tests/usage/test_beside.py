"""What providers bill beside the sums of tokens, and what changes their price.

Real clients over loopback where they are installed; other providers by the responses that they
document, as their clients hand them over.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from langmeter import Meter, TokenCountingCallback
from langmeter.prices import PriceBook
from langmeter.testing.simulator import Raw
from langmeter.testing.simulator.server import Server
from langmeter.usage import Usage, read
from tests.support.beside import priced

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


FOUND: dict[str, Any] = {
    "type": "web_search_result",
    "url": "https://example.com",
    "title": "t",
    "encrypted_content": "x",
    "page_age": None,
}


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
