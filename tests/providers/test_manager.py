"""One chat model that is several: what it delegates, what it counts, and how it falls back."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import warnings
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from langmeter import ConfigError, HealthOptions, Meter, NoProviderError, ProviderManager
from langmeter.runnables.providers.decisions import OBSTACLES, WHYS
from tests.support.chats import ScriptedChat, refusal
from tests.support.versions import needs_profiles, needs_stream_events

BROKEN = ConnectionResetError("gone")


class Starts(BaseCallbackHandler):
    """Notes each start and end that LangChain sends."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.ids: list[Any] = []

    def on_chat_model_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.events.append("start")
        self.ids.append(run_id)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("end")

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("error")

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("chain")


def pair(*script: Any, meter: Meter | None = None, **settings: Any) -> Any:
    """A manager of two models of which the first one has a script, and both models."""
    first = ScriptedChat(text="first", model="small", script=list(script))
    second = ScriptedChat(text="second", model="large")
    manager = ProviderManager({"nim": first, "openai": second}, meter=meter, **settings)
    return manager, first, second


async def every_way(manager: ProviderManager, config: Any) -> list[str]:
    """The answers of one call by each method that has an answer."""
    prompts: Any = ["hello"]
    messages: list[Any] = [[HumanMessage("hello")]]
    callbacks = config["callbacks"]
    answers = [
        manager.invoke("hello", config).content,
        (await manager.ainvoke("hello", config)).content,
        "".join(str(chunk.content) for chunk in manager.stream("hello", config)),
        "".join([str(chunk.content) async for chunk in manager.astream("hello", config)]),
        manager.batch(prompts, config)[0].content,
        (await manager.abatch(prompts, config))[0].content,
        next(iter(manager.batch_as_completed(prompts, config)))[1].content,
        (await anext(aiter(manager.abatch_as_completed(prompts, config))))[1].content,
        manager.generate(messages, callbacks=callbacks).generations[0][0].text,
        (await manager.agenerate(messages, callbacks=callbacks)).generations[0][0].text,
    ]
    return [str(answer).strip() for answer in answers]


async def test_each_attempt_is_one_run_of_the_providers_own_model() -> None:
    """By every method; also where the meter is among the callbacks a second time."""
    meter, starts = Meter(), Starts()
    manager, first, second = pair(meter=meter)
    answers = await every_way(manager, {"callbacks": [meter, starts]})
    assert answers == ["first"] * 10
    assert starts.events == ["start", "end"] * 10
    snapshot = meter.snapshot()
    assert {key: stats.calls for key, stats in snapshot.models.items()} == {("nim", "small"): 10}
    assert snapshot.totals.tokens.input == 1000
    assert not second.calls
    assert len(first.calls) == 10
    assert manager.decisions == {("nim", "policy"): 10}


async def test_the_next_provider_answers_where_one_fails() -> None:
    """By every method; the failed attempt is a run of its own, and the answer is the other's."""
    meter, starts = Meter(), Starts()
    options = HealthOptions(failures=100, calls=100)
    manager, _, _ = pair(*[BROKEN] * 10, meter=meter, health=options)
    answers = await every_way(manager, {"callbacks": [starts]})
    assert answers == ["second"] * 10
    assert starts.events == ["start", "error", "start", "end"] * 10
    models = meter.snapshot().models
    assert models["nim", "small"].errors == models["openai", "large"].calls == 10
    assert manager.decisions == {("nim", "policy"): 10, ("openai", "fallback"): 10}


def test_the_last_error_is_raised_with_the_others_in_its_notes() -> None:
    """It is the exception object of the last provider; nothing is wrapped."""
    manager, _, second = pair(refusal(500))
    last = refusal(503)
    second.script.append(last)
    with pytest.raises(type(last)) as caught:
        manager.invoke("hello")
    assert caught.value is last
    assert "provider 'nim' failed before: InternalServerError" in caught.value.__notes__[0]


def test_a_run_id_of_the_caller_names_the_first_attempt_alone() -> None:
    """Two runs of one id would be one run to every tracer."""
    manager, _, _ = pair(BROKEN)
    starts, run_id = Starts(), uuid4()
    manager.invoke("hello", {"callbacks": [starts], "run_id": run_id})
    assert starts.ids[0] == run_id != starts.ids[1]


