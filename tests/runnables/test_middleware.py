"""Agents that run out of budget, and agents whose models fall back."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from langmeter import Budget, BudgetExceeded, Meter, attach
from langmeter.runnables import middleware
from langmeter.runnables.middleware import BudgetMiddleware, FallbackMiddleware
from langmeter.testing.simulator import Choice, Reply, Text
from langmeter.testing.simulator.server import Server


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


ANSWER = Reply((Choice((Text(("one", " two")),)),), input=1000, output=100)
REFUSED = Reply((), status=500)


def _models(service: Server) -> list[Any]:
    from langchain_anthropic import ChatAnthropic

    return [
        ChatOpenAI(model="gpt-4o-mini", base_url=service.url, api_key="any", max_retries=0),  # type: ignore[arg-type]
        ChatAnthropic(  # type: ignore[call-arg]
            model="claude-haiku-4-5",
            base_url=service.root,
            api_key="any",  # type: ignore[arg-type]
            max_retries=0,
        ),
    ]


def _budget(**settings: Any) -> Budget:
    return Budget(calls=1, scope={"provider": "openai"}, action="block", **settings)


ASKED: Any = {"messages": [("user", "hello")]}


async def _ask(agent: Any, run: str, config: Any = None) -> Any:
    return agent.invoke(ASKED, config) if run == "invoke" else await agent.ainvoke(ASKED, config)


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
async def test_a_fallback_ends_where_a_budget_refuses(run: str, service: Server) -> None:
    """LangChain's middleware goes on to the next model, which answers and is paid for."""
    service.script(ANSWER)
    for fallback, provider in ((ModelFallbackMiddleware, "anthropic"), (FallbackMiddleware, "")):
        model, second = _models(service)
        meter = Meter(budgets=[_budget()])
        agent: Any = create_agent(model, middleware=[fallback(second)])
        config: Any = {"callbacks": [meter]}
        agent.invoke(ASKED, config)
        before = service.truth().sent("ok").calls
        if provider:
            await _ask(agent, run, config)
        else:
            with pytest.raises(BudgetExceeded) as raised:
                await _ask(agent, run, config)
            assert raised.value.__cause__ is raised.value.__context__ is None
        assert service.truth().sent("ok").calls - before == bool(provider)
        providers = {names[0] for names in meter.snapshot().models}
        assert providers == {"openai", *([provider] if provider else [])}


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
async def test_a_fallback_answers_where_a_model_fails(run: str, service: Server) -> None:
    """Failures go to the next model, as with LangChain's; both attempts are counted."""
    model, second = _models(service)
    meter = Meter(budgets=[_budget()])
    agent: Any = create_agent(model, middleware=[FallbackMiddleware(second)])
    attach([model, second], meter)
    service.script(REFUSED, ANSWER)
    state = await _ask(agent, run)
    assert state["messages"][-1].content
    errors = {names[0]: stats.errors for names, stats in meter.snapshot().models.items()}
    assert errors == {"openai": 1, "anthropic": 0}


async def test_the_budgets_middleware_before_a_fallback_ends_the_agent(service: Server) -> None:
    """The refusal passes the fallback, and the agent's state has its figures."""
    service.script(ANSWER)
    model, second = _models(service)
    middleware = [BudgetMiddleware(), FallbackMiddleware(second)]
    agent: Any = create_agent(model, middleware=middleware)
    config: Any = {"callbacks": [Meter(budgets=[_budget(name="one")])]}
    agent.invoke(ASKED, config)
    for state in (agent.invoke(ASKED, config), await agent.ainvoke(ASKED, config)):
        assert state["messages"][-1].response_metadata["budget_exceeded"]["budget"] == "one"


def test_a_meter_is_attached_to_the_models_of_a_fallback(service: Server) -> None:
    """Middleware with models is a manager as any other."""
    model, second = _models(service)
    attached = attach(FallbackMiddleware(model, second), Meter())
    assert set(attached.providers) == {"openai", "anthropic"}
