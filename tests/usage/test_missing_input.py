"""Usage without input: a provider named the output alone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from langmeter import Meter
from langmeter.prices import PriceBook
from langmeter.testing.simulator import Raw
from langmeter.testing.simulator.server import Server
from tests.support.counted import o200k, tokens, words
from tests.support.models import chat_model

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
