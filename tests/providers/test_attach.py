"""Meters attached to managers of models that are there already."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from pydantic import BaseModel, ConfigDict, PrivateAttr

from langmeter import Budget, BudgetExceeded, ConfigError, Meter, PriceBook, attach, track
from langmeter._core import PROVIDER_KEY
from langmeter.runnables.models import ModelChanges, given_name, names_of
from langmeter.testing.simulator import Choice, Reply, Text
from langmeter.testing.simulator.server import Server
from tests.support.models import chat_model

if TYPE_CHECKING:
    from langchain_anthropic import ChatAnthropic


def gpt(service: Server | None = None, model: str = "gpt-4o-mini", **settings: Any) -> ChatOpenAI:
    url = "http://127.0.0.1:1/v1" if service is None else service.url
    return ChatOpenAI(model=model, base_url=url, api_key="any", max_retries=0, **settings)  # type: ignore[arg-type]


def claude(service: Server, **settings: Any) -> ChatAnthropic:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(  # type: ignore[call-arg]
        model="claude-haiku-4-5",
        base_url=service.root,
        api_key="any",  # type: ignore[arg-type]
        max_retries=0,
        **settings,
    )


def calls(meter: Meter) -> dict[str, int]:
    """Calls by provider."""
    counts: dict[str, int] = {}
    for (provider, _), stats in meter.snapshot().models.items():
        counts[provider] = counts.get(provider, 0) + stats.calls
    return counts


class Provider:
    """As fix generators have them: an object for each provider, with its model."""

    def __init__(self, llm: Any, attribute: str = "llm") -> None:
        setattr(self, attribute, llm)
        self.timeout = 30


class Manager:
    """As fix generators have them: a mapping of providers or models."""

    def __init__(self, providers: Any, attribute: str = "providers") -> None:
        setattr(self, attribute, providers)
        self.config = {"priority": ["nim", "openai"], "retries": 3}
        self.current_provider = "nim"
        self.log = logging.getLogger("manager")
        self.lock = threading.Lock()


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


@pytest.mark.parametrize("attribute", ["providers", "models", "llms", "_clients", "_by_priority"])
def test_a_mapping_is_found_under_any_name(attribute: str) -> None:
    """Public or private; its keys name the providers as they are written."""
    manager = Manager({"NIM": chat_model(), "my openai": chat_model()}, attribute)
    meter = Meter()
    attached = attach(manager, meter)
    for model in getattr(manager, attribute).values():
        model.invoke("x")
    assert calls(meter) == {"NIM": 1, "my openai": 1}
    assert attached.providers["NIM"][0].place == f".{attribute}['NIM']"


@pytest.mark.parametrize("attribute", ["llm", "model", "client", "_llm", "chat"])
def test_objects_with_a_model_are_looked_into(attribute: str) -> None:
    """In a mapping, in a list under a name of their own, and as attributes."""
    meter = Meter()
    models = [chat_model() for _ in range(5)]
    manager = Manager({"nim": Provider(models[0], attribute)})
    attach(manager, meter)
    listed: Any = Provider(models[1], attribute)
    listed.name = "listed"
    attach(Manager([listed, models[2]], "provider_chain"), meter)
    attach(Manager(Provider(models[3], attribute), "nim"), meter)
    attach({"given": Provider(models[4], attribute)}, meter)
    for model in models:
        model.invoke("x")
    native = "genericfakechatmodel"
    assert calls(meter) == {"nim": 1, "listed": 1, native: 2, "given": 1}


class Slots:
    """A manager without a dict."""

    __slots__ = ("_models", "unset")

    def __init__(self, models: Any) -> None:
        self._models = models


@dataclass(frozen=True)
class Frozen:
    """A manager that refuses to be changed."""

    models: dict[str, Any] = field(default_factory=dict)


class Tuple(NamedTuple):
    """A manager that is a tuple."""

    primary: Any


class Validated(BaseModel):
    """A manager of pydantic, whose mapping is private."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)
    priority: list[str] = ["primary"]
    _models: dict[str, Any] = PrivateAttr(default_factory=dict)


def test_managers_of_every_make_are_looked_into() -> None:
    """With slots, frozen, a tuple, of pydantic with private attributes."""
    validated = Validated()
    validated._models["primary"] = chat_model()
    meter = Meter()
    for manager, name in (
        (Slots({"primary": chat_model()}), "primary"),
        (Frozen({"primary": chat_model()}), "primary"),
        (Tuple(chat_model()), "genericfakechatmodel"),
        (validated, "primary"),
    ):
        attached = attach(manager, meter)
        assert list(attached.providers) == [name]
        attached.detach()


class Proxy:
    """What stands for another object, outside of the context in which it does."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("outside of context")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("outside of context")


class Lazy(dict[str, Any]):
    """A mapping that cannot be read."""

    def items(self) -> Any:
        raise OSError("offline")


def test_what_cannot_be_looked_at_is_passed_over() -> None:
    """A proxy, and a mapping that raises; the models beside them are found."""
    manager: Any = Manager({"nim": chat_model()})
    manager.models, manager.request = Lazy(), Proxy()
    manager.llms = [Proxy(), chat_model()]
    attached = attach(manager, Meter())
    assert list(attached.providers) == ["nim", "genericfakechatmodel"]


class Vendor(Enum):
    """Keys of a manager."""

    NIM = 1
    OPEN_AI = "openai"


class Word(StrEnum):
    """Keys of another."""

    CLAUDE = "claude"


def test_keys_that_are_no_texts_name_what_they_can() -> None:
    """A member of an enum its text, or else its name; any other key nothing."""
    assert list(map(given_name, [Vendor.NIM, Vendor.OPEN_AI, Word.CLAUDE, " x ", 7, None])) == [
        "NIM",
        "openai",
        "claude",
        "x",
        "",
        "",
    ]
    attached = attach({Vendor.NIM: chat_model(), 7: chat_model()}, Meter())
    assert list(attached.providers) == ["NIM", "genericfakechatmodel"]


def test_a_key_that_is_the_models_name_names_no_provider() -> None:
    """A manager whose keys are models keeps LangChain's names of their providers."""
    attached = attach(Manager({"gpt-4o": gpt(model="gpt-4o")}, "models"), Meter())
    assert list(attached.providers) == ["openai"]
    assert attached.providers["openai"][0].model == "gpt-4o"


def test_keys_of_chains_name_no_provider() -> None:
    """A mapping that is not of providers gives names to models alone, and after those that are."""
    model = chat_model()

    class Generator:
        def __init__(self) -> None:
            self.chains = {"fix": RunnableLambda(str) | model | str, "judge": chat_model() | str}
            self.agents = {"triage": Provider(chat_model())}
            self.by_task = {"title": chat_model()}
            self.providers = {"nim": model}
            self.providers_of_structure = {"anthropic": chat_model() | str}

    attached = attach(Generator(), Meter())
    places = {
        name: [model.place for model in models] for name, models in attached.providers.items()
    }
    assert places == {
        "nim": [".providers['nim']"],
        "anthropic": [".providers_of_structure['anthropic']"],
        "genericfakechatmodel": [".chains['judge']", ".agents['triage'].llm"],
        "title": [".by_task['title']"],
    }


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
