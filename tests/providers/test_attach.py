"""Meters attached to managers of models that are there already."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from langmeter import Budget, BudgetExceeded, ConfigError, Meter, PriceBook, attach, track
from langmeter._core import PROVIDER_KEY
from langmeter.runnables.models import ModelChanges, names_of
from langmeter.testing.simulator import Choice, Reply, Text
from langmeter.testing.simulator.server import Server
from tests.support.managers import Manager, calls, gpt
from tests.support.models import chat_model

if TYPE_CHECKING:
    from langchain_anthropic import ChatAnthropic


def claude(service: Server, **settings: Any) -> ChatAnthropic:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(  # type: ignore[call-arg]
        model="claude-haiku-4-5",
        base_url=service.root,
        api_key="any",  # type: ignore[arg-type]
        max_retries=0,
        **settings,
    )


REPLY = Reply((Choice((Text(("one", " two")),)),), input=1000, output=100)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_models_of_real_clients_are_metered_under_the_names_of_the_manager(
    how: str, service: Server
) -> None:
    """Calls, tokens and money of each, in every way to call a model; handlers elsewhere stay."""
    service.script(REPLY)
    manager: Any = Manager({"nim": gpt(service), "backup": claude(service)})
    meter = Meter(prices=PriceBook().warm(wait=True))
    attached = attach(manager, meter)
    for model in manager.providers.values():
        if how == "ainvoke":
            await model.ainvoke("hello")
        elif how == "astream":
            assert [chunk async for chunk in model.astream("hello")]
        elif how == "batch":
            model.batch(["hello"])
        else:
            assert list(getattr(model, how)("hello"))
    snapshot = meter.snapshot()
    assert calls(meter) == {"nim": 1, "backup": 1}
    assert (snapshot.totals.tokens.input, snapshot.totals.tokens.output) == (2000, 200)
    assert snapshot.totals.tokens.estimated == 0
    costs = {names[0]: stats.cost for names, stats in snapshot.models.items()}
    book = meter.cost.prices
    assert costs["backup"] == book.cost("anthropic", "claude-haiku-4-5", input=1000, output=100)
    # NVIDIA NIM has a default, which the user's name precedes LangChain's "openai" for.
    assert costs["nim"] == book.cost("nvidia_nim", "gpt-4o-mini", input=1000, output=100)
    assert set(attached.providers) == {"nim", "backup"}


def test_the_meter_is_put_behind_the_handlers_of_a_model_once() -> None:
    """Of a list, of a manager of callbacks and of None; `detach` puts the very objects back."""
    first, second = BaseCallbackHandler(), BaseCallbackHandler()
    meter = Meter()
    for callbacks in ([first, second], CallbackManager([first, second]), [], None):
        model = chat_model()
        vars(model)["callbacks"] = callbacks
        fields, set_by_user = dict(vars(model)), set(model.model_fields_set)
        attachments = [attach({"a": model}, meter), attach([model, model], meter)]
        handlers: Any = getattr(model.callbacks, "handlers", model.callbacks)
        assert handlers == [*([first, second] if callbacks else []), meter]
        model.invoke("x", {"callbacks": [meter]})
        for attachment in attachments:
            attachment.detach()
        assert {name: vars(model)[name] for name in fields} == fields
        assert model.callbacks is callbacks
        assert model.model_fields_set == set_by_user
    assert meter.snapshot().totals.calls == 4


def test_a_model_that_has_the_meter_keeps_it_when_it_is_detached() -> None:
    """What the user put there is the user's."""
    meter = Meter()
    model = chat_model(callbacks=[meter])
    attach(model, meter).detach()
    assert model.callbacks == [meter]


def test_what_was_changed_since_stays() -> None:
    """Only the meter, the name and the switch are taken back; two meters come off in any order."""
    one, two, other = Meter(), Meter(), BaseCallbackHandler()
    model: Any = gpt(callbacks=[other])
    before = model.callbacks
    attachments = [attach({"a": model}, one), attach({"b": model}, two)]
    assert model.callbacks == [other, one, two]
    model.callbacks.append(late := BaseCallbackHandler())
    model.metadata["team"] = "search"
    model.stream_usage = False
    attachments[0].detach()
    assert model.callbacks == [other, two, late]
    attachments[1].detach()
    assert model.callbacks == [other, late]
    assert model.metadata["team"] == "search"
    assert PROVIDER_KEY not in model.metadata
    assert model.stream_usage is False
    assert before == [other]
    manager = chat_model(callbacks=CallbackManager([other]))
    attached = attach(manager, one)
    assert isinstance(manager.callbacks, CallbackManager)
    manager.callbacks.add_handler(late)
    attached.detach()
    assert manager.callbacks.handlers == [other, late]
    model.callbacks = [other]
    attached = attach(model, one)
    model.callbacks = None
    attached.detach()
    assert model.callbacks is None


