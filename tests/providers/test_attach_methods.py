"""Methods that hand out models, wrapped on one instance of a manager."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import threading
import types
from typing import Any
from weakref import ref

import pytest
from langchain_core.language_models import FakeListChatModel
from pydantic import BaseModel, ConfigDict

from langmeter import Meter, attach
from tests.support.models import chat_model

NATIVE = "genericfakechatmodel"


class Factory:
    """A manager that makes models when it is asked for them."""

    #: Models that were made.
    made = 0

    def __init__(self) -> None:
        self.default = "nim"

    def get_llm(self, name: str = "nim", *, temperature: float = 0.0) -> Any:
        """Return a model."""
        self.made += 1
        return chat_model()

    def get_model(self, model_name: str) -> Any:
        """Return a model by its own name."""
        return chat_model()

    async def get_provider(self, id: Any = None) -> Any:
        """Return a model, later."""
        await asyncio.sleep(0)
        return chat_model()

    def createLlm(self, provider: str, model: str) -> Any:  # noqa: N802
        """Return a model of a provider."""
        return chat_model()

    def get_model_with_fallback(self, api_key: str, llm_name: str) -> tuple[Any, list[Any]]:
        """Return a model, and those to fall back to."""
        return chat_model().with_retry(), [chat_model()]

    def get_llm_config(self, name: str) -> dict[str, str]:
        """Return settings."""
        return {"name": name}

    def load_chat(self) -> Any:
        """Return a coroutine, as a plain function may."""
        return self.get_provider("later")

    @staticmethod
    def make_client(name: str) -> Any:
        """Return an object with a model."""
        return types.SimpleNamespace(llm=chat_model())

    @classmethod
    def build_model(cls, **options: Any) -> Any:
        """Return a model."""
        return chat_model()

    @property
    def get_llm_lazily(self) -> Any:
        """Return a model; nothing reads a property to see what it returns."""
        raise AssertionError

    def select_provider(self) -> Any:
        """Refuse."""
        raise LookupError("none")

    @functools.lru_cache  # noqa: B019
    def pick_model(self, name: str) -> Any:
        """Return the same model again."""
        return chat_model()


def calls(meter: Meter) -> dict[str, int]:
    """Calls by provider."""
    return {provider: stats.calls for (provider, _), stats in meter.snapshot().models.items()}


def test_models_are_metered_when_they_are_handed_out() -> None:
    """Under the text for a parameter that names a provider, the defaults included."""
    factory, meter = Factory(), Meter()
    attached = attach(factory, meter)
    assert attached.methods == (
        ".build_model",
        ".createLlm",
        ".get_llm",
        ".get_model",
        ".get_model_with_fallback",
        ".get_provider",
        ".load_chat",
        ".make_client",
        ".pick_model",
        ".select_provider",
    )
    assert dict(attached.providers) == {}
    factory.get_llm("a").invoke("x")
    factory.get_llm(name="b", temperature=1.0).invoke("x")
    factory.get_llm().invoke("x")
    factory.get_model("gpt-4o").invoke("x")
    factory.createLlm("c", "gpt-4o").invoke("x")
    factory.createLlm(model="gpt-4o", provider="c").invoke("x")
    factory.make_client("d").llm.invoke("x")
    factory.build_model().invoke("x")
    first, (second,) = factory.get_model_with_fallback("secret", "e")
    first.invoke("x")
    second.invoke("x")
    assert factory.get_llm_config("f") == {"name": "f"}
    assert factory.made == 3
    assert calls(meter) == {"a": 1, "b": 1, "nim": 1, NATIVE: 2, "c": 2, "d": 1, "e": 2}
    assert set(attached.providers) == {"a", "b", "nim", NATIVE, "c", "d", "e"}
    assert attached.providers["a"][0].place == ".get_llm()"


async def test_coroutine_functions_stay_coroutine_functions() -> None:
    """And a function that returns a coroutine returns one."""
    factory, meter = Factory(), Meter()
    attach(factory, meter)
    assert asyncio.iscoroutinefunction(factory.get_provider)
    assert inspect.iscoroutinefunction(factory.get_provider.__call__)  # type: ignore[operator]
    assert not asyncio.iscoroutinefunction(factory.load_chat)
    (await factory.get_provider("nim")).invoke("x")
    await (await factory.get_provider(id="nim")).ainvoke("x")
    await (await factory.load_chat()).ainvoke("x")
    (await factory.get_provider()).invoke("x")
    assert calls(meter) == {"nim": 2, "later": 1, NATIVE: 1}


def test_what_a_method_does_is_unchanged() -> None:
    """Its errors, signature, name, documentation, and what else it has."""
    factory = Factory()
    before = inspect.signature(factory.get_llm)
    attach(factory, Meter())
    with pytest.raises(LookupError, match="none"):
        factory.select_provider()
    with pytest.raises(TypeError, match="unexpected keyword"):
        factory.get_llm(nme="a")  # type: ignore[call-arg]
    assert inspect.signature(factory.get_llm) == before
    assert factory.get_llm.__name__ == "get_llm"
    assert factory.get_llm.__doc__ == "Return a model."
    assert factory.pick_model("a") is factory.pick_model("a")
    assert factory.pick_model.cache_info().hits >= 1
    with pytest.raises(AttributeError):
        factory.get_llm.unheard_of  # type: ignore[attr-defined]  # noqa: B018


def test_detach_puts_the_methods_back() -> None:
    """Also what stood on the instance before; models that were handed out are let go."""
    factory, meter = Factory(), Meter()
    bare = {**vars(factory), "made": 1}
    attached = attach(factory, meter)
    model = factory.get_llm("a")
    early = factory.get_llm
    attached.detach()
    assert vars(factory) == bare
    assert model.callbacks is None
    assert early("b").callbacks is None
    own = vars(factory)["get_llm"] = lambda name: chat_model()
    attached = attach(factory, meter)
    assert factory.get_llm("a").callbacks == [meter]
    attached.detach()
    assert vars(factory)["get_llm"] is own


def test_a_second_meter_sees_the_same_models() -> None:
    """Each is attached once, and they come off in any order."""
    factory, one, two = Factory(), Meter(), Meter()
    attachments = [attach(factory, meter) for meter in (one, two, one)]
    assert attachments[2].methods == attachments[0].methods
    model = factory.get_llm("a")
    assert model.callbacks == [one, two]
    model.invoke("x")
    attachments[0].detach()
    assert factory.get_llm("a").callbacks == [two]
    attachments[1].detach()
    assert factory.get_llm("a").callbacks is None
    assert vars(factory).keys() == {"default", "made"}
    assert calls(one) == calls(two) == {"a": 1}


def test_another_instance_is_untouched() -> None:
    """Methods are wrapped on the one instance; a subclass's are wrapped as well as its base's."""

    class Sub(Factory):
        def get_llm(self, name: str = "nim", *, temperature: float = 0.0) -> Any:
            return super().get_llm(name)

    meter = Meter()
    sub, other = Sub(), Sub()
    attach(sub, meter)
    assert other.get_llm().callbacks is None
    assert sub.get_llm("a").callbacks == [meter]


def test_methods_of_the_objects_in_a_mapping_are_wrapped() -> None:
    """The key names the provider, and a model made later is metered."""

    class Provider:
        def __init__(self) -> None:
            self._llm: Any = None

        def get_llm(self) -> Any:
            self._llm = self._llm or chat_model()
            return self._llm

    meter = Meter()
    manager = types.SimpleNamespace(providers={"nim": Provider()}, helpers={"x": Provider()})
    attached = attach(manager, meter)
    assert attached.methods == (".providers['nim'].get_llm",)
    provider = manager.providers["nim"]
    for _ in range(2):
        provider.get_llm().invoke("x")
    assert calls(meter) == {"nim": 2}
    assert attached.providers["nim"][0].place == ".providers['nim'].get_llm()"
    attached.detach()
    assert provider._llm.callbacks is None


def test_copies_of_a_manager_are_managers() -> None:
    """A deep copy and a pickle have the plain methods of their own."""
    factory, meter = Factory(), Meter()
    attach(factory, meter)
    for other in (copy.deepcopy(factory), pickle.loads(pickle.dumps(factory))):
        assert other.get_llm("a").callbacks is None
        assert (other.made, factory.made, other.default) == (1, 0, "nim")
        assert other.make_client("a").llm.callbacks is None


class Settings(BaseModel):
    """A manager of pydantic that refuses to be changed."""

    model_config = ConfigDict(frozen=True)
    default: str = "nim"

    def get_llm(self, name: str) -> Any:
        """Return a model."""
        return chat_model()


def test_a_manager_of_pydantic_stays_what_it_is() -> None:
    """It is equal to another, dumped, copied and shown as before; a plain callable is wrapped."""
    manager, other, meter = Settings(), Settings(), Meter()
    attached = attach(manager, meter)
    assert manager.get_llm("a").callbacks == [meter]
    assert (manager, repr(manager), manager.model_dump()) == (
        other,
        repr(other),
        {"default": "nim"},
    )
    assert manager.model_copy(deep=True) == other
    attached.detach()
    assert vars(manager) == vars(other)


def test_callables_of_every_make_are_wrapped() -> None:
    """Those without a signature, or without names of parameters, hand out models as they are."""
    models = {"a": chat_model(), "b": chat_model()}
    manager = types.SimpleNamespace(
        get_model=iter([chat_model()]).__next__,
        make_llm=functools.partial(models.__getitem__, "b"),
        get_client=dict(models).get,
    )
    meter = Meter()
    attached = attach(manager, meter)
    before = {name: method.before for name, method in vars(manager).items()}
    for model in (manager.get_model(), manager.make_llm(), manager.get_client("a")):
        model.invoke("x")
    assert calls(meter) == {NATIVE: 3}
    other = copy.deepcopy(types.SimpleNamespace(get_llm=manager.get_client))
    assert other.get_llm is manager.get_client.before
    attached.detach()
    assert vars(manager) == before


def test_models_that_a_factory_makes_are_not_kept() -> None:
    """However many it makes, the attachment remembers what it saw in bounded space."""
    factory, meter = Factory(), Meter()
    attached = attach(factory, meter)
    models = [ref(factory.get_llm(f"p{number}")) for number in range(1100)]
    gc.collect()
    assert not any(model() for model in models)
    assert len(attached.providers) == 1000
    assert len(attached._changes) == 0


def test_models_handed_out_in_many_threads_are_metered_once() -> None:
    """Also one that all of them get at the same time."""
    meter = Meter()
    model = chat_model()
    manager = types.SimpleNamespace(get_llm=lambda name: model)
    attach(manager, meter)
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        manager.get_llm("a").invoke("x")

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.callbacks == [meter]
    assert calls(meter) == {"a": 8}


def test_a_failure_of_ours_leaves_the_model_to_its_user() -> None:
    """It is counted, and the model handed out."""

    class Odd(FakeListChatModel):
        @property
        def _is_odd(self) -> bool:
            return True

        def __getattribute__(self, name: str) -> Any:
            if name == "callbacks":
                raise RuntimeError("odd")
            return super().__getattribute__(name)

    model = Odd(responses=["a"])
    manager = types.SimpleNamespace(get_llm=lambda: model)
    meter = Meter()
    attach(manager, meter)
    assert manager.get_llm() is model
    assert meter.snapshot().dropped["hook_errors"] == 1
