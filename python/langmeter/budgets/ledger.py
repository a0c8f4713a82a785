"""All budgets of one meter: which of them a call belongs to, and what it asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from threading import Lock
from time import time
from typing import Any, Final, TypeAlias
from weakref import ref

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.delivery import Listener, notice_listener
from langmeter._base.log import log
from langmeter.budgets import dead
from langmeter.budgets.budget import Budget, Threshold, shown, unit_name
from langmeter.budgets.demand import (
    UNUSUAL,
    answers,
    beside_bound,
    input_bound,
    output_bound,
    size,
    tier_of,
    usual_bound,
)
from langmeter.budgets.scope import covers_model, covers_run, looks_at_runs
from langmeter.errors import REASONS, BudgetExceeded, ConfigError
from langmeter.prices import PriceBook
from langmeter.prices.card import RateCard

_MOST: Final = 64


#: Pico-dollars at worst for an input token and an output token, for the call, and for an input
#: token that no cache has seen; None without a price, empty while prices are not loaded.
_Rates: TypeAlias = tuple[int, ...] | None

#: What a call asks of its budgets: bits, input tokens, tokens of an answer (None: learned) and how
#: many answers, rates.
Demand: TypeAlias = tuple[int, int, int | None, int, _Rates]

#: Of a (provider, model): bits of the budgets whose scope ends there, (bit, budget) of those that
#: look at the run; and the rates of its every call, with the price book's version and the time that
#: they hold to.
_Plan: TypeAlias = tuple[int, tuple[tuple[int, Budget], ...], int, float, _Rates]

_FREE: Final = (0, 0, 0, 0)
_MAX_PLANS: Final = 4096
_MAX_BATCHES: Final = 64


class Ledger:
    """The budgets of one meter.

    Raises:
        ConfigError: too many of them, one that belongs to another meter, or one in USD without
            prices.
    """

    def __init__(self, budgets: Iterable[Budget], prices: PriceBook | None) -> None:
        self.budgets = tuple(budgets)
        self._prices = prices
        if len(self.budgets) > _MOST:
            raise ConfigError(
                f"budgets must be at most {_MOST} in one meter, got {len(self.budgets)}; "
                "join some by a scope with several values"
            )
        for budget in self.budgets:
            if not isinstance(budget, Budget):
                raise refusal("budgets", "Budget objects", budget, "pass e.g. [Budget(usd=5)]")
            if budget.unit == "usd" and prices is None:
                raise ConfigError(
                    f"a budget in USD must have prices, got {budget!r} without; "
                    "pass it to Meter or CostTrackingCallback"
                )
            if self.budgets.count(budget) > 1 or budget._owner is not None:
                raise ConfigError(
                    f"a budget must belong to one meter, got {budget!r}, which already belongs to "
                    "a meter; meter both with the same one, or make a budget for each"
                )
            budget._owner = ref(self)
        blocking = [b.action == "block" for b in self.budgets]
        #: Whether any of them may refuse a call.
        self.blocks = any(blocking)
        #: Bits of those that ask for the worst case in tokens, and for its price.
        self._bounded = _mask(b.action == "block" and b.unit != "calls" for b in self.budgets)
        self._priced = _mask(b.action == "block" and b.unit == "usd" for b in self.budgets)
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._rates: dict[tuple[str, str, str], tuple[RateCard, tuple[tuple[int, ...], ...]]] = {}
        self._batches: dict[int, tuple[Any, list[Any]]] = {}
        #: Where the books are, once they are open.
        self.recorder: _core.Recorder | None = None
        self._reported = False
        #: Where calls that hold budgets began, by the run's key; filled natively.
        self.origins: dict[int, dead.Origin] = {}
        self._opening = Lock()
        self._listeners: list[Listener] = []

    @classmethod
    def merged(cls, ledgers: Sequence[Ledger], prices: PriceBook | None) -> Ledger:
        """One ledger in the place of several."""
        budgets = [budget for ledger in ledgers for budget in ledger.budgets]
        for budget in budgets:
            budget._owner = None
        return cls(budgets, prices)

    def open(self, recorder: _core.Recorder) -> None:
        """Open the books; once, before the first call."""
        with self._opening:
            if self.recorder is None:
                for budget in self.budgets:
                    budget._open(recorder)
                    told = budget.on_threshold or _warn
                    self._listeners.append(notice_listener("on_threshold", told, recorder.dropped))
                self.recorder = recorder

    def demand(
        self, provider: str, model: str, prompts: Any, metadata: Any, tags: Any, params: Any
    ) -> Demand | None:
        """Which budgets a call belongs to and its worst case; None when to none."""
        plan = self._plans.get((provider, model)) or self._plan(provider, model)
        mask, others, version, until, rates = plan
        for bit, budget in others:
            try:
                if covers_run(budget.scope, metadata, tags):
                    mask |= bit
            except Exception as exc:  # of a value that no text can be made of: not what is covered
                self._unread(exc)
        if not mask & self._bounded:
            return (mask, 0, 0, 1, _FREE) if mask else None
        try:
            tokens = input_bound(prompts)
        except Exception:  # messages of a foreign kind
            tokens = size(str(prompts))
        output, count, tier = None, 1, ""
        if params and not UNUSUAL.isdisjoint(params):
            tokens += beside_bound(params)
            output, count, tier = output_bound(params, metadata), answers(params), tier_of(params)
        elif metadata and "ls_max_tokens" in metadata:
            output = usual_bound(metadata)
        if not mask & self._priced:
            return mask, tokens, output, count, _FREE
        # The clock is read only for prices that end.
        if tier or version != self._prices.version or (until < inf and time() >= until):  # type: ignore[union-attr]
            rates = self._worst_rates(plan, provider, model, tier, tokens)
        return mask, tokens, output, count, rates

    def embedding(self, provider: str, model: str, tokens: int) -> Demand | None:
        """The same of a call that embeds so many tokens: they are read, and nothing is written."""
        demand = self.demand(provider, model, [], None, None, None)
        if demand is None:
            return None
        mask, rates = demand[0], demand[4]
        if mask & self._priced:
            plan = self._plans.get((provider, model)) or self._plan(provider, model)
            rates = self._worst_rates(plan, provider, model, "", tokens)
        return mask, tokens, 0, 1, rates

    def release_dead(self) -> int:
        """Release what dead calls hold, before one is refused; returns how many they were."""
        recorder = self.recorder
        try:
            return 0 if recorder is None else dead.release(recorder, self.origins)
        except Exception as exc:
            self._report(exc, "looking for calls that can end no more failed")
            return 0

    def _unread(self, exc: Exception) -> None:
        self._report(
            exc,
            "a call's metadata has a value that cannot be read as text: no budget with a scope on "
            "it covers the call",
        )

    def _report(self, exc: Exception, what: str) -> None:
        """Count a failure; log the first one."""
        if self.recorder is not None:
            self.recorder.dropped("hook_errors")
        if not self._reported:
            self._reported = True
            log.warning("%s; further failures are only counted", what, exc_info=exc)

    def _plan(self, provider: str, model: str) -> _Plan:
        bits = [(1 << i, budget) for i, budget in enumerate(self.budgets)]
        covered = [(bit, b) for bit, b in bits if covers_model(b.scope, provider, model)]
        always = sum(bit for bit, budget in covered if not looks_at_runs(budget.scope))
        others = tuple((bit, budget) for bit, budget in covered if looks_at_runs(budget.scope))
        return self._keep(provider, model, (always, others, -1, 0.0, _FREE))

    def _keep(self, provider: str, model: str, plan: _Plan) -> _Plan:
        if len(self._plans) >= _MAX_PLANS and (provider, model) not in self._plans:
            self._plans.clear()
        self._plans[provider, model] = plan
        return plan

    def _worst_rates(
        self, plan: _Plan, provider: str, model: str, tier: str, tokens: int
    ) -> _Rates:
        # Waits for the catalogue at the very first call: without a price there is no blocking.
        prices = self._prices
        version = 0 if prices is None else prices.version
        card = None if prices is None else prices.card(provider, model, tier=tier)
        if card is None:
            return None
        key = (provider, model, tier)
        held = self._rates.get(key)
        if held is None or held[0] is not card:
            if len(self._rates) >= _MAX_PLANS:
                self._rates.clear()
            held = self._rates[key] = (card, _worst(card))
        bands = held[1]
        if len(bands) == 1:
            if not tier:
                self._keep(provider, model, (*plan[:2], version, card.valid_until, bands[0]))
            return bands[0]
        reached = [rates for band, rates in zip(card.bands, bands, strict=True) if tokens > band[0]]
        return tuple(map(max, *reached)) if len(reached) > 1 else bands[0]

    def in_batch(self, run_id: Any, size: int, params: Any, refused: object) -> list[Any]:
        """Of the runs that one `generate` starts together: those to give up when one is refused.

        LangChain starts them one by one and ends none of them when a start raises.
        """
        batch = self._batches.get(id(params))
        if batch is None or batch[0] is not params:
            if len(self._batches) >= _MAX_BATCHES:
                self._batches.clear()
            batch = self._batches[id(params)] = (params, [])
        if not refused:
            batch[1].append(run_id)
        if refused or len(batch[1]) == size:
            self._batches.pop(id(params), None)
        return batch[1] if refused else []

    def exceeded(self, position: int, why: int = 0) -> BudgetExceeded:
        """The exception of a call that a budget refused."""
        budget = self.budgets[position]
        return BudgetExceeded(
            budget.name,
            dict(budget.scope),
            budget.unit,
            budget.limit,
            budget.spent,
            budget.reserved,
            budget.resets_at,
            REASONS[why],
        )

    def crossed(self, crossed: Iterable[tuple[int, int]]) -> None:
        """Report crossed thresholds to their listeners, in a thread of its own."""
        for position, which in crossed:
            budget = self.budgets[position]
            self._listeners[position].tell(budget._threshold(budget.at[which]))


def _worst(card: RateCard) -> tuple[tuple[int, ...], ...]:
    """Of each band: the dearest that text can cost, rounded up, and what plain input costs."""
    return tuple(
        (
            -(-max(b.input, b.cache_read, b.cache_write, b.cache_write_1h) // card.scale),
            -(-max(b.output, b.reasoning) // card.scale),
            -(-b.request // card.scale),
            -(-b.input // card.scale),
        )
        for b in card.bands
    )


def _mask(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)


def _warn(event: Threshold) -> None:
    log.warning(
        "budget %s: %g %% of it crossed, %s spent and %s reserved of %s %s",
        event.budget.name,
        event.fraction * 100,
        *map(shown, (event.spent, event.reserved, event.limit)),
        unit_name(event.budget.unit),
    )