def test_models_inside_of_runnables_are_found(service: Server) -> None:
    """Bound, retried, with fallbacks, configured, in sequences and side by side; each once."""
    meter = Meter()
    schema = {"title": "fix", "description": "a fix", "type": "object", "properties": {}}
    inner = gpt(service)
    models: dict[str, tuple[Any, int]] = {
        "retry": (gpt(service).with_retry(), 1),
        "bind": (gpt(service).bind(temperature=0).with_config(tags=["a"]), 1),
        "tools": (gpt(service).bind_tools([]), 1),
        "schema": (gpt(service).with_structured_output(schema), 1),
        "fallbacks": (gpt(service).with_fallbacks([claude(service).with_retry()]), 2),
        "parallel": (RunnableParallel(a=gpt(service), b=inner, c=inner | str), 2),
        "sequence": (RunnableLambda(str) | gpt(service) | str, 1),
        "text": (FakeListLLM(responses=["a"]), 1),
    }
    attached = attach({name: runnable for name, (runnable, _) in models.items()}, meter)
    sizes = {name: len(each) for name, each in attached.providers.items()}
    assert sizes == {name: size - (name == "parallel") for name, (_, size) in models.items()}
    service.script(REPLY)
    models["parallel"][0].invoke("hello")
    models["retry"][0].invoke("hello")
    models["text"][0].invoke("hello")
    assert calls(meter) == {"parallel": 3, "retry": 1, "text": 1}
    attached.detach()
    assert inner.callbacks is None


def test_fallbacks_count_to_the_name_of_their_entry(service: Server) -> None:
    """Each attempt is priced as its own vendor prices it."""
    refused = Reply((), status=500)
    chain = gpt(service).with_fallbacks([claude(service)])
    meter = Meter(prices=PriceBook().warm(wait=True))
    attach({"primary": chain}, meter)
    service.script(refused, REPLY)
    chain.invoke("hello")
    snapshot = meter.snapshot()
    assert calls(meter) == {"primary": 2}
    assert snapshot.totals.errors == 1
    price = meter.cost.prices.cost("anthropic", "claude-haiku-4-5", input=1000, output=100)
    assert snapshot.totals.cost == price


@pytest.mark.parametrize("scope", ["primary", "openai"])
def test_budgets_cover_either_name(scope: str, service: Server) -> None:
    """The manager's name of the provider and LangChain's; a refused call sends nothing."""
    service.script(REPLY)
    budget = Budget(calls=1, scope={"provider": scope}, action="block")
    meter = Meter(budgets=[budget])
    manager: Any = Manager({"primary": gpt(service), "other": claude(service)})
    attach(manager, meter)
    manager.providers["other"].invoke("hello")
    manager.providers["primary"].invoke("hello")
    before = service.truth().sent("ok").calls
    with pytest.raises(BudgetExceeded):
        manager.providers["primary"].invoke("hello")
    assert service.truth().sent("ok").calls == before


