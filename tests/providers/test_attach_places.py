"""Where `attach` looks for models: mappings, objects of every make, keys, runnables."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, NamedTuple

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, ConfigDict, PrivateAttr

from langmeter import Meter, attach
from langmeter.runnables.models import given_name
from tests.support.managers import Manager, calls, gpt
from tests.support.models import chat_model


class Provider:
    """As fix generators have them: an object for each provider, with its model."""

    def __init__(self, llm: Any, attribute: str = "llm") -> None:
        setattr(self, attribute, llm)
        self.timeout = 30


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
