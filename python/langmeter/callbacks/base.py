"""The base of handlers: thin hooks over the services that they share.

Most hooks are native objects in the `__dict__` of the handler (`_core.HOOKS`). A hook here declares
what LangChain sends by keyword, because an undeclared one costs a dict (200 ns), and keeps
`**kwargs` for what a later version adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypedDict
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from langmeter import _core
from langmeter._base.failures import INTERRUPTED, error_label, outcome_of
from langmeter._base.money import usd
from langmeter._base.text import format_usd, plural
from langmeter.callbacks.services import Observer, Services
from langmeter.config import Labels, MeterConfig
from langmeter.snapshot import Snapshot
from langmeter.usage import Source
from langmeter.usage.estimate import TokenEstimator

if TYPE_CHECKING:
    from langmeter.budgets import Ledger
    from langmeter.defects import DefectOptions
    from langmeter.prices import PriceBook
    from langmeter.streaming import Streams

LLM, CHAIN, TOOL, RETRIEVER, FIX = map(
    _core.KINDS.index, ("llm", "chain", "tool", "retriever", "fix")
)

#: From langchain-core 1.8 decision models are model calls that arrive as chains.
_DECISIONS = find_spec("langchain_core.decisions") is not None


class Share(TypedDict, total=False):
    """The part of the services that a handler adds; see `Services`."""

    prices: PriceBook
    ledger: Ledger
    streams: Streams
    observers: Iterable[Observer]
    keep_prompts: bool
    defects: DefectOptions


class _Hook:
    """A native hook as a class has it, e.g. for `super()` in a method that overrides it."""

    def __init__(self, name: str) -> None:
        update_wrapper(self, getattr(BaseCallbackHandler, name, _Hook.__call__))
        self.__name__ = name

    def __call__(self, handler: Callback, *args: Any, **kwargs: Any) -> None:
        handler._hook(self.__name__)(*args, **kwargs)

    def __get__(self, handler: Callback | None, owner: type | None = None) -> Any:
        return self if handler is None else handler._hook(self.__name__)


class Callback(BaseCallbackHandler):
    """Base of the handlers: counts model calls, and gives snapshots of what was counted.

    Settings are those of `langmeter.MeterConfig`, by keyword: those of the recorder, `labels`,
    `token_counters`, and those that a handler adds. What is left out comes from the environment,
    the file or the defaults, as of `MeterConfig.load`; `config` has all of them instead. The
    recorder is made at the first event or the first question; a handler in a `CompositeCallback`
    shares that of the composite.

    `labels` are up to three keys of a call's metadata, e.g. `labels=("team",)` for
    `config={"metadata": {"team": "search"}}`: calls, tokens, money and time are also counted by
    their values, in `snapshot().by("team")`. A tuple in the place of a key crosses several:
    `labels=("team", ("team", "customer"))`.

    A call whose provider sends no usage is counted here and marked estimated; `token_counters` maps
    the beginnings of models' names to what counts for them: a function of one string, the path of a
    Hugging Face tokenizer.json, or "ctok" for Claude. The longest that fits wins; without one, a
    model of OpenAI is counted as tiktoken does, every other by a ratio over that.

    Whatever happens inside a hook, the call being metered goes on: the first failure is logged to
    the logger `langmeter`, all are counted in `snapshot().dropped["hook_errors"]`.
    """

    # Sync and inline: LangChain sends every event of any other sync handler through an executor,
    # 70 µs a token, and for as long as it is saturated none at all.
    run_inline = True
    raise_error = False
    # Plain attributes, because LangChain asks before every event and a property costs a frame.
    ignore_llm = False
    ignore_chat_model = False
    ignore_chain = not _DECISIONS
    ignore_agent = True  # gates tool starts too
    ignore_retriever = True
    ignore_retry = True  # never sent by with_retry: every attempt is a run of its own
    ignore_custom_event = True

    #: Whether it counts chains, tools and retrievers.
    _components: ClassVar[bool] = False

    def __init__(
        self,
        share: Share | None = None,
        /,
        *,
        token_counters: Mapping[str, Source] | None = None,
        labels: Labels | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        settings |= {"labels": labels, "token_counters": token_counters}
        config = MeterConfig.chosen(config, settings)
        self._services = Services(
            config,
            labels=config.labels,
            estimator=TokenEstimator(config.token_counters),
            **(share or {}),
        )
        self._hook_up()

    def _hook_up(self) -> None:
        """Record into the services by native hooks, of which none holds this handler."""
        if self._services.blocks:  # what a budget refuses has to pass LangChain's catch
            self.raise_error = True
        for name in _core.HOOKS:
            if isinstance(getattr(type(self), name), _Hook):  # unless a subclass overrides it
                vars(self)[name] = self._hook(name)

    def _hook(self, name: str) -> Callable[..., None]:
        return _core.HOOKS[name](self._services, type(self).__name__, self._components)

    @property
    def config(self) -> MeterConfig:
        """The settings of this handler."""
        return self._services.config

    def snapshot(self) -> Snapshot:
        """Everything counted so far. Recorders go on meanwhile; nothing is reset.

        While calls wait for their price it waits until the catalogue is loaded, once a process; not
        in a thread that runs an event loop.
        """
        return self._services.snapshot()

    def subscribe(self, seconds: float, function: Callable[[Snapshot], Any]) -> Callable[[], None]:
        """Call a function with what was counted since its last call; returns what ends that.

        The differences of all its calls add up to what was counted since now: none is lost where
        the function fails, and a slow function gets longer ones. It is called in a thread of its
        own, from the first model call on, and once more at the end.

        Args:
            seconds: between two calls, 0.001 to 86,400.
            function: a plain function of one `Snapshot`. What it raises is counted as
                `dropped["callback_errors"]`, and logged once.

        Raises:
            ConfigError: `seconds` is outside its range.
            TypeError: `function` is not a plain function.
        """
        from langmeter.callbacks.subscription import subscribe

        return subscribe(self._services, seconds, function)

    def _share(self, services: Services) -> None:
        """Share these services from now on; RuntimeError after the first event or question."""
        if self._services.is_mapped:
            raise RuntimeError(
                "this handler already records elsewhere; join handlers before their first event"
            )
        self._services = services
        self._hook_up()

    @property
    def _recorder(self) -> _core.Recorder:
        return self._services.recorder

    def _failed(self, hook: str, exc: BaseException) -> None:
        self._services.hook_failed(f"{type(self).__name__}.{hook}", exc)

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        response: Any = None,
        **kwargs: Any,
    ) -> None:
        """A model call failed or was given up; `response` holds what had come by then."""
        try:
            self._services.model_end(run_id, outcome_of(error), response, LLM, error)
        except BaseException as exc:
            self._failed("on_llm_error", exc)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain failed, was given up, or handed control back to its graph."""
        self._component_failed("on_chain_error", run_id, CHAIN, error)

    def on_tool_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A tool failed."""
        self._component_failed("on_tool_error", run_id, TOOL, error)

    def on_retriever_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A retriever failed."""
        self._component_failed("on_retriever_error", run_id, RETRIEVER, error)

    def _component_failed(self, hook: str, run_id: UUID, kind: int, error: BaseException) -> None:
        try:
            services, outcome = self._services, outcome_of(error)
            if kind == CHAIN and services.recorder.requested(run_id):  # a decision model
                services.model_end(run_id, outcome, None, LLM, error)
            elif self._components:
                cause = None if outcome == INTERRUPTED else error_label(error)
                services.recorder.run_ended(run_id, kind, outcome, error=cause)
        except BaseException as exc:
            self._failed(hook, exc)

    def __repr__(self) -> str:
        """Return what was counted so far; neither makes a recorder nor waits for prices."""
        name = type(self).__name__
        if not self._services.is_mapped:
            return f"<{name}: nothing metered yet>"
        calls, errors, tokens, cost = map(
            sum, zip((0,) * 4, *(row[2:6] for row in self._recorder.pulse()), strict=True)
        )
        parts = [plural(calls, "call"), plural(errors, "error"), plural(tokens, "token")]
        return f"<{name}: {', '.join([*parts, format_usd(usd(cost))] if cost else parts)}>"

    def __copy__(self) -> Callback:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Callback:
        # As LangChain's tracers do: the copy of a model or config reports to the same books.
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} counts in this process and cannot be pickled; make one in "
            "the other process, send its snapshot() back, which pickles, and add the snapshots"
        )


for _name in _core.HOOKS:
    setattr(Callback, _name, _Hook(_name))