def test_what_the_caller_stops_is_no_failure_and_goes_nowhere_else() -> None:
    """A cancelled call, Ctrl-C and an interrupted graph end the call."""
    interrupt: Any = type("GraphInterrupt", (type("GraphBubbleUp", (Exception,), {}),), {})()
    for error in (KeyboardInterrupt(), asyncio.CancelledError(), interrupt):
        manager, _, second = pair(error)
        with pytest.raises(type(error)):
            manager.invoke("hello")
        assert not second.calls
        assert manager.explain().states["nim"] == "ready"


def test_a_provider_without_a_valid_key_is_not_called_again() -> None:
    """Until it is enabled."""
    manager, first, _ = pair(refusal(401))
    assert [manager.invoke("hello").content for _ in range(3)] == ["second"] * 3
    assert len(first.calls) == 1
    assert manager.explain().states == {"nim": "disabled", "openai": "ready"}
    manager.enable("nim")
    assert manager.invoke("hello").content == "first"


def test_a_circuit_opens_and_one_probe_closes_it() -> None:
    """Five failures in a row open it; while it is open its provider costs no time."""
    options = HealthOptions(open_seconds=0.05)
    manager, first, _ = pair(*[BROKEN] * 5, health=options)
    for _ in range(7):
        assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 5
    assert manager.explain().states["nim"] == "open"
    assert manager.explain().last[-1].obstacles == {"nim": "open"}
    time.sleep(0.06)
    assert manager.explain().states["nim"] == "half-open"
    assert manager.invoke("hello").content == "first"
    assert manager.decisions["nim", "probe"] == 1
    assert manager.explain().states["nim"] == "ready"


def test_too_many_requests_are_honoured_at_once() -> None:
    """The time comes from the response; the meter has an error, the circuit no failure."""
    manager, first, _ = pair(refusal(429, retry_after="3600"))
    assert manager.invoke("hello").content == "second"
    assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 1
    assert manager.explain().states["nim"] == "throttled"
    assert manager._router.providers["nim"].circuit.recent == (0, 0)


def test_bad_requests_open_no_circuit() -> None:
    """However often they come."""
    manager, first, _ = pair(*[refusal(400)] * 30)
    for _ in range(30):
        assert manager.invoke("hello").content == "second"
    assert len(first.calls) == 30
    assert manager.explain().states["nim"] == "ready"


async def test_when_all_are_away_a_call_waits_for_the_first_to_return() -> None:
    """Sync and async; also where the response said how long."""
    for use_async in (False, True):
        # A busy machine may be at the second provider for longer than the first one is away.
        for milliseconds in (60, 1_000, 20_000):
            manager, first, second = pair(refusal(429, retry_after_ms=f"{milliseconds}"), wait=60.0)
            second.script.append(refusal(429, retry_after_ms="50000"))
            began = time.monotonic()
            answer = await manager.ainvoke("hello") if use_async else manager.invoke("hello")
            assert answer.content == "first"
            assert time.monotonic() - began >= milliseconds / 1000
            assert len(first.calls) == 2
            if ("", "wait") in manager.decisions:
                break
        assert manager.decisions["", "wait"] == 1


def test_a_call_does_not_wait_beyond_its_deadline() -> None:
    """It fails at once, with the obstacles and the time."""
    manager, _, second = pair(refusal(429, retry_after="100"), wait=50.0)
    second.script.append(refusal(401))
    with pytest.raises(type(refusal(401))):
        manager.invoke("hello")
    began = time.monotonic()
    with pytest.raises(NoProviderError, match=r"nim: throttled, openai: disabled.*wait=") as caught:
        manager.invoke("hello")
    assert time.monotonic() - began < 5
    assert caught.value.obstacles == {"nim": "throttled", "openai": "disabled"}
    assert caught.value.returns_in == pytest.approx(100, abs=5)
    assert manager.decisions["", "none"] == 2


def test_a_bad_request_does_not_wait_for_a_provider_that_is_away() -> None:
    """It fails at once, with the error of the provider that read it."""
    manager, first, second = pair(refusal(429, retry_after="5"), wait=10.0)
    manager.invoke("hello")
    second.script.append(refusal(400))
    began = time.monotonic()
    with pytest.raises(type(refusal(400))):
        manager.invoke("hello")
    assert time.monotonic() - began < 4
    assert len(first.calls) == 1


