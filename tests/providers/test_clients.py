"""Real clients over loopback: each fault of the first provider, and the second one answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from langmeter import HealthOptions, Meter, ProviderManager, restart_of
from langmeter.testing.simulator import Choice, Reply, Text, ToolUse
from langmeter.testing.simulator.server import Server

pytestmark = [
    pytest.mark.clients,
    # google-genai, where aiohttp is installed.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]


def gpt(service: Server, fault: str = "ok", **more: Any) -> BaseChatModel:
    return ChatOpenAI(
        model="gpt-4o",
        base_url=service.url,
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        default_headers={"x-simulate": fault},
        **more,
    )


def claude(service: Server, fault: str = "ok", **more: Any) -> BaseChatModel:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(
        model_name="claude-haiku-4-5",
        base_url=service.root,
        api_key="x",  # type: ignore[arg-type]
        max_retries=0,
        default_headers={"x-simulate": fault},
        **more,
    )


def gemini(service: Server, fault: str = "ok", **more: Any) -> BaseChatModel:
    return ChatGoogleGenerativeAI(
        model="gemini-2.5-flash",
        base_url=service.root,
        api_key="x",
        max_retries=1,
        additional_headers={"x-simulate": fault},
        **more,
    )


async def answer(manager: Any, way: str) -> str:
    """The text of one call; a restart throws away what came before."""
    if way == "invoke":
        return str(manager.invoke("Explain.").text)
    if way == "ainvoke":
        return str((await manager.ainvoke("Explain.")).text)
    if way == "stream":
        chunks = list(manager.stream("Explain."))
    else:
        chunks = [chunk async for chunk in manager.astream("Explain.")]
    text = ""
    for chunk in chunks:
        text = "" if restart_of(chunk) else text + chunk.text
    return text


WAYS = ("invoke", "ainvoke", "stream", "astream")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", ["rate_limited", "server_error", "broken", "stall"])
@pytest.mark.parametrize("first", [gpt, claude, gemini], ids=lambda make: make.__name__)
async def test_every_fault_of_every_client_ends_in_an_answer(
    service: Server, first: Any, fault: str, way: str
) -> None:
    """One failed run of the first, one whole run of the second, as the service has them."""
    meter = Meter()
    backup = gpt if first is claude else claude
    # A silent service: where a call is not an async stream, the client's own time-out ends it.
    timeout = {"timeout": 0.5} if fault == "stall" and way != "astream" else {}
    models = {"one": first(service, fault, **timeout), "two": backup(service)}
    # Long enough for the answer of the second on a busy machine.
    manager = ProviderManager(models, meter=meter, stall_after=2.0)
    before = service.truth()
    assert await answer(manager, way)
    rows = {provider: stats for (provider, _), stats in meter.snapshot().models.items()}
    assert rows["two"].outcomes["ok"] == rows["two"].calls == 1
    assert rows["one"].outcomes["ok"] == 0
    assert rows["one"].calls == 1
    failures = 0 if fault == "rate_limited" else 1
    assert manager._router.providers["one"].circuit.recent == (failures, failures)
    sent = service.truth().sent("ok").calls - before.sent("ok").calls
    assert sent == 1


async def test_concurrent_calls_are_counted_once(service: Server) -> None:
    """32 threads through one manager whose first provider breaks for all of them."""
    meter = Meter()
    health = HealthOptions(failures=1000, calls=1000)
    models = {"one": gpt(service, "server_error"), "two": claude(service)}
    manager = ProviderManager(models, meter=meter, health=health)
    threads = [threading.Thread(target=manager.invoke, args=(f"call {n}",)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = {provider: stats for (provider, _), stats in meter.snapshot().models.items()}
    assert (rows["one"].errors, rows["two"].outcomes["ok"]) == (32, 32)
    assert sum(manager.decisions.values()) == 64


class Verdict(BaseModel):
    """A verdict."""

    severity: str


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing at {where}"


async def test_tools_schemas_and_agents_cross_providers(service: Server) -> None:
    """Each provider has them in its own format, which its service reads."""
    meter = Meter()
    manager = ProviderManager({"one": gpt(service), "two": claude(service)}, meter=meter)
    verdict = Reply(
        (Choice((ToolUse("c1", "Verdict", ('{"severity":', '"high"}')),)),), input=5, output=5
    )
    look_at = Reply((Choice((ToolUse("c1", "look", ('{"where": "x"}',)),)),), input=5, output=5)
    said = Reply((Choice((Text(("done",)),)),), input=5, output=5)
    fail = Reply(status=500)
    schema = manager.with_structured_output(Verdict, method="function_calling")
    service.script(fail, verdict)
    assert schema.invoke("how bad?") == Verdict(severity="high")
    service.script(fail, verdict)
    assert await schema.ainvoke("how bad?") == Verdict(severity="high")
    agent = create_agent(manager, [look])
    service.script(fail, look_at, fail, said)
    state = agent.invoke({"messages": [("user", "look")]})  # type: ignore[call-overload]
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "done"
    rows = {provider: stats for (provider, _), stats in meter.snapshot().models.items()}
    assert rows["one"].errors == 4
    assert rows["two"].outcomes["ok"] == 4
    # Both models' profiles have a strategy of the provider's own, in which the answer is JSON.
    text = Reply((Choice((Text(('{"severity":', '"high"}')),)),), input=5, output=5)
    service.script(fail, text)
    agent = create_agent(manager, [look], response_format=Verdict)
    state = agent.invoke({"messages": [("user", "how bad?")]})  # type: ignore[call-overload]
    assert state["structured_response"] == Verdict(severity="high")


def test_streams_of_a_foreign_address_have_their_usage(service: Server) -> None:
    """The manager asks for it, as `attach` does: without it the figures would be estimates."""
    meter = Meter()
    manager = ProviderManager({"nim": gpt(service)}, meter=meter)
    list(manager.stream("hello"))
    totals = meter.snapshot().totals
    assert totals.tokens.total > totals.tokens.estimated == 0
