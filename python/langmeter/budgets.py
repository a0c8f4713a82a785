"""Budgets: limits in US dollars, tokens or calls that warn, or refuse a call before it is made.

A `Budget` says what is limited, a `Ledger` is all budgets of one meter: it says at the start of a
call which of them it belongs to and what it can cost at its worst. The books are in the recorder.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from math import ceil
from threading import Lock
from time import time
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from langmeter import _core
from langmeter._dispatch import dispatch
from langmeter.errors import BudgetExceeded, ConfigError
from langmeter.prices import PriceBook
from langmeter.prices.card import PICO, RateCard, usd

#: US dollars, or a count of tokens or calls.
Amount: TypeAlias = Decimal | int

_UNITS: Final = ("usd", "tokens", "calls")
_PERIODS: Final = ("total", "minute", "hour", "day", "month")
_LIMIT: Final = 2**63 - 1
_MOST: Final = 64
_MOST_THRESHOLDS: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = (0, 0, 0, None, 0)

#: Where clients state how many tokens a call may give.
_MAX_OUTPUT: Final = frozenset(
    (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_new_tokens",
        "max_tokens_to_sample",
        "num_predict",
    )
)
#: What a client sends beside the messages that counts as input.
_ALSO_SENT: Final = frozenset(
    ("tools", "functions", "response_format", "system", "system_instruction")
)
_LOOKED_FOR: Final = _MAX_OUTPUT | _ALSO_SENT
#: Tokens a chat adds to a message (3 or 4 at OpenAI), rounded up.
_PER_MESSAGE: Final = 16
#: Tokens taken for an image, a sound or a file: no bound, but above what most models charge.
_PER_BLOCK: Final = 2048

_log = logging.getLogger("langmeter")


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold of a budget was crossed; what `on_threshold` gets.

    Attributes:
        budget: whose.
        fraction: of the limit, as in `Budget(at=…)`. 1.0 is also crossed by the first refusal.
        spent, reserved, limit: where the budget stood then, US dollars (Decimal), tokens or calls.
        resets_at: when the next period begins; None for `per="total"`.
    """

    budget: Budget
    fraction: float
    spent: Amount
    reserved: Amount
    limit: Amount
    resets_at: datetime | None


