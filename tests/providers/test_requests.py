"""What a call needs, read from every form of input that LangChain takes."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from langmeter import Meter, NoProviderError, PriceBook, ProviderManager
from langmeter.runnables.models import Names
from langmeter.runnables.providers.decisions import DecisionLog
from langmeter.runnables.providers.failures import Kind
from langmeter.runnables.providers.figures import Figures, LiveFigures, Rates
from langmeter.runnables.providers.request import read_request, without_marks
from tests.support.chats import ScriptedChat, refusal
from tests.support.versions import needs_profiles, needs_stream_events

MARKED = {"type": "text", "text": "twelve chars", "cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}

#: Input, characters, images, marks.
FORMS: list[tuple[Any, int, bool, set[str]]] = [
    ("hello", 5, False, set()),
    (StringPromptValue(text="hello"), 5, False, set()),
    (ChatPromptValue(messages=[HumanMessage("hello")]), 5, False, set()),
    ([HumanMessage("hello"), AIMessage("you")], 8, False, set()),
    ((HumanMessage("hello"),), 5, False, set()),
    ([("user", "hello")], 5, False, set()),
    ([("user", [MARKED, IMAGE])], 12, True, {"cache_control"}),
    ([{"role": "user", "content": "hello"}], 5, False, set()),
    ([{"role": "user", "content": [MARKED, "and"]}], 15, False, {"cache_control"}),
    ([{"role": "user", "content": "x", "cache_control": {}}], 1, False, {"cache_control"}),
    ([HumanMessage(["hello", MARKED])], 17, False, {"cache_control"}),
    ([HumanMessage("x", additional_kwargs={"cache_control": {}})], 1, False, {"cache_control"}),
    ([HumanMessage([{"cachePoint": {"type": "default"}}])], 0, False, {"cachePoint"}),
    ([object()], 0, False, set()),
    (None, 0, False, set()),
]


@pytest.mark.parametrize(("prompt", "characters", "images", "marks"), FORMS)
def test_every_form_of_input_is_read(
    prompt: Any, characters: int, images: bool, marks: set[str]
) -> None:
    """Texts, prompt values, messages, pairs and dicts; what is none of them needs nothing."""
    request = read_request(prompt)
    assert request[:3] == (characters, images, marks)
    assert read_request(without_marks(prompt, marks)).marks == set()


@pytest.mark.parametrize(("prompt", "characters", "images", "marks"), FORMS)
def test_taking_marks_out_leaves_the_rest(
    prompt: Any, characters: int, images: bool, marks: set[str]
) -> None:
    """Text and images stay, and the input of the caller is not changed."""
    before = repr(prompt)
    clean = read_request(without_marks(prompt, marks))
    assert (clean.characters, clean.images) == (characters, images)
    assert repr(prompt) == before or type(prompt) is object


def test_a_price_is_that_of_the_band_of_the_prompt() -> None:
    """Beyond a limit all tokens cost more, cached ones less."""
    rates = (Rates(-1, 1.0, 10.0, 0.1), Rates(100, 2.0, 20.0, 0.2))
    figures = Figures(output=5.0, rates=rates)
    assert figures.cost(400) == 100 * 1.0 + 5 * 10.0
    assert figures.cost(404) == 101 * 2.0 + 5 * 20.0
    assert figures.cost(400, cached=0.5) == pytest.approx(50 + 5.0 + 50)
    assert Figures().cost(400) is None


def test_two_models_of_one_provider_have_their_own_rows() -> None:
    """By the name that answered, dated versions included."""
    meter = Meter()
    models: Any = {
        "small": ScriptedChat(model="gpt", metadata={"langmeter_provider": "acme"}),
        "large": ScriptedChat(model="gpt-pro", metadata={"langmeter_provider": "acme"}),
    }
    manager = ProviderManager(models, meter=meter, policy="fastest")
    models["small"].usage = (100, 7, 0)
    models["large"].usage = (100, 9, 0)
    for model in models.values():
        model.invoke("hello")
    manager.refresh()
    of = manager._router.live.of
    assert (of["small"].output, of["large"].output) == (7.0, 9.0)


def test_recent_figures_forget_what_is_old() -> None:
    """After two spans of five minutes without calls a latency is unknown again."""
    now = [0.0]
    meter = Meter()
    model = ScriptedChat(model="m", metadata={"langmeter_provider": "p"})
    live = LiveFigures(meter, {"p": Names("p", "m")}, 1.0, lambda: now[0])
    for _ in range(3):
        model.invoke("hello", {"callbacks": [meter]})
    live.refresh()
    assert live.of["p"].latency is not None
    for _ in range(3):
        now[0] += 301.0
        live.refresh()
    assert live.of["p"].latency is None
    assert live.of["p"].output == 10.0  # that of the whole time


def test_a_price_book_that_fails_leaves_prices_unknown() -> None:
    """Calls go on without them."""

    class Broken(PriceBook):
        def card_now(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError

    live = LiveFigures(Meter(prices=Broken({})), {"p": Names("p", "m")}, 1.0)
    live.read_prices()
    live.refresh()
    assert live.of["p"].rates == ()


def test_the_oldest_conversation_is_forgotten() -> None:
    """10,000 of them are remembered; one that goes on is not the oldest."""
    log = DecisionLog()
    for number in range(10_000):
        log.remember(f"t{number}", "a")
    log.remember("t0", "b")
    log.remember("new", "a")
    assert [log.provider_of(name) for name in ("t0", "t1", "t2", "new")] == ["b", "", "a", "a"]


async def test_the_methods_below_a_run_fall_back_too() -> None:
    """`_generate` is what LangChain's own wrappers of a model call; it opens no run either."""
    prompt = [SystemMessage([MARKED])]
    models: Any = {"a": ScriptedChat(text="a"), "b": ScriptedChat(text="b")}
    manager = ProviderManager(models)
    models["a"].script[:] = [ConnectionResetError(), ConnectionResetError()]
    assert manager._generate(prompt).generations[0].text == "b"
    assert (await manager._agenerate(prompt)).generations[0].text == "b"
    assert (await manager.agenerate([prompt], run_id=None)).generations[0][0].text == "a"
    assert all("cache_control" not in str(messages) for messages, _ in models["b"].calls)
    for method in (manager._agenerate, manager.agenerate):
        models["a"].script[:] = [refusal(500)]
        models["b"].script[:] = [refusal(503)]
        with pytest.raises(type(refusal(503))):
            await method([prompt] if method == manager.agenerate else prompt)


