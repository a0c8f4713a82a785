"""Tokens of tool definitions, as the OpenAI cookbook has them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from langmeter import Meter
from langmeter.testing.simulator.server import Server
from langmeter.usage.estimate import TokenEstimator
from tests.support.counted import client, o200k, tokens

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