class Budget:
    """A limit on what calls may cost.

    Give exactly one of `usd`, `tokens` and `calls`. Periods are those of the calendar in UTC; a
    call counts in the one it ends in. A budget belongs to the meter it is handed to.

    `action="block"` raises `BudgetExceeded` when the worst case of a call does not fit what is
    left, before the call is made. The worst case is the input at one token a byte (which no
    byte-level vocabulary exceeds; 2,048 for an image, a sound or a file) and the output limit of
    the call (`max_tokens` and its like) or, without one, the most the model gave so far, at least
    2,048; at the model's list price. A model without a price costs a budget in USD nothing; an
    exhausted budget refuses it too. What a call turns out to have used replaces the worst case
    when it ends; calls that fail cost what they are known to have used, cached responses nothing,
    abandoned calls give back what they held.

    Args:
        usd: US dollars, exact as `Decimal`, `str` or `int`; a float counts as what it prints as.
        tokens: input and output tokens together.
        calls: calls that did not fail.
        per: "total", "minute", "hour", "day" or "month".
        scope: what it covers, everything by default. Keys: "provider", "model" (as requested;
            `gpt-4o*` matches the rest), "tag" for a tag of the run, any other for an entry of its
            metadata. Values: a text, or several of which one has to match.
        at: fractions of the limit, up to 8, whose crossing is told once a period.
        action: "warn" or "block".
        on_threshold: called with a `Threshold` in a thread of its own; logs a warning by default.
        name: for messages; made from limit and scope by default.

    Raises:
        ConfigError: a value that makes no budget.
    """

    def __init__(
        self,
        *,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        per: Literal["total", "minute", "hour", "day", "month"] = "total",
        scope: Mapping[str, str | Collection[str]] | None = None,
        at: Iterable[float] = (0.5, 0.8, 1.0),
        action: Literal["warn", "block"] = "warn",
        on_threshold: Callable[[Threshold], Any] | None = None,
        name: str | None = None,
    ) -> None:
        given = [(unit, limit) for unit, limit in zip(_UNITS, (usd, tokens, calls), strict=True)]
        given = [(unit, limit) for unit, limit in given if limit is not None]
        if len(given) != 1:
            raise ConfigError("a budget needs exactly one of usd, tokens and calls")
        if per not in _PERIODS:
            raise ConfigError(f"per = {per!r}: must be one of {', '.join(_PERIODS)}")
        if action not in ("warn", "block"):
            raise ConfigError(f"action = {action!r}: must be 'warn' or 'block'")
        self.unit, limit = given[0]
        self._limit = _units(self.unit, limit)
        self.per = per
        self.scope: Mapping[str, tuple[str, ...]] = MappingProxyType(_scope(scope or {}))
        self.at = _fractions(at)
        self.action = action
        self.on_threshold = on_threshold
        self.name = name or self._describe()
        self._owner: Ledger | None = None
        self._books: tuple[_core.Recorder, int, int] | None = None

    @property
    def limit(self) -> Amount:
        """The most of a period: US dollars, tokens or calls."""
        return self._shown(self._limit)

    @property
    def spent(self) -> Amount:
        """Spent in this period by the calls that have ended."""
        return self._shown(self._standing()[0])

    @property
    def reserved(self) -> Amount:
        """Held for calls in flight, at their worst; a budget that only warns holds nothing."""
        return self._shown(self._standing()[1])

    @property
    def remaining(self) -> Amount:
        """Neither spent nor reserved; never below 0."""
        spent, reserved = self._standing()[:2]
        return self._shown(max(0, self._limit - spent - reserved))

    @property
    def resets_at(self) -> datetime | None:
        """When the next period begins; None for `per="total"` and before the first call."""
        return _moment(self._standing()[3])

    def projected(self) -> Amount | None:
        """What will be spent when this period ends, if it goes on as since it began.

        Since the first call, in the period in which that came. None for `per="total"`.
        """
        if self.per == "total":
            return None
        spent, _, begins, ends, now = self._standing()
        if not spent or ends is None:
            return self._shown(0)
        elapsed = max(now - max(begins, self._opened()), 1)
        return self._shown(spent + spent * (ends - now) // elapsed)

    def __repr__(self) -> str:
        return f"<Budget {self.name!r}: {self.spent} of {self.limit} {self.unit} spent>"

    def _standing(self) -> tuple[int, int, int, int | None, int]:
        if self._books is None:
            return _NOTHING
        recorder, position, _ = self._books
        return recorder.standing(position)

    def _opened(self) -> int:
        return 0 if self._books is None else self._books[2]

    def _open(self, recorder: _core.Recorder) -> None:
        position = recorder.open_budget(
            _UNITS.index(self.unit),
            self._limit,
            _PERIODS.index(self.per),
            self.action == "block",
            [max(1, ceil(Decimal(str(fraction)) * self._limit)) for fraction in self.at],
        )
        self._books = (recorder, position, recorder.standing(position)[4])

    def _shown(self, amount: int) -> Amount:
        return usd(amount) if self.unit == "usd" else amount

    def _describe(self) -> str:
        amount = f"{usd(self._limit).normalize():f} USD"
        amount = amount if self.unit == "usd" else f"{self.limit} {self.unit}"
        covers = ", ".join(f"{key} {' or '.join(values)}" for key, values in self.scope.items())
        per = "" if self.per == "total" else f" a {self.per}"
        return f"{amount}{per}" + (f" for {covers}" if covers else "")

    def _covers_model(self, provider: str, model: str) -> bool:
        asked = {"provider": provider, "model": model}
        return all(
            any(fnmatchcase(asked[key].lower(), pattern.lower()) for pattern in self.scope[key])
            for key in asked
            if key in self.scope
        )

    def _covers_run(self, metadata: Any, tags: Any) -> bool:
        for key, values in self.scope.items():
            if key == "tag":
                if not any(value in (tags or ()) for value in values):
                    return False
            elif key not in ("provider", "model") and (
                not metadata or key not in metadata or str(metadata[key]) not in values
            ):
                return False
        return True

    @property
    def _looks_at_runs(self) -> bool:
        return any(key not in ("provider", "model") for key in self.scope)

    def _threshold(self, fraction: float) -> Threshold:
        spent, reserved, _, ends, _ = self._standing()
        return Threshold(
            self,
            fraction,
            self._shown(spent),
            self._shown(reserved),
            self.limit,
            _moment(ends),
        )


#: What a call asks of its budgets: bits, input tokens, output tokens (None: learned), pico-dollars
#: for an input token, an output token and the call.
Demand: TypeAlias = tuple[int, int, int | None, int, int, int]

#: Of a (provider, model): bits of the budgets whose scope ends there, and (bit, budget) of those
#: that look at the run.
_Plan: TypeAlias = tuple[int, tuple[tuple[int, Budget], ...]]

_UNKNOWN: Final = (-1, 0.0, (0, 0, 0))
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
            raise ConfigError(f"{len(self.budgets)} budgets: at most {_MOST} in one meter")
        for budget in self.budgets:
            if not isinstance(budget, Budget):
                raise ConfigError(f"{budget!r} is no Budget")
            if budget.unit == "usd" and prices is None:
                raise ConfigError(f"{budget!r} needs prices: use Meter or CostTrackingCallback")
            if self.budgets.count(budget) > 1 or budget._owner is not None:
                raise ConfigError(
                    f"{budget!r} already belongs to a meter: meter both with the same one, "
                    "or make a budget for each"
                )
            budget._owner = self
        blocking = [b.action == "block" for b in self.budgets]
        #: Whether any of them may refuse a call.
        self.blocks = any(blocking)
        #: Bits of those that ask for the worst case in tokens, and for its price.
        self._bounded = _mask(b.action == "block" and b.unit != "calls" for b in self.budgets)
        self._priced = _mask(b.action == "block" and b.unit == "usd" for b in self.budgets)
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._rates: dict[tuple[str, str, str], tuple[RateCard, tuple[_Rates, ...]]] = {}
        #: The rates of a model's every call, with the book's version and the time they hold to.
        self._flat: dict[tuple[str, str], tuple[int, float, _Rates]] = {}
        self._batches: dict[int, tuple[Any, list[Any]]] = {}
        #: Where the books are, once they are open.
        self.recorder: _core.Recorder | None = None
        self._opening = Lock()

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
                self.recorder = recorder

    def demand(
        self, provider: str, model: str, prompts: Any, metadata: Any, tags: Any, params: Any
    ) -> Demand | None:
        """Which budgets a call belongs to and its worst case; None when to none."""
        key = (provider, model)
        mask, others = self._plans.get(key) or self._plan(provider, model)
        for bit, budget in others:
            if budget._covers_run(metadata, tags):
                mask |= bit
        if not mask & self._bounded:
            return (mask, 0, 0, 0, 0, 0) if mask else None
        params = params or {}
        try:
            tokens = bound(prompts)
        except Exception:  # messages of a foreign kind
            tokens = _bytes(str(prompts))
        output = None
        if not _LOOKED_FOR.isdisjoint(params):
            tokens += sum(_bytes(str(params[name])) for name in _ALSO_SENT.intersection(params))
            output = _max_output(params)
        if not mask & self._priced:
            return mask, tokens, output, 0, 0, 0
        version, until, rates = self._flat.get(key, _UNKNOWN)
        if (
            self._prices is not None
            and version == self._prices.version
            and time() < until
            and "service_tier" not in params
        ):
            return mask, tokens, output, *rates
        return mask, tokens, output, *self._worst_rates(provider, model, params, tokens)

    def _plan(self, provider: str, model: str) -> _Plan:
        bits = [(1 << i, budget) for i, budget in enumerate(self.budgets)]
        covered = [(bit, b) for bit, b in bits if b._covers_model(provider, model)]
        always = sum(bit for bit, budget in covered if not budget._looks_at_runs)
        plan = always, tuple((bit, budget) for bit, budget in covered if budget._looks_at_runs)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[provider, model] = plan
        return plan

    def _worst_rates(self, provider: str, model: str, params: Any, tokens: int) -> _Rates:
        tier = params.get("service_tier")
        key = (provider, model, tier if type(tier) is str else "")
        # Waits for the catalogue at the very first call: without a price there is no blocking.
        prices = self._prices
        version = 0 if prices is None else prices.version
        card = None if prices is None else prices.card(key[0], key[1], tier=key[2])
        if card is None:
            return 0, 0, 0
        known = self._rates.get(key)
        if known is None or known[0] is not card:
            if len(self._rates) >= _MAX_PLANS:
                self._rates.clear()
                self._flat.clear()
            known = self._rates[key] = (card, _worst(card))
        bands = known[1]
        if len(bands) == 1:
            if not tier:
                self._flat[provider, model] = (version, card.valid_until, bands[0])
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

    def exceeded(self, position: int) -> BudgetExceeded:
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
        )

    def crossed(self, recorder: _core.Recorder, crossed: Iterable[tuple[int, int]]) -> None:
        """Tell of thresholds that were crossed, in the dispatcher's thread."""
        for position, which in crossed:
            budget = self.budgets[position]
            event = budget._threshold(budget.at[which])
            if not dispatch(budget.on_threshold or _warn, event, recorder):
                recorder.dropped("callback_errors")


