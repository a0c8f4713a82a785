"""Methods that hand out models: wrapped on one instance, so that what they return is looked at."""

from __future__ import annotations

import inspect
import re
import sys
from asyncio import coroutines
from collections.abc import Coroutine, Mapping
from functools import update_wrapper
from typing import Any, Final, Protocol

from langchain_core.runnables import Runnable

from langmeter.callbacks.base import Callback
from langmeter.runnables.models import given_name

#: `get_llm`, `createLlm`, `_make_chat_model`, `get_model_with_fallback`, `aget_provider`.
_HANDS_OUT: Final = re.compile(
    r"_*a?(get|create|make|build|load|init|select|choose|pick|resolve|switch|next)_?"
    r".*(llm|model|provider|chat|client).*(?<!config)(?<!settings)(?<!status)(?<!stats)(?<!info)",
    re.IGNORECASE,
)
#: A parameter that names a provider. No other text is taken for a name: it may be a secret.
_NAMES_PROVIDER: Final = re.compile(
    r"(provider|llm|vendor|backend|client)(_?(name|id|type|kind))?|name|id|kind|alias",
    re.IGNORECASE,
)
_ABSENT: Final = object()


class Looks(Protocol):
    """Wrappers of methods that look at the objects they return."""

    meter: Callback
    is_attached: bool

    def look_at(self, value: object, name: str, place: str) -> object:
        """Meter the models in an object."""


def methods_of(owner: object) -> list[str]:
    """Return the names of the methods that may hand out models, by their names."""
    if issubclass(type(owner), (Runnable, Mapping, type)) or not hasattr(owner, "__dict__"):
        return []
    names = sorted({*dir(type(owner)), *vars(owner)})
    static = inspect.getattr_static  # calls no property
    return [
        each for each in names if _HANDS_OUT.fullmatch(each) and _is_method(static(owner, each))
    ]


def wrap(owner: object, name: str, provider: str, place: str, looks: Looks) -> Method | None:
    """Wrap a method of one object; None where it was wrapped for the same meter.

    `provider` is the name of the provider of what it returns, where the object is one's.
    """
    there = vars(owner).get(name)
    while isinstance(there, Method):
        if there.looks.is_attached and there.looks.meter is looks.meter:
            return None
        there = there.before
    original = getattr(owner, name)
    kind = AsyncMethod if inspect.iscoroutinefunction(original) else Method
    method = kind(owner, name, original, provider, place, looks)
    vars(owner)[name] = method
    return method


class Method:
    """A method in the `__dict__` of one object, in the place of that of its class."""

    def __init__(
        self, owner: object, name: str, original: Any, provider: str, place: str, looks: Looks
    ) -> None:
        self.before = vars(owner).get(name, _ABSENT)
        self.looks = looks
        self._owner, self._name, self._original = owner, name, original
        self._provider, self._place = provider, place
        update_wrapper(self, original, updated=())
        try:
            self._signature: inspect.Signature | None = inspect.signature(original)
        except (TypeError, ValueError):
            self._signature = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, and meter the models that it returns."""
        result = self._original(*args, **kwargs)
        if inspect.iscoroutine(result):
            return self._later(result, args, kwargs)
        return self._looked_at(result, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._original, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy or pickle, with its object, as the method that was there."""
        if self.before is _ABSENT:
            return getattr, (self._owner, self._name)  # which has no attributes of its own then
        return _same, (self.before,)

    def undo(self) -> None:
        """Put back what was there, unless other code has replaced this since."""
        fields, before = vars(self._owner), self.before
        if fields.get(self._name) is not self:
            return
        while isinstance(before, Method) and not before.looks.is_attached:
            before = before.before
        if before is _ABSENT:
            del fields[self._name]
        else:
            fields[self._name] = before

    async def _later(
        self, result: Coroutine[Any, Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._looked_at(await result, args, kwargs)

    def _looked_at(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.looks.is_attached:
            try:
                name = self._provider or self._name_in(args, kwargs)
                self.looks.look_at(result, name, f"{self._place}()")
            except Exception as exc:  # the model is the user's, metered or not
                self.looks.meter._services.hook_failed(self._name, exc)
        return result

    def _name_in(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the first text that is given for a parameter which names a provider, or ""."""
        if self._signature is None:
            return ""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        names = (
            given_name(value)
            for parameter, value in bound.arguments.items()
            if _NAMES_PROVIDER.fullmatch(parameter)
        )
        return next(filter(None, names), "")


class AsyncMethod(Method):
    """The same of a coroutine function, which `inspect` takes it for from Python 3.12 on."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        # What asyncio and, from Python 3.12 on, inspect go by.
        self._is_coroutine = getattr(coroutines, "_is_coroutine", None)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, and meter the models that it returns."""
        return self._looked_at(await self._original(*args, **kwargs), args, kwargs)


def _is_method(attribute: object) -> bool:
    if isinstance(attribute, staticmethod | classmethod):
        return True
    return callable(attribute) and not isinstance(attribute, type | Runnable)


def _same(value: Any) -> Any:
    return value
