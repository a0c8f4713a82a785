"""The attempts at one call: which provider is asked next, how long to wait, when to give up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Final

from langmeter.errors import BudgetExceeded, NoProviderError
from langmeter.runnables.providers.circuit import Circuit
from langmeter.runnables.providers.decisions import Decision
from langmeter.runnables.providers.failures import Kind, kind_of, retry_after
from langmeter.runnables.providers.request import Request
from langmeter.runnables.providers.router import Provider, Router

#: Seconds of the longest sleep before circuits are looked at again.
_STEP: Final = 0.25
#: Errors of a request itself: with no other one a call does not wait for a provider to return.
_HOPELESS: Final = (Kind.REQUEST, Kind.CONTEXT)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Route:
    """The attempts at one call.

    `next()` begins an attempt; the end of a block `with route:`, or `succeeded`, `failed` or
    `released`, ends it.

    Attributes:
        provider: that of the attempt at hand.
        attempts: how many attempts have begun.
    """

    __slots__ = (
        "_deadline",
        "_dearest",
        "_errors",
        "_missing",
        "_permit",
        "_ready",
        "_router",
        "_tried",
        "attempts",
        "provider",
        "request",
    )

    provider: Provider

    def __init__(self, router: Router, request: Request, missing: Mapping[str, str]) -> None:
        self._router, self.request, self._missing = router, request, missing
        self._tried: dict[str, Kind] = {}
        self._errors: list[tuple[str, Exception]] = []
        self._deadline: float | None = None
        #: What the call costs where a budget refused it; only cheaper providers are asked.
        self._dearest: float | None = None
        #: The answer of `next`, where it is known already.
        self._ready: float | None = None
        self._permit = self.attempts = 0

    def next(self) -> float:
        """Begin an attempt and return 0.0, or the seconds to wait before this is called again.

        Raises:
            BudgetExceeded: budgets have nothing left for any of the providers that could.
            NoProviderError: no provider can take the call, and none comes back in time. After an
                attempt its error instead.
        """
        seconds, self._ready = self._ready, None
        if seconds is None:
            seconds = self._usual() if not (self.attempts or self._missing) else self._choose()
        if seconds is None:
            raise self._refusal()
        return seconds

    def __enter__(self) -> None:
        """Begin the block of an attempt, which ends it; an error after which one follows stays."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            return self.failed(error)
        self.succeeded()
        return False

    def succeeded(self) -> None:
        """Count an answer."""
        permit, self._permit = self._permit, 0
        self.provider.circuit.succeeded(permit)
        router = self._router
        if self.request.thread:
            router.log.remember(self.request.thread, self.provider.name)
        if not router.live.is_stale:
            router.live.touch()

    def released(self) -> None:
        """End an attempt that was given up; does nothing after its end."""
        permit, self._permit = self._permit, 0
        if permit:
            self.provider.circuit.released(permit)

    def failed(self, error: BaseException, *, may_go_on: bool = True) -> bool:
        """Count an error, and return whether there is another attempt.

        Else the error is to be raised, and has the earlier ones as notes.
        """
        permit, self._permit = self._permit, 0
        kind = kind_of(error)
        if kind is Kind.CANCELLED or not isinstance(error, Exception):
            self.provider.circuit.released(permit)
            return False
        self.provider.circuit.failed(permit, kind, retry_after(error))
        self._router.live.touch()
        name = self.provider.name
        self._tried[name] = kind
        if may_go_on and (kind is not Kind.BUDGET or self._seeks_cheaper()):
            self._ready = self._choose()
            if self._ready is not None:
                self._errors.append((name, error.with_traceback(None)))
                return True
        _add_notes(error, self._errors)
        return False

    def _seeks_cheaper(self) -> bool:
        """After a budget's refusal: whether cheaper providers are to be asked."""
        if self._router.on_budget == "cheaper":
            self._dearest = self._cost(self.provider.name)
        return self._dearest is not None

    def _cost(self, name: str) -> float | None:
        return self._router.known.figures(name).cost(self.request.characters)

    def _usual(self) -> float | None:
        """Begin the first attempt where all providers are healthy and nothing limits them."""
        usual = self._router.usual_order(self.request)
        if usual is None or not self._begin(usual[0][0], usual[1], _NOTHING):
            return self._choose()
        return 0.0

    def _begin(self, name: str, why: str, obstacles: Mapping[str, str]) -> bool:
        """Begin an attempt at a provider, unless its circuit refuses."""
        router = self._router
        provider = router.providers[name]
        permit = provider.circuit.admit()
        if not permit:
            return False
        self.attempts += 1
        self.provider, self._permit = provider, permit
        why = "probe" if permit > 1 else why
        router.log.add(Decision(name, why, self.attempts, obstacles))
        return True

    def _choose(self) -> float | None:
        router = self._router
        obstacles = router.obstacles(self.request, self._missing)
        waiting: list[Circuit] = []
        names = []
        for name, provider in router.providers.items():
            if name in obstacles:
                continue
            if self._tried and (obstacle := self._obstacle(name)):
                obstacles[name] = obstacle
                continue
            circuit = provider.circuit
            if circuit.is_ready or not (obstacle := circuit.reason):
                names.append(name)
            else:
                obstacles[name] = obstacle
                waiting.append(circuit)
        if self._tried:  # one that was only throttled comes again after all others
            names = [name for name in names if name not in self._tried] or names
        if names:
            order, why = self._ranked(tuple(names))
            for name in order:
                if self._begin(name, why, obstacles):
                    return 0.0
                circuit = router.providers[name].circuit
                obstacles[name] = circuit.reason or "probing"
                waiting.append(circuit)
        return self._wait(waiting, obstacles)

    def _obstacle(self, name: str) -> str:
        """Why a provider is not asked again, or at all, after the attempts before."""
        if self._tried.get(name, Kind.THROTTLED) is not Kind.THROTTLED:
            return "tried"
        if self._dearest is not None:
            cost = self._cost(name)
            if cost is None or cost >= self._dearest:
                return "dearer"
        return ""

    def _ranked(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        router = self._router
        if self._dearest is not None:
            costs = {name: self._cost(name) or 0.0 for name in names}
            return tuple(sorted(names, key=costs.__getitem__)), "cheaper"
        order, why = router.ranked(names, self.request, router.log.next_turn)
        return order, "fallback" if self._tried else why

    def _wait(self, circuits: Iterable[Circuit], obstacles: dict[str, str]) -> float | None:
        """Return how long to sleep; None where none of the circuits admits the call in time."""
        router = self._router
        now = router.clock()
        begins = self._deadline is None
        if self._deadline is None:
            self._deadline = now + router.wait
        seconds = min((circuit.returns_in for circuit in circuits), default=inf)
        # A probe may end long before the time that it has.
        probing = any(circuit.reason == "probing" for circuit in circuits)
        waits = now < self._deadline if probing else now + seconds <= self._deadline
        kinds = self._tried.values()
        if seconds == inf or (kinds and all(kind in _HOPELESS for kind in kinds)):
            waits = False
        if begins or not waits:
            decision = Decision("", "wait" if waits else "none", self.attempts + 1, obstacles)
            router.log.add(decision)
        return min(max(seconds, 0.001), _STEP) if waits else None

    def _refusal(self) -> Exception:
        """Return the error of a call that no provider can take."""
        if self._errors:  # the provider that was waited for is still away
            *earlier, (_, error) = self._errors
            _add_notes(error, earlier)
            return error
        router = self._router
        obstacles = router.preview(self.request, self._missing).obstacles
        ledger = None if router.meter is None else router.meter._services.ledger
        for name, reason in obstacles.items():
            if reason == "budget" and ledger is not None:
                for budget in router.budgets_of(router.providers[name]):
                    if not budget.remaining:
                        exceeded: BudgetExceeded = ledger.exceeded(ledger.budgets.index(budget))
                        return exceeded
        circuits = [provider.circuit for provider in router.providers.values()]
        seconds = min((each.returns_in for each in circuits if each.reason), default=inf)
        return NoProviderError(obstacles, seconds)


def _add_notes(error: Exception, earlier: Iterable[tuple[str, Exception]]) -> None:
    for name, each in earlier:
        error.add_note(f"provider {name!r} failed before: {type(each).__name__}: {each}")