#: Pico-dollars for an input token, an output token, and a call.
_Rates: TypeAlias = tuple[int, int, int]


def _worst(card: RateCard) -> tuple[_Rates, ...]:
    """Of each band: the dearest that text can cost, rounded up."""
    return tuple(
        (
            -(-max(b.input, b.cache_read, b.cache_write, b.cache_write_1h) // card.scale),
            -(-max(b.output, b.reasoning) // card.scale),
            -(-b.request // card.scale),
        )
        for b in card.bands
    )


def bound(prompts: Any) -> int:
    """At least the tokens of these prompts or messages: one a byte, and what a chat adds."""
    if type(prompts) is not list:
        return _bytes(str(prompts))  # the inputs of a decision model
    total = 0
    for prompt in prompts:
        if type(prompt) is str:
            total += _bytes(prompt)
            continue
        for message in prompt if type(prompt) is list else (prompt,):
            # Not by attribute: pydantic takes 6 µs to say that a message has no tool calls.
            fields = message.__dict__
            content = fields["content"]
            total += _PER_MESSAGE
            if type(content) is str:
                total += len(content) if content.isascii() else _bytes(content)
            else:
                total += sum(map(_block, content))
            if more := fields["additional_kwargs"]:
                total += _bytes(str(more))
            if more := fields.get("tool_calls"):
                total += _bytes(str(more))
    return total


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _block(block: Any) -> int:
    if type(block) is str:
        return _bytes(block)
    if isinstance(block, dict):
        if isinstance(text := block.get("text"), str):
            return _PER_MESSAGE + _bytes(text)
        if block.get("type") in ("tool_use", "tool_call", "tool_result", "thinking", "reasoning"):
            return _PER_MESSAGE + _bytes(str(block))
    return _PER_BLOCK


def _max_output(params: Any) -> int | None:
    limits = [params[key] for key in _MAX_OUTPUT.intersection(params)]
    most = max((limit for limit in limits if type(limit) is int and limit > 0), default=None)
    candidates = params.get("n")
    return most * candidates if most and type(candidates) is int and candidates > 1 else most


def _mask(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)


def _warn(event: Threshold) -> None:
    _log.warning(
        "budget %s: %g %% of it crossed, %s spent and %s reserved of %s",
        event.budget.name,
        event.fraction * 100,
        event.spent,
        event.reserved,
        event.limit,
    )


def _moment(unix_ns: int | None) -> datetime | None:
    return None if not unix_ns else _EPOCH + timedelta(microseconds=unix_ns // 1000)


def _units(unit: str, limit: Any) -> int:
    """The limit in the recorder's unit: pico-dollars, tokens, calls."""
    try:
        if isinstance(limit, bool):
            raise TypeError
        if unit == "usd":
            exact = Decimal(str(limit)) * PICO
            whole = int(exact) if exact.is_finite() else 0
        else:
            whole = operator.index(limit)
    except (TypeError, ValueError, InvalidOperation):
        whole = 0
    if not 1 <= whole <= _LIMIT:
        what = (
            "US dollars above 0, up to 9 million"
            if unit == "usd"
            else f"a whole number of {unit}, 1 or more"
        )
        raise ConfigError(f"{unit} = {limit!r}: must be {what}")
    return whole


def _scope(scope: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    checked = {}
    for key, value in scope.items():
        values = (value,) if isinstance(value, str) else value
        if (
            not isinstance(key, str)
            or not isinstance(values, Collection)
            or not values
            or not all(isinstance(v, str) for v in values)
        ):
            raise ConfigError(
                f"scope[{key!r}] = {value!r}: must be a text or several, e.g. {{'model': 'gpt-4o'}}"
            )
        checked[key] = tuple(values)
    return checked


def _fractions(at: Iterable[float]) -> tuple[float, ...]:
    try:
        fractions = tuple(sorted({float(fraction) for fraction in at}))
    except (TypeError, ValueError):
        fractions = (0.0,)
    if len(fractions) > _MOST_THRESHOLDS or not all(0 < f <= 1 for f in fractions):
        raise ConfigError(f"at = {at!r}: must be up to 8 fractions above 0, up to 1.0")
    return fractions
