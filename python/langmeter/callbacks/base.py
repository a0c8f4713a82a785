"""What every handler is: thin hooks over one recorder.

LangChain calls the hooks of streamed tokens (`on_llm_new_token`, `on_stream_event`) natively: the
native type is first in the MRO. Every other hook here declares what LangChain sends by keyword,
because an undeclared one costs a dict (200 ns), and keeps `**kwargs` for what a later version adds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NoReturn
from uuid import UUID
from weakref import WeakSet

from langchain_core.callbacks import BaseCallbackHandler

from langmeter import _core
from langmeter._base.failures import (
    CANCELLED,
    INTERRUPTED,
    cause_of,
    outcome_of,
    refused_by_server,
)
from langmeter._watch import Watch
from langmeter.budgets import Ledger
from langmeter.config import Config
from langmeter.prices import PriceBook
from langmeter.prices.card import PICO
from langmeter.prices.later import MOST, Later
from langmeter.snapshot import Snapshot
from langmeter.streaming import Streams
from langmeter.streaming.aggregate import answered as as_far_as_it_came
from langmeter.usage import NOTHING, Reading, Source, Usage, read, requested
from langmeter.usage.ending import queue_time, truncated
from langmeter.usage.offline import Offline, asked_of, kept

LLM, CHAIN, TOOL, RETRIEVER, FIX = map(
    _core.KINDS.index, ("llm", "chain", "tool", "retriever", "fix")
)
OK, CACHE_HIT = map(_core.OUTCOMES.index, ("ok", "cache_hit"))

_log = logging.getLogger("langmeter")

#: Prompts are kept in case their calls end without usage, 2,048 of them. So many of the oldest are
#: let go when there are more: those of runs that nobody ended. A call whose prompt was let go is
#: estimated by its answer alone.
_LET_GO = 512

#: What is known of a run that is not in flight: provider, model, start, budgets, labels.
_NOT_ASKED: tuple[str, str, float | None, int, int] = ("", "", None, 0, 0)

#: Labels a call carries at most; the recorder has room for no more.
_MAX_LABELS = 3

#: From langchain-core 1.8 decision models are model calls that arrive as chains.
_DECISIONS = find_spec("langchain_core.decisions") is not None

_bound: WeakSet[Callback] = WeakSet()


def _after_fork() -> None:
    for recorder in {handler._bound() for handler in list(_bound)}:
        if recorder is not None:
            recorder.reset_after_fork()
    for handler in list(_bound):
        handler._asleep()
        handler._texts.clear()
        if handler._later is not None:
            handler._later.forget()


os.register_at_fork(after_in_child=_after_fork)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tagged(tags: Any) -> tuple[bool, bool]:
    """Whether a run is a second attempt or a later one, and a step of a sequence but its first."""
    own = [tag for tag in tags or () if isinstance(tag, str)]
    retried = any(tag.startswith("retry:attempt:") for tag in own)
    return retried, any(tag.startswith("seq:step:") and tag != "seq:step:1" for tag in own)


def checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if len(names) > _MAX_LABELS or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            f"labels = {labels!r}: must be up to {_MAX_LABELS} keys of a call's metadata, "
            'e.g. labels=("team", "customer")'
        )
    return names


def component_name(name: Any, serialized: Any, fallback: str) -> str:
    """Name of a run: as the user or LangChain called it, else its class."""
    if not name and isinstance(serialized, dict):
        name = serialized.get("name")
        if not name:
            path = serialized.get("id")
            name = path[-1] if path and isinstance(path, list) else None
    return as_text(name if name.__class__ is str else str(name or fallback))


def as_text(name: str) -> str:
    """A name as the recorder takes it: half a surrogate pair, which is no text, is replaced."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class Callback(_core.Handler, BaseCallbackHandler):
    """Base of the handlers: counts model calls, and gives snapshots of what was counted.

    Settings are those of `langmeter.Config`, by keyword. The recorder is made at the first event or
    the first question; a handler in a `CompositeCallback` shares that of the composite.

    `labels` are up to three keys of a call's metadata, e.g. `labels=("team",)` for
    `config={"metadata": {"team": "search"}}`: calls, tokens, money and time are also counted by
    their values, in `snapshot().labels`.

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

    #: Where prices come from; None leaves calls unpriced.
    _prices: PriceBook | None = None
    _prices_now: PriceBook | None = None
    #: What calls may cost; None without budgets.
    _budgets: Ledger | None = None
    #: Who listens to streams; None where nobody ever can.
    _streams: Streams | None = None
    #: Calls without a price, until one comes; None without prices.
    _later: Later | None = None
    #: What looks at the recorder every few seconds; made at the first model call.
    _watches: tuple[Watch[Any], ...] | None = None
    #: The handler that watches in the place of this one.
    _watcher: Callback | None = None
    _reported = False

    def __init__(
        self,
        *,
        token_counters: Mapping[str, Source] | None = None,
        labels: Iterable[str] = (),
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        self._config = Config.chosen(config, settings)
        self._offline = Offline(token_counters)
        #: What runs in flight were asked, by the run's number, as `usage.offline.kept` keeps it.
        self._texts: dict[int, Any] = {}
        self._keep_prompts(self._texts)
        self._labels = checked_labels(labels)
        if self._labels:
            self._label_by(list(self._labels))

    @property
    def config(self) -> Config:
        """The settings of this handler's recorder."""
        return self._config

    def snapshot(self) -> Snapshot:
        """Everything counted so far. Recorders go on meanwhile; nothing is reset.

        While calls wait for their price it waits until the catalogue is loaded, once a process; not
        in a thread that runs an event loop.
        """
        recorder = self._recorder
        if self._later:
            self._price_later(recorder)
        snapshot = Snapshot(recorder.snapshot(self._changes()))
        try:
            if self._streams is not None:  # the recorder has just given up those that nobody ends
                self._streams.give_up()
        except BaseException as exc:
            self._failed("on_error", exc)
        return snapshot

    def _changes(self) -> Sequence[Any]:
        """Anomalies found so far, as the recorder takes them."""
        watches = (self._watcher or self)._watches or ()
        return [change for watch in watches for change in watch.changes]

    def _awake(self) -> None:
        """The first model call of this process begins: from now on there is something to watch.

        Not before, because a thread that runs when a server forks its workers is a nuisance.
        """
        # Once open no lock is taken: a fork may have left it held.
        if self._budgets is not None and self._budgets.recorder is None:
            self._budgets.open(self._recorder)
        watcher = self._watcher or self
        if watcher._watches is None:
            watcher._watches = tuple(watcher._new_watches(self._recorder))
        for watch in watcher._watches:
            watch.start()

    def _new_watches(self, recorder: _core.Recorder) -> list[Watch[Any]]:
        return []

    def _price_later(self, recorder: _core.Recorder) -> None:
        """Price what ended without a price, as far as that is possible by now."""
        later = self._later
        if later is None:
            return
        try:
            if not later.book.ready and not _in_event_loop():
                later.book.warm(wait=True)
            self._crossed(later.settle(recorder))
        except BaseException as exc:
            self._failed("snapshot", exc)

    @property
    def _recorder(self) -> _core.Recorder:
        return self._bound() or self._join(_core.Recorder(**self._config.recorder_settings()))

    def _join(self, recorder: _core.Recorder) -> _core.Recorder:
        """Record into `recorder` from now on; if another thread was faster, into that one's."""
        if self._streams is not None:
            self._listen(self._streams)
        try:
            recorder = self._bind(recorder)
        except RuntimeError:
            bound = self._bound()
            if bound is None:
                raise
            return bound
        if self._streams is not None:
            self._streams.recorder = recorder
        _bound.add(self)
        return recorder

    def _failed(self, where: str, exc: BaseException) -> None:
        """Count a failure of ours and let the metered call go on.

        A Rust panic is a BaseException and ends here too; Ctrl-C, SystemExit and their like are the
        host's, happen to arrive while we run, and go on their way.
        """
        if not isinstance(exc, Exception) and type(exc).__module__ != "pyo3_runtime":
            raise exc
        try:
            self._recorder.dropped("hook_errors")
        except Exception as worse:  # no recorder to count in: what follows says why
            worse.__cause__ = exc
            exc = worse
        if not self._reported:
            self._reported = True
            _log.warning(
                "%s.%s failed; the call goes on, and further failures are only counted",
                type(self).__name__,
                where,
                exc_info=exc,
            )

    def _batch_start(
        self,
        serialized: Any,
        prompts: Any,
        run_id: UUID,
        parent_run_id: UUID | None,
        tags: Any,
        metadata: Any,
        invocation_params: Any,
        name: Any,
        batch_size: Any,
    ) -> None:
        """One of several calls that begin together and that budgets hold; `BudgetExceeded`."""
        budgets, refused = self._budgets, None
        if budgets is None:
            return
        try:
            recorder = self._bound() or self._recorder
            provider, model = map(as_text, requested(metadata, invocation_params, serialized))
            refused = recorder.run_started(
                run_id,
                parent_run_id,
                LLM,
                component_name(name, serialized, "llm"),
                provider,
                model,
                budgets.demand(provider, model, prompts, metadata, tags, invocation_params),
                self._labels_of(metadata) if self._labels else None,
                *_tagged(tags),
            )
            if refused is None:
                texts = self._texts
                texts[run_id.int] = kept(prompts, invocation_params, batch_size)
                self._let_go()
            if batch_size and batch_size > 1:
                for begun in budgets.in_batch(run_id, batch_size, invocation_params, refused):
                    recorder.run_ended(begun, LLM, CANCELLED)
        except BaseException as exc:
            self._failed("on_llm_start", exc)
        if refused is not None:
            self._refuse(*refused)

    def _refuse(self, budget: int, crossed: list[tuple[int, int]]) -> NoReturn:
        """Raise what a budget has to say to a call that does not fit it."""
        self._crossed(crossed)
        assert self._budgets is not None
        raise self._budgets.exceeded(budget)

    def _labels_of(self, metadata: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for key in self._labels if isinstance(metadata, dict) else ():
            try:
                value = metadata.get(key)
                if value is not None:
                    found.append((key, as_text(str(value))))
            except BaseException as exc:  # of a value that no text can be made of
                self._failed("labels", exc)
        return found

    def _let_go(self) -> None:
        texts = self._texts
        if len(texts) > 4 * _LET_GO:
            for oldest in list(texts)[:_LET_GO]:
                texts.pop(oldest, None)

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
            self._model_ended(run_id, outcome_of(error), response, error=error)
        except BaseException as exc:
            self._failed("on_llm_error", exc)

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        run_type: Any = None,
        name: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain begins, which for a decision model is a model call."""
        if run_type == "llm":
            self.on_llm_start(
                serialized,
                inputs,
                run_id=run_id,
                parent_run_id=parent_run_id,
                tags=tags,
                metadata=metadata,
                name=name,
            )

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain gave its result; only that of a decision model is counted here."""
        try:
            if self._recorder.requested(run_id):
                self._model_ended(run_id, OK, outputs)
        except BaseException as exc:
            self._failed("on_chain_end", exc)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain failed; only a decision model is counted here."""
        try:
            if self._recorder.requested(run_id):
                self._model_ended(run_id, outcome_of(error), None, error=error)
        except BaseException as exc:
            self._failed("on_chain_error", exc)

    def _model_ended(
        self,
        run_id: UUID,
        outcome: int,
        response: Any,
        kind: int = LLM,
        *,
        error: BaseException | None = None,
    ) -> None:
        """Hand usage, names and cost to the recorder, which applies them to model runs alone."""
        recorder = self._bound() or self._recorder
        streams = self._streams
        partial = None if streams is None else streams.take(run_id)
        reading = NOTHING if response is None else read(response)
        usage, told, model, cache_hit, unread, billed, _ = reading
        told, model = as_text(told), as_text(model)
        # The response names the dialect it speaks ("openai" for Azure too), the request who serves.
        asked = recorder.requested(run_id)
        asked_provider, asked_model, started, *_ = asked or _NOT_ASKED
        # Beyond `max_series` the recorder no longer knows who was asked; the response may.
        provider = told or asked_provider if asked_provider == "other" else asked_provider or told
        if unread:
            recorder.dropped("usage_refused", unread)
        told_of = self._texts.pop(run_id.int, ())
        refused = error is not None and refused_by_server(error)
        answered = model or asked_model
        if response is not None and not (cache_hit or refused) and (usage is None or usage.is_cut):
            # Of a v3 stream that breaks the response has nothing; what was collected has.
            had = response if outcome == OK else as_far_as_it_came(response, partial)
            usage = self._estimated((provider, answered), told_of, had, outcome, reading) or usage
        cost = None
        if cache_hit:
            outcome = CACHE_HIT
        elif usage is not None and (prices := self._prices_now or self._prices_if_ready()):
            card = prices.card(provider, answered, tier=usage.tier, at=started)
            if card is not None:
                cost = self._sane(card.cost(usage))  # type: ignore[arg-type]
        crossed = recorder.run_ended(
            run_id,
            kind,
            outcome,
            provider,
            model,
            usage,
            cost,
            None if billed is None else self._sane(round(billed * PICO)),
            queue_time(response),
            truncated(response),
            None if error is None or outcome == INTERRUPTED else cause_of(error),
        )
        if crossed:
            self._crossed(crossed)
        # A run that is not in flight may have ended before: its price would come twice.
        if asked and usage is not None and cost is None and not cache_hit:
            self._unpriced((provider, answered, usage.tier), outcome, asked, usage[:-1])
        if streams is not None:
            if usage is None and refused and partial is not None and partial.said:
                # No spend, as the server said that the call failed; but this is what had come.
                had = as_far_as_it_came(response, partial)
                usage = self._estimated((provider, answered), told_of, had, outcome, reading)
            names = provider, answered
            streams.ended(run_id, names, outcome, partial, usage, cost, response, error)

    def _sane(self, cost: int) -> int | None:
        """Pico-dollars that the recorder can count; more is refused, and counted as that."""
        if cost <= MOST:
            return cost
        self._recorder.dropped("usage_refused")
        return None

    def _unpriced(
        self,
        names: tuple[str, str, str],
        outcome: int,
        asked: tuple[str, str, float, int, int],
        usage: tuple[Any, ...],
    ) -> None:
        """Keep a call that ended without a price until one comes: provider, model, tier."""
        later = self._later
        if later is not None and any(usage):  # a call of nothing is not unpriced
            _, _, started, budgets, labels = asked
            call = (*names, outcome, budgets, labels, started, usage)
            self._crossed(later.add(call, self._recorder))

    def _estimated(
        self, names: tuple[str, str], asked: Any, response: Any, outcome: int, reading: Reading
    ) -> Usage | None:
        """What was used, counted from the texts where not told; None where nothing is known."""
        prompts, tools, alone = asked_of(asked)
        if reading.shared and not alone:  # the run of its batch's first prompt reports them all
            return None
        try:
            if reading.usage is not None:
                return self._offline.with_input(*names, prompts, reading.usage, tools)
            ended = outcome == OK
            return self._offline.usage(*names, prompts, response, ended=ended, tools=tools)
        except BaseException as exc:
            self._failed("token_counter", exc)
            return None

    def _limit(self, budgets: Ledger) -> None:
        """Hold calls to these budgets: what refuses one has to pass LangChain's catch."""
        self._budgets = budgets
        self._hold(budgets.demand)
        if budgets.blocks:
            self.raise_error = True

    def _crossed(self, crossed: list[tuple[int, int]]) -> None:
        """Tell of thresholds that a call crossed."""
        try:
            if self._budgets is not None and crossed:
                self._budgets.crossed(self._recorder, crossed)
        except BaseException as exc:
            self._failed("on_threshold", exc)

    def _prices_if_ready(self) -> PriceBook | None:
        # Asking for a price before the catalogue is loaded would load it here and now.
        if self._prices is not None and self._prices.ready:
            self._prices_now = self._prices
            self._priced_by(self._prices)
        return self._prices_now

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