def test_stream_usage_is_switched_on_where_it_was_left_open(
    service: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """And said, in the log and by the attachment; what the user has set stays."""
    service.script(REPLY)
    asks = {"stream_options": {"include_usage": False}}
    models: dict[str, Any] = {
        "open": gpt(service),
        "off": gpt(service, stream_usage=False),
        "on": gpt(service, stream_usage=True),
        "own": gpt(service, model_kwargs=asks),
        "azure": AzureChatOpenAI(
            azure_endpoint=service.root,
            api_version="1",
            api_key="k",  # type: ignore[arg-type]
            azure_deployment="d",
        ),
        "anthropic": claude(service),
    }
    before = {name: getattr(model, "stream_usage", None) for name, model in models.items()}
    meter = Meter()
    with caplog.at_level(logging.INFO, "langmeter"):
        attached = attach(models, meter)
    switched = {name for name, (model,) in attached.providers.items() if model.stream_usage}
    assert switched == {"open"} | ({"azure"} if before["azure"] is None else set())
    assert f"{caplog.text}".count("stream_usage is switched on") == len(switched)
    assert "open: ChatOpenAI gpt-4o-mini at ['open'], stream_usage switched on" in str(attached)
    assert "off: ChatOpenAI gpt-4o-mini at ['off']\n" in str(attached)
    list(models["open"].stream("hello"))
    totals = meter.snapshot().totals
    assert (totals.tokens.input, totals.tokens.estimated) == (1000, 0)
    attached.detach()
    assert {name: getattr(m, "stream_usage", None) for name, m in models.items()} == before
    attach(models, Meter(), stream_usage=False)
    assert models["open"].stream_usage is None


def test_a_meter_at_several_places_counts_once() -> None:
    """In the constructor, attached, in `config` and around the call."""
    meter = Meter()
    model = chat_model(callbacks=[meter])
    attach({"a": model}, meter)
    attach({"b": model}, meter)
    with track(meter):
        model.invoke("x", {"callbacks": [meter]})
    assert calls(meter) == {"a": 1}


async def test_calls_of_many_threads_and_tasks_are_attributed(service: Server) -> None:
    """The name of the provider is the model's, whichever thread or task calls it."""
    service.script(REPLY)
    models = {f"p{number}": gpt(service) for number in range(4)}
    meter = Meter()
    attach(models, meter)
    await asyncio.gather(
        *(asyncio.to_thread(model.invoke, "hello") for model in models.values()),
        *(model.ainvoke("hello") for model in models.values()),
    )
    assert calls(meter) == dict.fromkeys(models, 2)


def test_the_attachment_says_what_it_found() -> None:
    """In its `repr` on one line, in `str` a line each, whatever stands in the names."""
    attached = attach({"a\nb": chat_model(), "c": gpt()}, Meter(), stream_usage=False)
    assert str(attached).splitlines() == [
        r"a\nb: GenericFakeChatModel (unknown model) at ['a\nb']",
        "c: ChatOpenAI gpt-4o-mini at ['c']",
    ]
    assert repr(attached).startswith(r"<Attachment: a\nb: Generic")
    attached.detach()
    assert repr(attached).startswith("<Attachment, detached: ")


def test_nothing_found_is_an_error_that_names_the_places() -> None:
    """Attributes that were looked at, and what to do instead."""
    empty = Manager({})
    for existing, places in (
        (empty, r"\.providers, .*\.config"),
        ({}, "it"),
        ({"a": 1, "b": None}, "it"),
        (7, "it"),
        (Manager, "it"),
        (chat_model, "it"),
        (RunnableLambda(str), "it"),
    ):
        with pytest.raises(ConfigError, match=rf"^existing must be a model.*found in {places}.*;"):
            attach(existing, Meter())
    with pytest.raises(ConfigError, match=r"a21, …;"):
        attach(Wide(), Meter())
    with pytest.raises(TypeError, match=r"^meter must be a langmeter callback, got 7; pass"):
        attach({"a": chat_model()}, 7)  # type: ignore[arg-type]


class Wide:
    """An object with many attributes."""

    def __init__(self) -> None:
        for number in range(10, 60):
            setattr(self, f"a{number}", object())


def test_a_manager_that_holds_itself_is_looked_at_once() -> None:
    """Circles, and containers in containers, come to an end."""
    manager: Any = Manager({"nim": chat_model()})
    manager.providers["self"] = manager
    manager.parent = [manager, [manager.providers]]
    attached = attach(manager, Meter())
    assert list(attached.providers) == ["nim"]


def test_a_model_is_freed_and_so_is_its_manager() -> None:
    """Neither the attachment nor the meter keeps a model that the manager has dropped."""
    meter = Meter()
    manager: Any = Manager({"nim": chat_model()})
    attached = attach(manager, meter)
    model, owner = ref(manager.providers["nim"]), ref(manager)
    manager.providers.clear()
    gc.collect()
    assert model() is None
    assert list(attached.providers) == ["nim"]
    del manager
    gc.collect()
    assert owner() is None
    attached.detach()


def test_changes_of_a_model_that_is_gone_are_none() -> None:
    """A handler has nothing to be added to."""
    model = chat_model()
    changes = ModelChanges(model)
    del model
    gc.collect()
    assert not changes.add_handler(Meter())
    assert not changes.name_provider("a")
    assert not changes.switch_on_stream_usage()
    changes.undo(Meter())


def test_names_of_a_model_are_those_of_figures() -> None:
    """A model that cannot say them has none."""

    class Mute(ChatOpenAI):
        def _get_ls_params(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("mute")

    mute: BaseChatModel = Mute(model="m", base_url="http://127.0.0.1:1", api_key="k")  # type: ignore[arg-type]
    assert names_of(mute) == ("", "")
    assert names_of(gpt()) == ("openai", "gpt-4o-mini")
    assert names_of(FakeListLLM(responses=["a"]))[0] == "fakelist"


def test_chat_nvidia_is_metered_under_the_name_of_the_manager(service: Server) -> None:
    """Its streams ask for usage by themselves."""
    endpoints = pytest.importorskip("langchain_nvidia_ai_endpoints")
    service.script(REPLY)
    model = endpoints.ChatNVIDIA(
        base_url=service.url, model="meta/llama-3.1-70b-instruct", api_key="k"
    )
    meter = Meter()
    attached = attach({"primary": model}, meter)
    assert list(model.stream("hello"))
    model.invoke("hello")
    assert calls(meter) == {"primary": 2}
    assert meter.snapshot().totals.tokens.input == 2000
    assert meter.cost.total_cost == meter.cost.prices.cost("nim", "m", input=2000, output=200)
    attached.detach()
