"""Services: one object, shared by the joined handlers of a recorder."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from functools import cached_property, partial
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias
from uuid import UUID
from weakref import WeakSet, ref

from langmeter import _core
from langmeter._base import periodic
from langmeter._base.forks import at_fork
from langmeter._base.log import log
from langmeter._base.observer import RecorderObserver
from langmeter._base.text import as_text
from langmeter.budgets import Ledger
from langmeter.callbacks.model_end import model_end
from langmeter.callbacks.outputs import OutputReader
from langmeter.config import Label, MeterConfig, checked_labels, keys_of
from langmeter.defects.attempt import Block
from langmeter.defects.options import DefectOptions
from langmeter.directory.keeper import Keeper, attach
from langmeter.directory.notes import notes
from langmeter.monitors.differences import DifferenceObserver
from langmeter.monitors.stalls import streams_in_flight
from langmeter.monitors.states import StateRegistry
from langmeter.prices import PriceBook
from langmeter.prices.book import Priced
from langmeter.prices.unpriced import MAX_COST, Call, UnpricedCalls
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import State
from langmeter.streaming import Streams
from langmeter.streaming.streams import joined
from langmeter.usage.estimate import TokenEstimator
from langmeter.usage.requested import asked

#: Makes an observer of a recorder.
Observer: TypeAlias = Callable[["Services"], RecorderObserver[Any]]

#: Reasons of failed attempts that are counted at most.
_MAX_REASONS: Final = 256

_all: WeakSet[Services] = WeakSet()


def _after_fork() -> None:
    for services in list(_all):
        services.reset_after_fork()
        if services.config.directory is not None and services.is_mapped:
            attach(services.recorder, services.config.directory)
        services._began = False
        for subscription in services.subscriptions:
            subscription.reset_after_fork()
        if services.unpriced_calls is not None:
            services.unpriced_calls.clear()


at_fork(after_in_child=_after_fork)


def _new_recorder(config: MeterConfig) -> _core.Recorder:
    recorder = _core.Recorder(**config.recorder_settings())
    if config.directory is not None:
        attach(recorder, config.directory)
    return recorder


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Services(_core.ServicesBase):
    """Services that the handlers of one recorder share.

    The native base holds what a call needs: recorder, prompts of runs in flight, streams, labels.
    The methods of the protocol `_core.Services` are called from there.

    Attributes:
        config: settings; the recorder is mapped with them at its first use.
        prices: where prices come from; None leaves calls unpriced.
        later: calls without a price, until one is known; None without prices.
        ledger: what calls may cost; None without budgets.
        streams: who listens to streams; None if no handler does.
        labels: keys of a call's metadata, or several crossed, that calls are counted by.
        label_names: the names of their rows.
        without_labels: those, each with the value of a call that has none.
        estimator: counts what providers do not report.
        makers: make the observers of the recorder at the first model call.
        keep_prompts: whether prompts of runs in flight are kept for clients that report usage too.
        defects: how attempts at defects are found; None if no handler counts them.
        block: where the innermost block of an attempt in a thread or task is kept.
        reasons: why attempts failed, by outcome and reason, to how often.
        states: where each room adds its part of `snapshot.state`.
        subscriptions: observers that take differences, from the first model call on.
    """

    config: MeterConfig
    prices: PriceBook | None
    unpriced_calls: UnpricedCalls | None
    ledger: Ledger | None
    streams: Streams | None
    labels: tuple[Label, ...]
    label_names: tuple[str, ...]
    without_labels: list[tuple[str, str]]
    estimator: TokenEstimator
    makers: tuple[Observer, ...]
    keep_prompts: bool
    defects: DefectOptions | None
    block: Block
    reasons: Counter[tuple[str, str]]
    states: StateRegistry
    subscriptions: list[DifferenceObserver]
    _began: bool
    _reported: bool
    _output_reported: bool
    _is_open: bool

    def __new__(
        cls,
        config: MeterConfig,
        *,
        prices: PriceBook | None = None,
        ledger: Ledger | None = None,
        streams: Streams | None = None,
        labels: Iterable[Label] = (),
        estimator: TokenEstimator | None = None,
        observers: Iterable[Observer] = (),
        keep_prompts: bool = False,
        defects: DefectOptions | None = None,
    ) -> Services:
        """All are optional but the settings of the recorder."""
        labels = tuple(labels)
        block: Block = ContextVar("langmeter_attempt", default=0)
        output = OutputReader(None if defects is None else defects.outcome)
        self = super().__new__(
            cls,
            partial(_new_recorder, config),
            streams=streams,
            cards=None if prices is None else prices.cards,
            demand=None if ledger is None else ledger.demand,
            make_room=ledger.make_room if ledger is not None and ledger.blocks else None,
            origins=ledger.origins if ledger is not None and ledger.blocks else None,
            labels=list(map(keys_of, labels)),
            keep_prompts=keep_prompts,
            attempts=None if defects is None else (defects.names, block.get, output.read),
        )
        self.block, self.defects, self.reasons = block, defects, Counter()
        output.services = ref(self)
        self.keep_prompts = keep_prompts
        self.config, self.prices, self.ledger, self.streams = config, prices, ledger, streams
        self.unpriced_calls = None if prices is None else UnpricedCalls(prices)
        self.labels, self.estimator = labels, estimator or TokenEstimator()
        parted = _core.SEPARATOR
        self.label_names = tuple(parted.join(keys_of(label)) for label in labels)
        self.without_labels = [(name, parted * name.count(parted)) for name in self.label_names]
        self.makers = tuple(observers)
        if config.directory is not None:
            directory = config.directory
            self.makers += (lambda services: Keeper(services.recorder, directory, services.notes),)
        self.states, self.subscriptions = StateRegistry(), []
        self.states.add(self, streams_in_flight)
        if ledger is not None:
            ledger.serve(config.directory, self.open_books)
            self.states.add(ledger, Ledger.state)
        self._reported = self._is_open = self._output_reported = self._began = False
        _all.add(self)
        return self

    @classmethod
    def joined(
        cls,
        config: MeterConfig,
        labels: Iterable[Label],
        estimator: TokenEstimator,
        parts: Sequence[Services],
    ) -> Services:
        """One in the place of several that have no recorder yet."""
        prices = next((part.prices for part in reversed(parts) if part.prices is not None), None)
        ledgers = [part.ledger for part in parts if part.ledger is not None]
        for part in parts:
            estimator.join(part.estimator)
        services = cls(
            config,
            prices=prices,
            ledger=Ledger.merged(ledgers, prices) if ledgers else None,
            streams=joined([part.streams for part in parts if part.streams is not None]),
            labels=checked_labels((*labels, *(label for part in parts for label in part.labels))),
            estimator=estimator,
            observers=[maker for part in parts for maker in part.makers],
            keep_prompts=any(part.keep_prompts for part in parts),
            defects=next((part.defects for part in parts if part.defects is not None), None),
        )
        for part in parts:
            services.states.join(part.states, (Ledger, Services))
        return services

    @property
    def blocks(self) -> bool:
        """Whether a budget may refuse a call."""
        return self.ledger is not None and self.ledger.blocks

    @property
    def observers(self) -> tuple[RecorderObserver[Any], ...]:
        """Observers that poll the recorder, from the first model call on."""
        observers: tuple[RecorderObserver[Any], ...] = vars(self).get("_observers", ())
        return observers

    @cached_property
    def attempts(self) -> _core.Attempts:
        """The attempts at defects of the recorder."""
        return _core.Attempts(self.recorder)

    def reason_given(self, outcome: str, reason: str) -> None:
        """Count why an attempt failed."""
        key = outcome, reason
        if key in self.reasons or len(self.reasons) < _MAX_REASONS:
            self.reasons[key] += 1

    def open_books(self) -> Ledger | None:
        """The budgets, held by the recorder from now on."""
        # Once open no lock is taken: a fork may have left it held.
        if self.ledger is not None and self.ledger.recorder is None:
            self.ledger.open(self.recorder, self.config.max_run_age)
        if not self._is_open:
            self._is_open = True
            self.estimator.count_in(self.recorder)
            if self.unpriced_calls is not None:
                self.unpriced_calls.count_in(self.recorder)
        return self.ledger

    def snapshot(self) -> Snapshot:
        """Everything counted so far; see `Callback.snapshot`."""
        if self.unpriced_calls:
            self._price_later()
        changes = [change for watch in self.observers for change in watch.changes]
        native = self.recorder.snapshot(changes, self.label_names)
        snapshot = Snapshot(native, self._state(native.taken_at))
        try:
            if self.streams is not None:  # the recorder has just reaped abandoned streams
                self.streams.notify_abandoned()
        except BaseException as exc:
            self.hook_failed("on_error", exc)
        return snapshot

    def notes(self) -> Snapshot:
        """Return what others cannot read from the file of the recorder: no series, the rest."""
        changes = [change for watch in self.observers for change in watch.changes]
        return notes(changes, self.label_names, self._state(time_ns()))

    def _state(self, taken_at: int) -> State:
        failed = partial(self.hook_failed, "snapshot")
        return self.states.read(self.recorder.origin, taken_at, failed)

    def _price_later(self) -> None:
        """Price calls that ended without a price and have one by now."""
        unpriced_calls = self.unpriced_calls
        if unpriced_calls is None:
            return
        try:
            if not unpriced_calls.book.ready and not _in_event_loop():
                unpriced_calls.book.warm(wait=True)
            self.crossed(unpriced_calls.price_pending(self.recorder))
        except BaseException as exc:
            self.hook_failed("snapshot", exc)

    def cost(self, names: Priced, usage: tuple[Any, ...], started: float | None) -> int | None:
        """Return what a call costs in pico-dollars; None where no price is known by now."""
        if self.prices is None:
            return None
        card = self.prices.card_now(**names._asdict(), at=started)
        if card is None:
            return None
        if names.tier and self.unpriced_calls is not None:
            self.unpriced_calls.check_tier(names, card)
        return self.sane(card.cost(usage))

    def sane(self, cost: int) -> int | None:
        """Pico-dollars that the recorder can count; more is refused, and counted as that."""
        if cost <= MAX_COST:
            return cost
        self.recorder.dropped("usage_refused")
        return None

    def unpriced(
        self,
        names: Priced,
        outcome: int,
        asked: tuple[str, str, float, int, int, bool, float, int],
        usages: Iterable[tuple[Any, ...]],
    ) -> None:
        """Keep a call that ended without a price until one is known.

        `names.model` is what the call is counted under; `asked` as of `Recorder.requested`. The
        first of `usages` is that of its answer, any other was billed beside it.
        """
        if self.unpriced_calls is None:
            return
        _, _, started, budgets, labels, charged, ended, attempt = asked
        calls = 1
        for usage in usages:
            if any(usage):  # a call that used nothing needs no price
                end = outcome, budgets, labels, charged
                call = Call(names, *end, started, ended, usage, calls, attempt)
                self.crossed(self.unpriced_calls.add(call, self.recorder))
            calls = 0

    # Called natively: the protocol `_core.Services`.

    def first_call(self) -> None:
        """Open the budgets and start the observers: the first model call of this process begins.

        Not before, because a thread that runs when a server forks its workers is a nuisance.
        """
        if self.streams is not None:
            self.streams.recorder = self.recorder
        self.open_books()
        if not self.observers:
            made: dict[type, RecorderObserver[Any]] = {}  # one of a kind
            for observer in (maker(self) for maker in self.makers):
                made.setdefault(type(observer), observer)
            observers = tuple(made.values())
            # Of two first calls at once, one keeps its observers and starts them.
            if vars(self).setdefault("_observers", observers) is observers:
                for observer in observers:
                    observer.start()
        self._began = True
        for subscription in self.subscriptions:
            subscription.start()
        periodic.resume()  # in a forked child

    def subscribe(self, observer: DifferenceObserver) -> None:
        """Start an observer with the first model call, or now where that has begun."""
        self.subscriptions.append(observer)
        if self._began:
            observer.start()

    def unsubscribe(self, observer: DifferenceObserver) -> bool:
        """Stop an observer; returns False where that has been done."""
        observer.stop()
        if observer not in self.subscriptions:
            return False
        self.subscriptions.remove(observer)
        return True

    def requested(
        self, metadata: Any, invocation_params: Any, serialized: Any
    ) -> tuple[str, str, bool, str, str]:
        """Provider and model that a client requests; whether an address could change that.

        And the deployment that it calls, and the vendor; each "" for none.
        """
        provider, model, by_address, deployment, vendor = asked(
            metadata, invocation_params, serialized
        )
        return (
            as_text(provider),
            as_text(model),
            by_address,
            as_text(deployment),
            as_text(vendor),
        )

    def in_batch(self, run_id: Any, size: Any, params: Any, refused: bool) -> Sequence[Any]:
        """Of the runs that begin together: those to give up when one of them is refused."""
        if self.ledger is None or not size or size <= 1:
            return ()
        return self.ledger.in_batch(run_id, size, params, refused)

    def refused(self, budget: int, why: int, crossed: list[tuple[int, int]]) -> NoReturn:
        """Raise `BudgetExceeded` for a call that does not fit a budget."""
        self.crossed(crossed)
        assert self.ledger is not None
        raise self.ledger.exceeded(budget, why)

    def crossed(self, crossed: list[tuple[int, int]]) -> None:
        """Report the thresholds that a call crossed."""
        try:
            if self.ledger is not None and crossed:
                self.ledger.crossed(crossed)
        except BaseException as exc:
            self.hook_failed("on_threshold", exc)

    def model_end(
        self,
        run_id: UUID,
        outcome: int,
        response: Any,
        kind: int,
        error: BaseException | None = None,
    ) -> None:
        """End a model call that the native way does not take."""
        model_end(self, run_id, outcome, response, kind, error)

    def output_failed(self, exc: Exception) -> None:
        """Log the first failure of the function that reads outcomes."""
        if not self._output_reported:
            self._output_reported = True
            log.warning(
                "the function that reads outcomes of attempts failed; such attempts have no "
                "verdict, and further failures are only counted",
                exc_info=exc,
            )

    def hook_failed(self, place: str, exc: BaseException) -> None:
        """Count a failure of ours and let the metered call go on.

        A Rust panic is a BaseException and ends here too; Ctrl-C, SystemExit and their like are the
        host's, happen to arrive while we run, and go on their way.
        """
        if not isinstance(exc, Exception) and type(exc).__module__ != "pyo3_runtime":
            raise exc
        try:
            self.recorder.dropped("hook_errors")
        except Exception as worse:  # no recorder to count in: what follows says why
            worse.__cause__ = exc
            exc = worse
        if not self._reported:
            self._reported = True
            log.warning(
                "%s failed; the call goes on, and further failures are only counted",
                place,
                exc_info=exc,
            )


if TYPE_CHECKING:

    def _called(services: Services) -> _core.Services:
        return services
