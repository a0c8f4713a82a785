"""Agents that run out of budget."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from langmeter import Budget, BudgetExceeded, Meter
from langmeter.runnables import middleware
from langmeter.runnables.middleware import BudgetMiddleware


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing at {where}"


class Restless(GenericFakeChatModel):
    """A model that always wants to look once more."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def _agent(*middleware: Any) -> Any:
    calls = (
        AIMessage("", tool_calls=[{"name": "look", "args": {"where": str(i)}, "id": str(i)}])
        for i in range(100)
    )
    return create_agent(Restless(messages=calls), [look], middleware=middleware)


async def test_an_agent_ends_where_its_budget_does() -> None:
    """Its state is there, and a last message that says why; sync and async."""
    agent = _agent(BudgetMiddleware())
    for n in (1, 2):
        budget = Budget(calls=3, action="block")
        config: Any = {"callbacks": [Meter(budgets=[budget])]}
        asked = {"messages": [("user", "look around")]}
        state = agent.invoke(asked, config) if n == 1 else await agent.ainvoke(asked, config)
        kinds = [message.type for message in state["messages"]]
        assert kinds == ["human", *["ai", "tool"] * 3, "ai"]
        last = state["messages"][-1]
        assert "does not fit the budget '3 calls'" in last.content
        assert last.response_metadata["budget_exceeded"]["spent"] == "3"
        assert (budget.spent, budget.reserved) == (3, 0)


def test_without_it_the_agent_raises() -> None:
    """And with it the text is the user's own."""
    config: Any = {"callbacks": [Meter(budgets=[Budget(calls=1, action="block")])]}
    asked = {"messages": [("user", "look around")]}
    with pytest.raises(BudgetExceeded):
        _agent().invoke(asked, config)
    state = _agent(BudgetMiddleware(lambda exc: f"out of {exc.unit}")).invoke(asked, config)
    assert state["messages"][-1].content == "out of calls"


def test_without_langchain_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is optional, and asked for by its name."""
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    spec = importlib.util.spec_from_file_location("fresh", middleware.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'langchain>=1\.0'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
