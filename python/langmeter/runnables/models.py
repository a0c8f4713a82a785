"""Changes to a model of LangChain, and their undoing.

Fields are set in the `__dict__` of the model: that fits frozen models too, and which fields the
user has set stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeAlias
from weakref import ref

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.load import dumpd
from langchain_core.runnables import Runnable

from langmeter._core import PROVIDER_KEY
from langmeter.usage.requested import asked

#: A model of LangChain, whatever it returns.
Model: TypeAlias = BaseLanguageModel[Any]

_STREAM_USAGE = "stream_usage"


class Names(NamedTuple):
    """The names of a model in figures and prices.

    Attributes:
        provider, model: as figures have them until a response names the model; "" where unknown.
        deployment: the deployment that is called, or "".
        vendor: LangChain's name of the provider where the user has given another one, else "".
    """

    provider: str = ""
    model: str = ""
    deployment: str = ""
    vendor: str = ""


def read_names(model: Model) -> Names:
    """Return how figures and prices name a model; each "" where unknown."""
    try:
        each: Any = model  # the base of chat models and text models has neither of these
        chat = isinstance(model, BaseChatModel)
        params = each._get_invocation_params() if chat else each._identifying_params
        metadata = {**each._get_ls_params(), **(model.metadata or {})}
        provider, name, _, deployment, vendor = asked(metadata, params, dumpd(model))
        return Names(provider, name, deployment, vendor)
    except Exception:  # a foreign model may raise anything
        return Names()


def names_of(model: Model) -> tuple[str, str]:
    """Return the provider and the model that figures of its calls have; each "" where unknown."""
    return read_names(model)[:2]


def given_name(name: object) -> str:
    """Return a key or an argument as the name of a provider; "" unless it is a text or a member."""
    if isinstance(name, Enum):
        name = name.value if isinstance(name.value, str) else name.name
    return str.__str__(name).strip() if isinstance(name, str) else ""


def models_in(runnable: object) -> Iterator[Model]:
    """Yield the models inside a runnable once each: bound, retried, with fallbacks, in sequences.

    Of a model itself that model. What a function makes when it is called is not found.
    """
    seen: dict[int, object] = {}
    rest = [runnable]
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, BaseLanguageModel):
            yield part
        elif isinstance(part, Runnable):
            rest += reversed(list(getattr(part, "__dict__", {}).values()))
        elif isinstance(part, Mapping):
            rest += reversed(list(part.values()))
        elif isinstance(part, list | tuple):
            rest += reversed(part)


class ModelChanges:
    """The values set on one model and those before; holds the model weakly."""

    __slots__ = ("_fields", "_model")

    def __init__(self, model: Model, on_gone: Callable[[], Any] | None = None) -> None:
        """`on_gone` is called when the model is collected."""
        self._model = ref(model, None if on_gone is None else lambda _: on_gone())
        #: Name → the value before, and the value that was set.
        self._fields: dict[str, tuple[Any, Any]] = {}

    def add_handler(self, handler: BaseCallbackHandler) -> bool:
        """Put a handler behind those of the model; False where it is there already."""
        model = self._model()
        callbacks = None if model is None else model.callbacks
        if model is None or any(each is handler for each in _handlers(callbacks)):
            return False
        if isinstance(callbacks, BaseCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(handler)
            self._set(model, "callbacks", manager)
        else:
            self._set(model, "callbacks", [*(callbacks or ()), handler])
        return True

    def name_provider(self, name: str) -> bool:
        """Name the provider of the model's calls in figures; False where it has a name already.

        A name that is the model's own, as figures have it, names no provider and is left out.
        """
        model = self._model()
        if model is None or not name or PROVIDER_KEY in (model.metadata or {}):
            return False
        if name == names_of(model)[1]:
            return False
        self._set(model, "metadata", {**(model.metadata or {}), PROVIDER_KEY: name})
        return True

    def switch_on_stream_usage(self) -> bool:
        """Let streams ask for usage where the client and the user have left that open.

        ChatOpenAI asks for it at OpenAI's own address alone. False where nothing was changed.
        """
        model = self._model()
        if model is None or _STREAM_USAGE not in type(model).model_fields:
            return False
        chosen = getattr(model, _STREAM_USAGE)
        chosen = chosen or (chosen is not None and _STREAM_USAGE in model.model_fields_set)
        options = getattr(model, "model_kwargs", None)
        if chosen or (isinstance(options, Mapping) and "stream_options" in options):
            return False
        self._set(model, _STREAM_USAGE, True)
        return True

    def undo(self, handler: BaseCallbackHandler) -> None:
        """Put back what was there; of what the user has changed since, only what is ours."""
        model = self._model()
        if model is None:
            return
        fields = vars(model)
        for name, (before, value) in self._fields.items():
            current = fields.get(name)
            if current is value and _is_as_it_was_set(name, before, current, handler):
                fields[name] = before
            elif name == "callbacks":
                fields[name] = _without(current, handler)
            elif name == "metadata" and isinstance(current, dict):
                entries = current.items()
                fields[name] = {key: entry for key, entry in entries if key != PROVIDER_KEY}
        self._fields = {}

    def _set(self, model: Model, name: str, value: Any) -> None:
        fields = vars(model)
        self._fields[name] = fields.get(name), value
        fields[name] = value


def _handlers(callbacks: Any) -> list[BaseCallbackHandler]:
    if isinstance(callbacks, BaseCallbackManager):
        return callbacks.handlers
    return list(callbacks or ())


def _is_as_it_was_set(name: str, before: Any, current: Any, handler: BaseCallbackHandler) -> bool:
    if name == "callbacks":
        return _handlers(current) == [*_handlers(before), handler]
    if name == "metadata":
        return {key: current[key] for key in current if key != PROVIDER_KEY} == (before or {})
    return True


def _without(callbacks: Any, handler: BaseCallbackHandler) -> Any:
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.remove_handler(handler)
        return manager
    return [each for each in callbacks or () if each is not handler] or None