@pytest.mark.parametrize("policy", ["priority", "healthiest", "fastest"])
def test_threads_on_flapping_providers_are_counted_exactly(policy: str) -> None:
    """What models were called, what the meter counted and what was decided are the same."""
    rng = random.Random(7)
    faults = [BROKEN, refusal(429, retry_after_ms="5"), refusal(400), refusal(500)]
    models: dict[str, Any] = {name: ScriptedChat(model=name) for name in ("p1", "p2", "p3")}
    for model in models.values():
        model.script[:] = [rng.choice(faults) if rng.random() < 0.4 else "x" for _ in range(300)]
    meter = Meter()
    health = HealthOptions(open_seconds=0.02)
    manager = ProviderManager(models, meter=meter, policy=policy, health=health, refresh=0.02)
    ends: list[str] = []

    def work() -> None:
        for _ in range(50):
            try:
                ends.append(manager.invoke("hello").content)
            except Exception as error:
                ends.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 400
    calls = {name: len(model.calls) for name, model in models.items()}
    rows = meter.snapshot().models.items()
    assert {model: stats.calls for (_, model), stats in rows} == {
        k: n for k, n in calls.items() if n
    }
    decided = dict.fromkeys(models, 0)
    for (name, _), count in manager.decisions.items():
        if name:
            decided[name] += count
    assert decided == calls


def test_a_batch_is_routed_call_by_call() -> None:
    """One bad call of twenty goes to the other provider; the order of the answers stays."""
    manager, _, _ = pair(BROKEN)
    answers = manager.batch([str(n) for n in range(20)], {"max_concurrency": 4})
    assert sorted(answer.content for answer in answers) == ["first"] * 19 + ["second"]


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


def test_what_belongs_to_the_manager_goes_with_its_calls() -> None:
    """Its callbacks, tags and metadata; a handler that is there twice is called once."""
    starts = Starts()
    model = ScriptedChat()
    manager = ProviderManager({"a": model}, callbacks=[starts], tags=["x"], metadata={"k": "v"})
    manager.invoke("hello", {"callbacks": [starts]})
    manager.generate([[HumanMessage("hello")]], callbacks=[starts])
    assert starts.events == ["start", "end"] * 2
    meter = Meter(labels=("k",))
    manager.invoke("hello", {"callbacks": [meter]})
    assert meter.snapshot().labels["k", "v"].calls == 1


def test_a_chain_streams_through_a_manager() -> None:
    """In a sequence chunks come as they are made; no further run is opened."""
    starts = Starts()
    manager, _, _ = pair()
    chain = ChatPromptTemplate.from_template("{q}") | manager | StrOutputParser()
    pieces = list(chain.stream({"q": "?"}, {"callbacks": [starts]}))
    assert "".join(pieces).strip() == "first"
    assert starts.events.count("start") == 1


@needs_stream_events
async def test_events_of_version_3_are_those_of_the_chosen_provider() -> None:
    """They come from the provider's own run, sync and async."""
    manager, _, _ = pair(refusal(401))
    manager.invoke("hello")
    starts = Starts()
    config: Any = {"callbacks": [starts]}
    with warnings.catch_warnings(action="ignore"):  # version 3 is a beta
        text = str(manager.stream_events("hello", config, version="v3").text)
        stream = await manager.astream_events("hello", config, version="v3")
        assert text.strip() == str(await stream.text).strip() == "second"
    assert starts.events.count("start") == 2
    kinds = {event["event"] async for event in manager.astream_events("hello", version="v2")}
    assert "on_chat_model_end" in kinds


CACHED: list[Any] = [
    SystemMessage([{"type": "text", "text": "rules", "cache_control": {"type": "ephemeral"}}]),
    HumanMessage([{"type": "text", "text": "go"}, {"cachePoint": {"type": "default"}}]),
]


def test_cache_marks_stay_with_the_provider_that_knows_them() -> None:
    """They are stripped from what crosses to another one; the caller's messages do not change."""
    claude = ScriptedChat(vendor="anthropic", script=[BROKEN])
    other = ScriptedChat(vendor="openai")
    manager = ProviderManager({"claude": claude, "other": other})
    manager.invoke(CACHED)
    assert claude.calls[0][0][0].content[0]["cache_control"]
    assert len(claude.calls[0][0][1].content) == 1  # the mark of Bedrock is foreign to it
    assert other.calls[0][0][0].content == [{"type": "text", "text": "rules"}]
    assert len(other.calls[0][0][1].content) == 1
    claude.script.append(BROKEN)
    manager.generate([CACHED])
    assert other.calls[1][0][0].content == [{"type": "text", "text": "rules"}]
    manager.invoke([{"role": "user", "content": CACHED[0].content}])
    assert len(CACHED[1].content) == 2
    assert "cache_control" in CACHED[0].content[0]


