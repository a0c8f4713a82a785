"""Several handlers as one: one recorder, one native call per event."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any
from weakref import ref

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import handle_event

from langmeter.callbacks.base import Callback
from langmeter.callbacks.components import ComponentCallback
from langmeter.callbacks.defects import DefectAnalysisCallback
from langmeter.callbacks.services import Services
from langmeter.config import MeterConfig, checked_labels

#: Every hook of BaseCallbackHandler, and the attribute of a handler that switches it off.
HOOKS = {
    "on_llm_start": "ignore_llm",
    "on_chat_model_start": "ignore_chat_model",
    "on_llm_new_token": "ignore_llm",
    "on_stream_event": "ignore_llm",
    "on_llm_end": "ignore_llm",
    "on_llm_error": "ignore_llm",
    "on_chain_start": "ignore_chain",
    "on_chain_end": "ignore_chain",
    "on_chain_error": "ignore_chain",
    "on_tool_start": "ignore_agent",
    "on_tool_end": "ignore_agent",
    "on_tool_error": "ignore_agent",
    "on_retriever_start": "ignore_retriever",
    "on_retriever_end": "ignore_retriever",
    "on_retriever_error": "ignore_retriever",
    "on_agent_action": "ignore_agent",
    "on_agent_finish": "ignore_agent",
    "on_text": None,
    "on_retry": "ignore_retry",
    "on_custom_event": "ignore_custom_event",
}
_SWITCHES = sorted({switch for switch in HOOKS.values() if switch})


class CompositeCallback(ComponentCallback):
    """Joins langmeter's handlers over one recorder, and foreign ones beside them.

    An event is recorded once, however many of the joined classes count it; each of them stays what
    answers for its part. Give LangChain the composite alone, not its parts as well. Foreign
    handlers are called after the recording, inline, as LangChain would call them in sync code:
    `ignore_*` and `raise_error` are theirs. Only the hooks of `BaseCallbackHandler` reach them.

    Raises:
        ValueError: a handler already counts into a recorder of its own.
        TypeError: a handler is async, itself a composite, or no handler at all.
    """

    def __init__(
        self,
        handlers: Sequence[BaseCallbackHandler] = (),
        *,
        labels: Iterable[str] | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(handlers, BaseCallbackHandler):
            name = type(handlers).__name__
            raise TypeError(
                f"handlers is a {name} and must be a list: CompositeCallback([handler])"
            )
        handlers = tuple(handlers)
        super().__init__(labels=labels, config=config, **settings)
        self._parts = [handler for handler in handlers if isinstance(handler, Callback)]
        foreign = [handler for handler in handlers if not isinstance(handler, Callback)]
        for part in self._parts:
            _check_part(part)
        for handler in foreign:
            _check_foreign(handler)
        self.handlers: tuple[BaseCallbackHandler, ...] = handlers
        own = self._services
        services = Services.joined(
            own.config, own.labels, own.estimator, [part._services for part in self._parts]
        )
        checked_labels(services.labels)
        for part in self._parts:
            try:
                part._share(services)
            except RuntimeError:
                raise _bound_elsewhere(part) from None
        self._share(services)
        services.recorder  # noqa: B018 (mapped now, so that a lack of memory is said here)
        for switch in _SWITCHES:
            setattr(self, switch, all(getattr(part, switch) for part in self._parts))
        self._fixes = next(
            (part for part in self._parts if isinstance(part, DefectAnalysisCallback)), None
        )
        if foreign:
            self._forward_to(foreign)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Count a fix, where a `DefectAnalysisCallback` is among the handlers."""
        if self._fixes is not None:
            self._fixes.on_custom_event(name, data, **kwargs)

    def _forward_to(self, foreign: list[BaseCallbackHandler]) -> None:
        """Lay over each hook one that records first and then calls the foreign handlers.

        On the instance, so that a composite without foreign handlers keeps its native hooks.
        """
        for hook, switch in HOOKS.items():
            ignored = switch is not None and getattr(self, switch)
            # A native hook holds no handler; a method is held weakly, for it holds this composite.
            native = vars(self).get(hook) or _weakly(self, hook)
            record = None if ignored else native
            setattr(self, hook, _forwarding(record, foreign, hook, switch))
        for switch in _SWITCHES:
            setattr(self, switch, False)
        # What a foreign handler wants raised must pass LangChain's own catch around this one.
        self.raise_error |= any(handler.raise_error for handler in foreign)


def _weakly(handler: CompositeCallback, hook: str) -> Callable[..., Any]:
    owner, method = ref(handler), getattr(type(handler), hook)
    return lambda *args, **kwargs: method(owner(), *args, **kwargs)


def _forwarding(
    record: Callable[..., Any] | None,
    foreign: list[BaseCallbackHandler],
    hook: str,
    switch: str | None,
) -> Callable[..., None]:
    def forward(*args: Any, **kwargs: Any) -> None:
        if record is not None:
            record(*args, **kwargs)
        handle_event(foreign, hook, switch, *args, **kwargs)

    forward.__name__ = hook
    return forward


def _check_part(part: Callback) -> None:
    name = type(part).__name__
    if isinstance(part, CompositeCallback):
        raise TypeError(f"a {name} cannot be part of a composite; hand in its handlers instead")
    if part._services.is_mapped:
        raise _bound_elsewhere(part)
    hook = _overridden(type(part))  # type: ignore[arg-type]  # a class is hashable
    if hook is not None:
        raise TypeError(
            f"{name}.{hook} would not be called: a composite records for its parts; "
            "put what it adds into a handler of its own that extends BaseCallbackHandler"
        )


@lru_cache(maxsize=64)
def _overridden(cls: type[Any]) -> str | None:
    """Return the first hook that a class outside of langmeter overrides; None if there is none."""
    for hook in HOOKS:
        owner = next(base for base in cls.__mro__ if hook in vars(base))
        if not owner.__module__.startswith(("langmeter.", "langchain_core.")):
            return hook
    return None


def _bound_elsewhere(part: Callback) -> ValueError:
    return ValueError(
        f"this {type(part).__name__} already counts into another recorder: it has metered a "
        "call, been asked for figures, or is part of another composite; make a new one for this"
    )


def _check_foreign(handler: object) -> None:
    if not isinstance(handler, BaseCallbackHandler):
        raise TypeError(f"a handler must be a BaseCallbackHandler, got {handler!r}")
    for hook in HOOKS:
        if inspect.iscoroutinefunction(getattr(handler, hook)):
            raise TypeError(
                f"{type(handler).__name__}.{hook} is async and cannot be called inline; give this "
                "handler to LangChain beside the composite: callbacks=[composite, handler]"
            )
