"""Several handlers as one: one recorder, one native call per event."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, ClassVar
from weakref import ref

from langchain_core.callbacks import BaseCallbackHandler

from langmeter._base.forks import at_fork
from langmeter._base.log import log
from langmeter._base.text import render_table, short_name
from langmeter.callbacks.base import Callback
from langmeter.callbacks.components import ComponentCallback
from langmeter.callbacks.defects import DefectAnalysisCallback
from langmeter.callbacks.foreign import Foreign, HandlerStatus
from langmeter.callbacks.services import Services
from langmeter.config import Labels, MeterConfig

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
if not hasattr(BaseCallbackHandler, "on_stream_event"):  # langchain-core 1.0
    del HOOKS["on_stream_event"]
_SWITCHES = sorted({switch for switch in HOOKS.values() if switch})


class CompositeCallback(ComponentCallback):
    """Joins langmeter's handlers over one recorder, and foreign ones beside them.

    An event is recorded once, however many of the joined classes count it; each of them stays what
    answers for its part. Give LangChain the composite alone, not its parts as well. The recording
    stands in the order of the handlers where the first of langmeter's does.

    Foreign handlers are called inline and in order, as LangChain calls them in sync code. What one
    raises is counted, and reaches neither another nor the chain, unless its own `raise_error` says
    so; after ten failures in a row it is switched off for a minute. Coroutines of async hooks are
    awaited beside the pipeline, those of one run in order; so a `raise_error` of theirs cannot
    apply. Only the hooks of `BaseCallbackHandler` reach them.

    Args:
        handlers: any mix of handlers, in the order in which they are called, each once.

    Attributes:
        handlers: what it has at this moment, in order.

    Raises:
        ValueError: a handler of langmeter's already counts into a recorder of its own.
        TypeError: a handler is itself a composite, or not a handler.
    """

    #: Held while handlers come and go; of all composites, so that a forked child makes one anew.
    _changing: ClassVar = threading.Lock()

    def __init__(
        self,
        handlers: Sequence[BaseCallbackHandler] = (),
        *,
        labels: Labels | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(handlers, BaseCallbackHandler):
            name = type(handlers).__name__
            raise TypeError(
                f"handlers is a {name} and must be a list: CompositeCallback([handler])"
            )
        handlers = tuple({id(each): each for each in handlers}.values())
        super().__init__(labels=labels, config=config, **settings)
        self._parts = [handler for handler in handlers if isinstance(handler, Callback)]
        for handler in handlers:
            _check_part(handler) if isinstance(handler, Callback) else _check_foreign(handler)
        own = self._services
        services = Services.joined(
            own.config, own.labels, own.estimator, [part._services for part in self._parts]
        )
        for part in self._parts:
            try:
                part._share(services)
            except RuntimeError:
                raise _bound_elsewhere(part) from None
        self._share(services)
        services.recorder  # noqa: B018 (mapped now, so that a lack of memory is said here)
        self._own_switches = {
            switch: all(getattr(part, switch) for part in self._parts) for switch in _SWITCHES
        }
        self._fixes = next(
            (part for part in self._parts if isinstance(part, DefectAnalysisCallback)), None
        )
        self._own_hooks = {hook: vars(self)[hook] for hook in HOOKS if hook in vars(self)}
        self._forwards = False
        # Events go through the foreign handlers before the recording and those after it.
        recorded_at = next(
            (place for place, each in enumerate(handlers) if isinstance(each, Callback)),
            len(handlers),
        )
        before = tuple(Foreign(each) for each in handlers[:recorded_at])
        after = tuple(
            Foreign(each) for each in handlers[recorded_at:] if not isinstance(each, Callback)
        )
        self._foreign = before, after
        self._apply()

    @property
    def handlers(self) -> tuple[BaseCallbackHandler, ...]:
        """The handlers at this moment: foreign ones, and langmeter's where they are recorded."""
        before, after = self._foreign
        first, last = (tuple(each.handler for each in part) for part in (before, after))
        return (*first, *self._parts, *last)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Count a fix, where a `DefectAnalysisCallback` is among the handlers."""
        if self._fixes is not None:
            self._fixes.on_custom_event(name, data, **kwargs)

    def add(self, handler: BaseCallbackHandler) -> None:
        """Add a foreign handler behind the others; it receives the runs that begin from now on.

        One that is there already stays where it is, as in LangChain's own managers.

        Raises:
            TypeError: it is not a handler.
            ValueError: it is one of langmeter's, which join when the composite is made.
        """
        _check_foreign(handler)
        if isinstance(handler, Callback):
            raise ValueError(
                f"a {type(handler).__name__} cannot join a composite that counts already; "
                "hand it in when the composite is made"
            )
        with self._changing:
            before, after = self._foreign
            if not any(each.handler is handler for each in before + after):
                self._foreign = before, (*after, Foreign(handler, whole_runs=True))
                self._apply()

    def remove(self, handler: BaseCallbackHandler) -> None:
        """Take a foreign handler out; it receives nothing more, nor the rest of runs in flight.

        Raises:
            ValueError: it is not among the foreign handlers.
        """
        with self._changing:
            before, after = self._foreign
            entry = next((each for each in before + after if each.handler is handler), None)
            if entry is None:
                raise ValueError(
                    f"{type(handler).__name__} is not among the foreign handlers of this composite"
                )
            entry.is_removed = True
            self._foreign = (
                tuple(each for each in before if each is not entry),
                tuple(each for each in after if each is not entry),
            )
            self._apply()

    def statuses(self) -> tuple[HandlerStatus, ...]:
        """Return how each handler is doing, in order; langmeter's count their own failures.

        These are `snapshot().dropped["hook_errors"]`.
        """
        before, after = self._foreign
        own = tuple(HandlerStatus(type(part).__name__) for part in self._parts)
        first, last = (tuple(each.status() for each in part) for part in (before, after))
        return (*first, *own, *last)

    def report(self, width: int | None = None) -> str:
        """Return one text for all: the tables of the snapshot, then each handler's failures.

        Args:
            width: columns of the terminal; None for as many as it takes.
        """
        snapshot = self.snapshot()
        counted = snapshot.models or snapshot.components or snapshot.dropped
        header = ("handler", "errors", "last", "state", "skipped", "dropped")
        rows = [
            (
                short_name(each.name),
                f"{each.errors:,}",
                short_name(each.last_error) or "-",
                "off" if each.off else "on",
                f"{each.skipped:,}",
                f"{each.dropped:,}",
            )
            for each in self.statuses()
        ]
        tables = [snapshot.table(width)] if counted else []
        return "\n\n".join([*tables, "\n".join(render_table(header, rows, width))])

    def wait(self, timeout: float = 5.0) -> bool:
        """Wait until async handlers have awaited every event; False when that takes longer.

        In an event loop `await composite.wait_async()`.
        """
        deadline = monotonic() + timeout
        queues = [each.queues for part in self._foreign for each in part]
        # All of them, though one may have failed to end in time.
        done = [each is None or each.wait(max(deadline - monotonic(), 0)) for each in queues]
        return all(done)

    async def wait_async(self, timeout: float = 5.0) -> bool:
        """Do the same in an event loop."""
        deadline = monotonic() + timeout
        done = True
        for each in (each.queues for part in self._foreign for each in part):
            if each is not None:
                done &= await each.wait_async(max(deadline - monotonic(), 0))
        return done

    def _apply(self) -> None:
        """Set hooks and switches for the foreign handlers that there are."""
        foreign = any(self._foreign)
        if foreign != self._forwards:
            self._forwards = foreign
            for hook, switch in HOOKS.items():
                self._lay(hook, switch) if foreign else self._restore(hook)
        for switch, own in self._own_switches.items():
            setattr(self, switch, own and not foreign)
        # What a foreign handler wants raised must pass LangChain's own catch around this one.
        raising = (each.raises for part in self._foreign for each in part)
        self.raise_error = self._services.blocks or any(raising)

    def _lay(self, hook: str, switch: str | None) -> None:
        """Lay over a hook one that records and calls the foreign handlers.

        On the instance, so that a composite without foreign handlers keeps its native hooks.
        """
        ignored = switch is not None and self._own_switches[switch]
        # A native hook holds no handler; a method is held weakly, for it holds this composite.
        native = self._own_hooks.get(hook) or _weakly(self, hook)
        setattr(self, hook, _forwarding(None if ignored else native, ref(self), hook, switch))

    def _restore(self, hook: str) -> None:
        if hook in self._own_hooks:
            setattr(self, hook, self._own_hooks[hook])
        else:
            delattr(self, hook)


def _after_fork() -> None:
    CompositeCallback._changing = threading.Lock()


at_fork(after_in_child=_after_fork)


def _weakly(handler: CompositeCallback, hook: str) -> Callable[..., Any]:
    owner, method = ref(handler), getattr(type(handler), hook)
    return lambda *args, **kwargs: method(owner(), *args, **kwargs)


def _forwarding(
    record: Callable[..., Any] | None,
    composite: ref[CompositeCallback],
    hook: str,
    switch: str | None,
) -> Callable[..., None]:
    def forward(*args: Any, **kwargs: Any) -> None:
        owner = composite()
        if owner is None:
            return
        before, after = owner._foreign
        for each in before:
            each.handle(hook, switch, args, kwargs)
        if record is not None:
            record(*args, **kwargs)
        for each in after:
            each.handle(hook, switch, args, kwargs)

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
    if not handler.raise_error:
        return
    for hook in HOOKS:
        if inspect.iscoroutinefunction(getattr(handler, hook)):
            log.warning(
                "raise_error of %s cannot apply in a composite: %s is async and is awaited beside "
                "the pipeline; give this handler to LangChain itself to let it stop a chain",
                type(handler).__name__,
                hook,
            )
            return