@needs_profiles
def test_providers_that_cannot_take_a_call_are_left_out() -> None:
    """By the profile of their models: images and length; unknown means that they may."""
    blind = ScriptedChat(text="blind", profile={"image_inputs": False, "max_input_tokens": 100_000})
    short = ScriptedChat(text="short", profile={"max_input_tokens": 100})
    manager = ProviderManager({"short": short, "blind": blind})
    image: Any = HumanMessage([{"type": "image", "url": "http://x"}, {"type": "text", "text": "?"}])
    assert manager.invoke("hello").content == "short"
    assert manager.invoke("word " * 200).content == "blind"
    assert manager.explain().last[-1].obstacles == {"short": "context"}
    assert manager.invoke([image]).content == "short"
    assert manager.explain().last[-1].obstacles == {"blind": "images"}
    image.content[1]["text"] = "word " * 200
    with pytest.raises(NoProviderError, match="short: context, blind: images"):
        manager.invoke([image])
    assert manager.profile == {"max_input_tokens": 100}


def test_a_preview_changes_nothing() -> None:
    """It says where a call would go, what stands in the way, and what it would cost."""
    manager, first, second = pair(refusal(401))
    manager.invoke("hello")
    before = manager.explain()
    preview = manager.preview("hello", {"configurable": {"thread_id": "t"}})
    assert (preview.order, preview.why) == (("openai",), "policy")
    assert (preview.obstacles, preview.costs) == ({"nim": "disabled"}, {"openai": None})
    assert manager.explain() == before
    assert len(first.calls) + len(second.calls) == 2


def test_reasons_are_a_closed_set() -> None:
    """No text of a call is in an explanation, and each decision is counted."""
    manager, _, second = pair(*[BROKEN] * 5, wait=0.0)
    second.script.append(refusal(401))
    for _ in range(150):
        with suppress(Exception):
            manager.invoke("a secret")
    explanation = manager.explain()
    assert {decision.why for decision in explanation.last} <= set(WHYS)
    assert {w for d in explanation.last for w in d.obstacles.values()} <= set(OBSTACLES)
    assert len(explanation.last) == 100
    assert "secret" not in repr(explanation)
    assert str(explanation).startswith("policy: priority\nnim: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"providers": {}}, "providers must be a mapping"),
        ({"providers": {"a": "gpt"}}, r"providers\['a'\] must be a chat model"),
        ({"policy": "best"}, "policy must be one of priority, cheapest"),
        ({"policy": "cheapest"}, "policy 'cheapest' must have measurements, got no meter"),
        ({"policy": {"x": 1.0}}, "policy must be weights of nim"),
        ({"policy": {"nim": -1.0}}, r"policy\['nim'\] must be a number"),
        ({"policy": {"nim": 0}}, "weights of which one is above 0"),
        ({"on_budget": "go"}, "on_budget must be one of 'stop', 'cheaper'"),
        ({"wait": -1}, "wait must be seconds"),
        ({"stall_after": 0}, "stall_after must be seconds"),
        ({"refresh": 0}, "refresh must be seconds"),
        ({"health": {}}, "health must be HealthOptions"),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, message: str) -> None:
    """The message names the argument and the remedy."""
    providers = arguments.pop("providers", {"nim": ScriptedChat()})
    with pytest.raises(ConfigError, match=message):
        ProviderManager(providers, **arguments)


def test_one_model_under_two_names_is_refused() -> None:
    """It would have one circuit too many, and one name too few."""
    model = ScriptedChat()
    with pytest.raises(ConfigError, match="one model twice"):
        ProviderManager({"a": model, "b": model})


def test_an_answer_that_cannot_be_read_is_no_failure_of_its_provider() -> None:
    """It goes to the next one all the same."""
    manager, _, _ = pair(*[OutputParserException("not JSON")] * 20)
    for _ in range(20):
        assert manager.invoke("hello").content == "second"
    assert manager.explain().states["nim"] == "ready"
