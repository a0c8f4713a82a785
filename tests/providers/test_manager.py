"""One chat model that is several: what it delegates, what it counts, and how it falls back."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langmeter import ConfigError, HealthOptions, Meter, NoProviderError, ProviderManager
from langmeter.runnables.providers.decisions import OBSTACLES, WHYS
from tests.support.chats import ScriptedChat, refusal
from tests.support.routed import BROKEN, pair
from tests.support.versions import needs_profiles, needs_stream_events


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


def test_a_batch_is_routed_call_by_call() -> None:
    """One bad call of twenty goes to the other provider; the order of the answers stays."""
    manager, _, _ = pair(BROKEN)
    answers = manager.batch([str(n) for n in range(20)], {"max_concurrency": 4})
    assert sorted(answer.content for answer in answers) == ["first"] * 19 + ["second"]


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
