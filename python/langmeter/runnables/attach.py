"""Meter the models of a manager that is there already, and name the providers as it does."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Final

from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence
from pydantic import BaseModel

from langmeter._base.check import refusal, shown
from langmeter._base.log import log
from langmeter._base.text import printable
from langmeter.callbacks.base import Callback
from langmeter.runnables.handed_out import Method, methods_of, wrap
from langmeter.runnables.models import Model, ModelChanges, given_name, models_in, names_of

#: Entries of a container that are looked at, models that are listed under one name, and names.
_MAX_ENTRIES: Final = 1000
#: Values that are looked at in one search, and places that a message names.
_MAX_LOOKS, _MAX_PLACES = 10_000, 12
#: What holds no model.
_PLAIN: Final = (str, bytes, int, float, complex, type(None))
#: Attributes whose keys name providers, whatever they lead to.
_PROVIDERS: Final = re.compile(r"provider|model|llm|client|chat", re.IGNORECASE)
#: Runnables that are more than a model with its settings, retries and fallbacks.
_CHAINS: Final = (RunnableSequence, RunnableParallel)
#: Of an object with a model, where it keeps a name of its own.
_NAMES: Final = ("name", "provider_name", "provider")


def attach(existing: object, meter: Callback, *, stream_usage: bool = True) -> Attachment:
    """Put a meter among the callbacks of every model that a manager has or hands out.

    Looked at, in this order: `existing` itself, if it is a model, a runnable around models or a
    mapping of them; its attributes with mappings; its other attributes, and those of objects in
    them; methods such as `get_llm(name)`, sync or async, which are wrapped on this instance, so
    that what they return is metered from then on. A model is metered once, wherever else the meter
    is among the callbacks, and its other handlers keep their order.

    The key of a mapping, or the argument of such a method, is the provider's name in figures, as it
    is written, unless it is the model's own name. Prices, budgets and token counters go by that
    name or by LangChain's. A model that is in no mapping keeps LangChain's.

    Args:
        existing: the manager.
        meter: any of langmeter's callbacks.
        stream_usage: whether streams ask for usage where the client leaves that open, as ChatOpenAI
            does at any address but OpenAI's; what the user has set stays. A server that refuses
            `stream_options` needs False.

    Raises:
        TypeError: `meter` is not a callback of langmeter.
        ConfigError: no model was found, and no method that may return one; a ValueError that names
            the places that were looked at.
    """
    if not isinstance(meter, Callback):
        raise TypeError(f"meter must be a langmeter callback, got {shown(meter)}; pass a Meter()")
    attachment = Attachment(meter, stream_usage=stream_usage)
    search = attachment.look_at(existing)
    for owner in [(existing, "", ""), *search.owners]:
        attachment.wrap_methods(*owner)
    if not attachment.providers and not attachment.methods:
        raise refusal(
            "existing",
            "a model, a mapping of models, or an object that has or hands out models",
            existing,
            f"none was found in {_listed(search.places)}; pass the object that makes the models, "
            "or call langmeter.install(meter), which needs none",
        )
    return attachment


@dataclass(frozen=True, slots=True)
class AttachedModel:
    """A model that a meter was attached to.

    Attributes:
        provider, model: under which its calls are counted, until one answers under another name;
            each "" where unknown.
        client: name of its class.
        place: where it was, as Python code: `.providers['nim'].llm`, `.get_llm()`.
        stream_usage: whether its streams ask for usage since, and did not before.
    """

    provider: str
    model: str
    client: str
    place: str
    stream_usage: bool

    def __str__(self) -> str:
        switched = ", stream_usage switched on" if self.stream_usage else ""
        return f"{self.client} {self.model or '(unknown model)'} at {self.place}{switched}"


class Attachment:
    """The models of a manager that a meter was attached to; what `attach` returns."""

    def __init__(self, meter: Callback, *, stream_usage: bool) -> None:
        self.meter = meter
        self._stream_usage = stream_usage
        self._providers: dict[str, tuple[AttachedModel, ...]] = {}
        #: By the identity of the model, which a manager may drop: nothing here keeps it.
        self._changes: dict[int, ModelChanges] = {}
        self._methods: dict[str, Method | None] = {}
        self._lock = threading.RLock()
        self.is_attached = True

    @property
    def providers(self) -> Mapping[str, tuple[AttachedModel, ...]]:
        """The models by the name of their provider in figures, those handed out so far included.

        At most 1,000 of one name, and 1,000 names.
        """
        return MappingProxyType(dict(self._providers))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose models are metered when they return them, as Python code."""
        return tuple(self._methods)

    def detach(self) -> None:
        """Put everything back: callbacks, names, `stream_usage`, methods.

        Calls in flight are metered to their end. What other code has changed since stays changed.
        """
        with self._lock:
            self.is_attached = False
            for method in self._methods.values():
                if method is not None:
                    method.undo()
            for changes in list(self._changes.values()):
                changes.undo(self.meter)
            self._changes.clear()

    def __repr__(self) -> str:
        state = "" if self.is_attached else ", detached"
        return f"<Attachment{state}: {'; '.join(self._lines())}>"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [
            f"{name or 'unknown provider'}: {model}"
            for name, models in self._providers.items()
            for model in models
        ]
        return list(map(printable, lines + [f"what {name}() returns" for name in self._methods]))

    def look_at(self, value: object, name: str = "", place: str = "") -> _Search:
        """Meter the models in an object, of a provider of this name, and return what was found."""
        search = _Search()
        search.look_at(value, name, place, levels=2)
        for model, provider, where in search.models:
            self._add(model, provider, where or "existing")
        return search

    def wrap_methods(self, owner: object, provider: str, place: str) -> None:
        """Look at what the methods of an object return from now on, if they may return models."""
        try:
            names = methods_of(owner)
        except Exception:
            log.debug("%s cannot be looked at", place, exc_info=True)
            return
        with self._lock:
            for name in names:
                where = f"{place}.{name}"
                if where not in self._methods:
                    self._methods[where] = wrap(owner, name, provider, where, self)

    def _add(self, model: Model, name: str, place: str) -> None:
        """Meter one model, unless that has been done; the first name that it is given stays."""
        with self._lock:
            number = id(model)
            if not self.is_attached or number in self._changes:
                return
            changes = ModelChanges(model, partial(self._changes.pop, number, None))
            self._changes[number] = changes
            changes.add_handler(self.meter)
            changes.name_provider(name)
            switched = self._stream_usage and changes.switch_on_stream_usage()
            self._list(AttachedModel(*names_of(model), type(model).__name__, place, switched))

    def _list(self, attached: AttachedModel) -> None:
        models = self._providers.get(attached.provider, ())
        if attached in models:
            return
        if attached.stream_usage:
            log.info(
                "stream_usage is switched on for %s at %s, whose streams would have no usage",
                attached.client,
                attached.place,
            )
        if len(models or self._providers) < _MAX_ENTRIES:
            self._providers[attached.provider] = (*models, attached)


