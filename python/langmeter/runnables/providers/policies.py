"""Policies: in which order the providers that can take a call are asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from langmeter._base.check import real_number, refusal
from langmeter._base.log import log
from langmeter.errors import ConfigError
from langmeter.runnables.providers.circuit import Circuit
from langmeter.runnables.providers.figures import Figures, LiveFigures
from langmeter.runnables.providers.request import Request
from langmeter.snapshot import Snapshot

#: Given the live snapshot and the names that can take the call, one of them or several in order.
PolicyFunction: TypeAlias = Callable[[Snapshot, tuple[str, ...]], str | Sequence[str]]
#: What `ProviderManager(policy=…)` takes.
PolicySource: TypeAlias = str | Mapping[str, float] | PolicyFunction

#: Values within this share of the best one are equal.
_TIE: Final = 0.1
_NO_FIGURES: Final = Figures()
_MAX_ORDERS: Final = 1024


class Order(NamedTuple):
    """Providers in the order in which they are asked; the first `ties` are equally good."""

    names: tuple[str, ...]
    ties: int = 1


class Known(NamedTuple):
    """The figures that policies look at."""

    live: LiveFigures
    circuits: Mapping[str, Circuit]

    def figures(self, name: str) -> Figures:
        """Return the figures of a provider."""
        return self.live.of.get(name, _NO_FIGURES)


class Policy(Protocol):
    """Puts the providers that can take a call in order.

    Attributes:
        name: as `explain()` has it.
        needs_meter: whether it looks at what a meter measured.
    """

    name: str
    needs_meter: bool

    def order(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        """Return the names, best first."""
        ...


class _Priority:
    """In the order in which the manager was given them."""

    name, needs_meter = "priority", False

    def order(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        return Order(names)


class _ByValue:
    """By a measured value. Without one a provider is a tie, so that it is tried, or the last.

    Orders are kept until the figures are read again, by what of a request the value depends on.
    """

    def __init__(
        self,
        name: str,
        value: Callable[[str, Request, Known], float | None],
        *,
        highest: bool = False,
        explores: bool = True,
        needs_meter: bool = True,
        by: Callable[[Request], object] | None = None,
    ) -> None:
        self.name, self.needs_meter = name, needs_meter
        self._by = by
        self._orders: dict[object, Order] = {}
        self._figures: object = None
        self._value, self._sign, self._explores = value, -1.0 if highest else 1.0, explores

    def order(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        if self._by is None:
            return self._ranked(names, request, known)
        if self._figures is not known.live.of or len(self._orders) >= _MAX_ORDERS:
            self._figures, self._orders = known.live.of, {}
        key = names, self._by(request)
        order = self._orders.get(key)
        if order is None:
            order = self._orders[key] = self._ranked(names, request, known)
        return order

    def _ranked(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        ranked: list[tuple[float, int]] = []
        unknown = []
        for place, name in enumerate(names):
            value = self._value(name, request, known)
            if value is None:
                unknown.append(name)
            else:
                ranked.append((self._sign * value, place))
        if not ranked:
            return Order(names, len(names))
        ranked.sort()
        best = ranked[0][0]
        limit = best + _TIE * abs(best)
        ties = 1
        while ties < len(ranked) and ranked[ties][0] <= limit:
            ties += 1
        order = [names[place] for _, place in ranked]
        if self._explores and unknown:
            return Order((*order[:ties], *unknown, *order[ties:]), ties + len(unknown))
        return Order((*order, *unknown), ties)


class _Weights:
    """At random, in proportion to weights; those of weight 0 come last."""

    name, needs_meter = "weights", False

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights

    def order(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        # The least of exponential times of these rates is each with its share of the weights.
        weights = self._weights
        times = {
            name: random.expovariate(weights[name]) if weights.get(name) else float("inf")
            for name in names
        }
        return Order(tuple(sorted(names, key=times.__getitem__)))


class _Function:
    """By a function of the user; in the given order where it raises or names no provider."""

    needs_meter = True

    def __init__(self, function: PolicyFunction) -> None:
        self.name = "function"
        self._function = function
        self._reported = False

    def order(self, names: tuple[str, ...], request: Request, known: Known) -> Order:
        try:
            answer = self._function(known.live.snapshot, names)
            wanted = [answer] if isinstance(answer, str) else list(answer)
            first = [name for name in dict.fromkeys(wanted) if name in names]
            if not first:
                raise ValueError(f"it must return names of {names}, got {answer!r}")
        except Exception as exc:
            if not self._reported:
                self._reported = True
                log.warning(
                    "the policy of a ProviderManager failed; providers are asked in the given "
                    "order, and further failures are not logged",
                    exc_info=exc,
                )
            return Order(names)
        return Order((*first, *(name for name in names if name not in first)))


def _cost(name: str, request: Request, known: Known) -> float | None:
    figures = known.figures(name)
    return figures.cost(request.characters, figures.cached)


def _seconds(name: str, request: Request, known: Known) -> float | None:
    figures = known.figures(name)
    first_token = figures.first_token if request.streamed else None
    return figures.latency if first_token is None else first_token


def _health(name: str, request: Request, known: Known) -> float | None:
    calls, failures = known.circuits[name].recent
    return 1 - failures / calls if calls else None


def _fix_rate(name: str, request: Request, known: Known) -> float | None:
    return known.figures(name).fixes.get(request.defect_type)


def _size(request: Request) -> int:
    """Return the length of the prompt to five binary digits, within 3 %."""
    bits = request.characters.bit_length()
    return request.characters >> max(0, bits - 5) << 8 | bits


_BY_NAME: Final[Mapping[str, Callable[[], Policy]]] = {
    "priority": _Priority,
    "cheapest": lambda: _ByValue("cheapest", _cost, explores=False, by=_size),
    "fastest": lambda: _ByValue("fastest", _seconds, by=lambda request: request.streamed),
    "healthiest": lambda: _ByValue("healthiest", _health, highest=True, needs_meter=False),
    "best_fix_rate": lambda: _ByValue(
        "best_fix_rate", _fix_rate, highest=True, by=lambda request: request.defect_type
    ),
}


def policy_of(source: Any, names: Sequence[str], *, metered: bool) -> Policy:
    """Return the policy of a name, a mapping of weights, or a function.

    Raises:
        ConfigError: it is none of them, a weight is negative or of no provider, or it needs a
            meter.
    """
    policy: Policy
    if isinstance(source, str) and source in _BY_NAME:
        policy = _BY_NAME[source]()
    elif isinstance(source, Mapping):
        policy = _Weights(_checked(source, names))
    elif callable(source):
        policy = _Function(source)
    else:
        allowed = f"one of {', '.join(_BY_NAME)}, a mapping of weights, or a function"
        raise refusal("policy", allowed, source, "pass e.g. policy='cheapest'")
    if policy.needs_meter and not metered:
        raise ConfigError(
            f"policy {policy.name!r} must have measurements, got no meter; pass meter=Meter()"
        )
    return policy


def _checked(weights: Mapping[Any, Any], names: Sequence[str]) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in names:
            raise refusal("policy", f"weights of {', '.join(names)}", name)
        real_number(f"policy[{name!r}]", weight, 0)
    if not any(weights.values()):
        raise refusal("policy", "weights of which one is above 0", dict(weights))
    return {name: float(weight) for name, weight in weights.items()}
