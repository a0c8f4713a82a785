"""Tools, schemas and agents through a manager."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from langmeter import Meter
from tests.support.routed import BROKEN, pair
from tests.support.versions import needs_profiles


class Verdict(BaseModel):
    """A verdict."""

    severity: str


def _verdict(severity: str) -> AIMessage:
    call = {"name": "Verdict", "args": {"severity": severity}, "id": "1"}
    return AIMessage("", tool_calls=[call])


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing at {where}"


@needs_profiles
def test_tools_are_bound_to_each_provider_in_its_own_way() -> None:
    """The fallback has them as well, and a provider that takes none is left out."""
    manager, first, second = pair(BROKEN)
    bound = manager.bind_tools([look], tool_choice="any")
    assert bound.invoke("hello").content == "second"
    for model in (first, second):
        _, kwargs = model.calls[0]
        assert kwargs["tools"][0]["function"]["name"] == "look"
        assert kwargs["tool_choice"] == "any"
    assert manager.invoke("hello").content == "first"
    assert "tools" not in first.calls[-1][1]
    first.tools = False
    bound = manager.bind_tools([look])
    assert bound.invoke("hello").content == "second"
    assert bound.explain().last[-1].obstacles == {"nim": "tools"}
    second.profile = {"tool_calling": False}
    with pytest.raises(NotImplementedError):
        manager.bind_tools([look])


async def test_generated_answers_have_the_tools_too() -> None:
    """`generate` of a manager with tools is that of the provider's model with its tools."""
    manager, first, _ = pair()
    bound = manager.bind_tools([look])
    bound.generate([[HumanMessage("hello")]])
    await bound.agenerate([[HumanMessage("hello")]])
    names = [kwargs["tools"][0]["function"]["name"] for _, kwargs in first.calls]
    assert names == ["look", "look"]


async def test_a_schema_is_bound_to_each_provider_and_falls_back() -> None:
    """Also where an answer cannot be parsed, which its provider is not blamed for."""
    manager, first, second = pair()
    parsed = ChatPromptTemplate.from_template("{q}") | manager.with_structured_output(Verdict)
    for use_async in (False, True):
        first.script[:] = [BROKEN, AIMessage("", tool_calls=[{**_call(), "args": {"x": 1}}])]
        second.script[:] = [_verdict("high"), _verdict("low")]
        answers = [
            await parsed.ainvoke({"q": "?"}) if use_async else parsed.invoke({"q": "?"})
            for _ in range(2)
        ]
        assert answers == [Verdict(severity="high"), Verdict(severity="low")]
    assert manager._router.providers["nim"].circuit.recent == (2, 2)
    streamed = list(manager.with_structured_output(Verdict).stream("?"))
    assert streamed == [] or streamed[-1] is None  # the scripted answer calls no tool


def _call() -> Any:
    return {"name": "Verdict", "args": {}, "id": "1"}


async def test_an_agent_takes_a_manager() -> None:
    """Its model calls fall back one by one, with their tools, sync and async."""
    for use_async in (False, True):
        meter = Meter()
        manager, first, second = pair(BROKEN, meter=meter)
        wish = AIMessage("", tool_calls=[{"name": "look", "args": {"where": "x"}, "id": "1"}])
        second.script.append(wish)
        agent = create_agent(manager, [look])
        question = {"messages": [("user", "look at x")]}
        state = await agent.ainvoke(question) if use_async else agent.invoke(question)  # type: ignore[call-overload]
        kinds = [message.type for message in state["messages"]]
        assert kinds == ["human", "ai", "tool", "ai"]
        assert state["messages"][-1].content == "first"
        models = meter.snapshot().models
        assert {key: stats.calls for key, stats in models.items()} == {
            ("nim", "small"): 2,
            ("openai", "large"): 1,
        }
        assert len(first.calls) == 2


def test_an_agent_with_a_schema_takes_a_manager() -> None:
    """The schema is a tool of whichever provider answers."""
    manager, first, second = pair()
    first.script[:] = [BROKEN, _verdict("high")]
    second.script[:] = [_verdict("high")]
    agent = create_agent(manager, [], response_format=Verdict)
    state = agent.invoke({"messages": [("user", "how bad?")]})  # type: ignore[call-overload]
    assert state["structured_response"] == Verdict(severity="high")