def _listed(places: list[str]) -> str:
    more = ", …" if len(places) > _MAX_PLACES else ""
    return ", ".join(places[:_MAX_PLACES]) + more or "it"


class _Search:
    """The models that were found in an object.

    Attributes:
        models: each with the name of its provider, or "", and its place.
        owners: objects whose methods may hand out models, with the same.
        places: where was looked, for a message.
    """

    def __init__(self) -> None:
        self.models: list[tuple[Model, str, str]] = []
        self.owners: list[tuple[object, str, str]] = []
        self.places: list[str] = []
        self._seen: dict[int, object] = {}

    def look_at(
        self, value: object, name: str, place: str, *, levels: int, certain: bool = True
    ) -> None:
        """Look at a value, at what is in containers, and in as many levels of objects.

        `certain`: keys name providers even where they lead to more than a model. What raises when
        it is looked at, as a proxy outside of its context does, is passed over.
        """
        if id(value) in self._seen or len(self._seen) > _MAX_LOOKS:
            return
        self._seen[id(value)] = value  # held, as another object may get the number of one that goes
        try:
            self._look_at(value, name, place, levels, certain)
        except Exception:
            log.debug("%s cannot be looked at", place, exc_info=True)

    def _look_at(self, value: object, name: str, place: str, levels: int, certain: bool) -> None:
        if isinstance(value, _PLAIN):
            return
        if isinstance(value, Runnable):
            self.models += [(model, name, place) for model in models_in(value)]
        elif isinstance(value, Mapping):
            for key, each in list(islice(value.items(), _MAX_ENTRIES)):
                self._entry(each, name or given_name(key), f"{place}[{key!r}]", levels, certain)
        elif isinstance(value, list | tuple | set | frozenset):
            for number, each in enumerate(list(islice(value, _MAX_ENTRIES))):
                self._entry(each, name or _name_in(each), f"{place}[{number}]", levels, certain)
        elif levels > 0 and not isinstance(value, type):
            for attribute, each in _attributes(value):
                where = f"{place}.{attribute}"
                self.places.append(where)
                named = certain and _PROVIDERS.search(attribute) is not None
                self.look_at(each, name, where, levels=levels - 1, certain=named)

    def _entry(self, each: object, name: str, place: str, levels: int, certain: bool) -> None:
        longer = not _is(each, Runnable) or _is(each, _CHAINS)
        name = "" if longer and not certain else name
        if certain and not _is(each, Runnable):
            self.owners.append((each, name, place))
        self.look_at(each, name, place, levels=levels, certain=certain)


def _is(value: object, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a value is of a class by its type alone: `isinstance` would ask a proxy."""
    return issubclass(type(value), kinds)


def _attributes(of: object) -> list[tuple[str, object]]:
    """Return the attributes of an object without calling a property; mappings come first."""
    attributes: dict[str, object] = {}
    for each in type(of).__mro__:
        slots = each.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(of, slot):
                attributes[slot] = getattr(of, slot)
    if _is(of, BaseModel):
        attributes |= getattr(of, "__pydantic_private__", None) or {}
    with suppress(Exception):  # one without a dict, or a proxy
        attributes |= vars(of)

    def rank(item: tuple[str, object]) -> tuple[bool, bool]:
        name, value = item
        return not _is(value, Mapping), _PROVIDERS.search(name) is None

    return sorted(attributes.items(), key=rank)


def _name_in(provider: object) -> str:
    """Return the name that an object for a provider has of itself, or ""."""
    fields = {} if _is(provider, Runnable) else dict(_attributes(provider))
    return next((name for key in _NAMES if (name := given_name(fields.get(key)))), "")