@needs_stream_events
async def test_every_method_waits_for_a_provider_that_returns() -> None:
    """Streams, `generate` and events, sync and async."""
    model = ScriptedChat(text="a")
    manager = ProviderManager({"a": model})
    prompts: list[Any] = [[HumanMessage("x")]]

    async def astream() -> None:
        assert [chunk async for chunk in manager.astream("x")]

    async def aevents() -> None:
        assert (await manager.astream_events("x", version="v3")) is not None

    ways: list[Any] = [
        lambda: manager.invoke("x"),
        lambda: list(manager.stream("x")),
        lambda: manager.generate(prompts),
        lambda: manager.stream_events("x", version="v3"),
        lambda: manager.ainvoke("x"),
        astream,
        lambda: manager.agenerate(prompts),
        aevents,
    ]
    circuit = manager._router.providers["a"].circuit
    for way in ways:
        circuit.failed(1, Kind.THROTTLED, 0.03)
        began = time.monotonic()
        with warnings.catch_warnings(action="ignore"):  # version 3 is a beta
            result = way()
            if hasattr(result, "__await__"):
                await result
        assert time.monotonic() - began >= 0.03


async def test_without_any_provider_every_method_says_so() -> None:
    """The error is raised where the answer would come."""
    manager = ProviderManager({"a": ScriptedChat(script=[refusal(401)])})
    with pytest.raises(type(refusal(401))):
        manager.invoke("x")
    for call in (lambda: manager.invoke("x"), lambda: list(manager.stream("x"))):
        with pytest.raises(NoProviderError, match=r"a: disabled.*enable\(name\)"):
            call()
    with pytest.raises(NoProviderError):
        await manager.ainvoke("x")


@needs_profiles
def test_a_common_profile_is_what_holds_for_all() -> None:
    """The shortest length, and the features that all have; None where a model has no profile."""
    one = ScriptedChat(profile={"max_input_tokens": 10, "tool_calling": True, "name": "x"})
    two = ScriptedChat(profile={"max_input_tokens": 20, "tool_calling": False})
    assert ProviderManager({"a": one, "b": two}).profile == {
        "max_input_tokens": 10,
        "tool_calling": False,
    }
    assert ProviderManager({"a": one, "b": ScriptedChat()}).profile is None
