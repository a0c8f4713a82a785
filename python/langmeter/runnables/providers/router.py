"""The choice of providers for a call, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from langmeter._base.scope import covers_model, looks_at_runs
from langmeter._base.text import short_name
from langmeter.budgets import Budget, Ledger
from langmeter.callbacks.base import Callback
from langmeter.runnables.models import read_names
from langmeter.runnables.providers.circuit import Circuit, HealthOptions, State
from langmeter.runnables.providers.decisions import DecisionLog, Preview
from langmeter.runnables.providers.figures import LiveFigures
from langmeter.runnables.providers.policies import Known, Policy
from langmeter.runnables.providers.request import CHARACTERS_A_TOKEN, MARKS, Request
from langmeter.snapshot.state import CircuitState, DecisionState, Part
from langmeter.usage.token_counters import ratio_of

#: Decisions of a manager in a snapshot.
_LAST: Final = 20
#: Characters of the obstacles of a decision there.
_MAX_TEXT: Final = 500


class Provider:
    """One provider: its model, its circuit, and what its profile says that it cannot do.

    Attributes:
        name: as the manager's user calls it.
        model: its chat model.
        names: as figures and prices name it.
        circuit: its health.
        foreign: cache marks that it does not know.
        context: most tokens of a prompt, inf where unknown.
        sees: whether it may take images.
        ratio: tokens of the model for each of OpenAI's, by family.
    """

    __slots__ = (
        "budgets",
        "circuit",
        "context",
        "foreign",
        "model",
        "name",
        "names",
        "ratio",
        "sees",
    )

    def __init__(
        self, name: str, model: BaseChatModel, health: HealthOptions, clock: Callable[[], float]
    ) -> None:
        self.name, self.model, self.names = name, model, read_names(model)
        self.circuit = Circuit(health, clock)
        profile = self.profile
        self.context: float = profile.get("max_input_tokens") or inf
        self.sees: bool = profile.get("image_inputs") is not False
        self.ratio = ratio_of(self.names.model)
        vendor = self.names.vendor or self.names.provider
        self.foreign = frozenset(mark for mark, vendors in MARKS.items() if vendor not in vendors)
        #: The blocking budgets that cover all of its calls; None before the first call.
        self.budgets: tuple[Budget, ...] | None = None

    @property
    def profile(self) -> Mapping[str, Any]:
        """LangChain's profile of the model, empty where there is none."""
        return profile_of(self.model) or {}


def profile_of(model: BaseChatModel) -> dict[str, Any] | None:
    """Return LangChain's profile of a model; None if it has none.

    With langchain-core 1.0 no model has one: there it is a property in beta, which raises where a
    package of LangChain's is not installed.
    """
    profile = model.profile if "profile" in type(model).model_fields else None
    return dict(profile) if isinstance(profile, dict) else None


class Router:
    """Chooses among providers; what managers with different tools share."""

    def __init__(
        self,
        models: Mapping[str, BaseChatModel],
        policy: Policy,
        meter: Callback | None,
        *,
        health: HealthOptions,
        on_budget: str,
        wait: float,
        refresh: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.providers = {
            name: Provider(name, model, health, clock) for name, model in models.items()
        }
        self.policy, self.on_budget, self.wait = policy, on_budget, wait
        self.clock = clock
        names = {name: provider.names for name, provider in self.providers.items()}
        self.live = LiveFigures(meter, names, refresh)
        circuits = {name: provider.circuit for name, provider in self.providers.items()}
        self.known = Known(self.live, circuits)
        self.log = DecisionLog()
        self.meter = meter
        self.looks_at_defects = policy.name == "best_fix_rate"
        if meter is not None:
            meter._services.states.add(self, _state)
        self._is_measured = policy.name != "priority"
        self._names = tuple(self.providers)
        self._has_limits = any(
            each.context != inf or not each.sees for each in self.providers.values()
        )

    def __deepcopy__(self, memo: object) -> Router:
        return self  # a copy of a manager shares its health and its figures

    @property
    def type_key(self) -> str:
        """Key of a run's metadata that has the type of a defect."""
        defects = None if self.meter is None else self.meter._services.defects
        return "type" if defects is None else defects.names[1]

    def usual_order(self, request: Request) -> tuple[tuple[str, ...], str] | None:
        """Return what `ranked` does where all providers are healthy and nothing limits them.

        None where more has to be looked at. It is what nearly every call finds.
        """
        meter = self.meter
        if self._has_limits or (meter is not None and meter._services.ledger is not None):
            return None
        for provider in self.providers.values():
            if not provider.circuit.is_ready:
                return None
        return self.ranked(self._names, request, self.log.next_turn)

    def obstacles(self, request: Request, missing: Mapping[str, str]) -> dict[str, str]:
        """Return the providers that cannot take a call, circuits apart, and why."""
        obstacles = dict(missing) if missing else {}
        if self._has_limits:
            for name, provider in self.providers.items():
                if request.images and not provider.sees:
                    obstacles[name] = "images"
                # By the usual length of a token; what is close decides the provider itself.
                elif request.characters / CHARACTERS_A_TOKEN * provider.ratio > provider.context:
                    obstacles[name] = "context"
        if self.meter is not None and (ledger := self.meter._services.ledger) is not None:
            for name in self._spent(ledger):
                obstacles.setdefault(name, "budget")
        return obstacles

    def _spent(self, ledger: Ledger) -> Iterable[str]:
        """Return the providers of which a blocking budget has nothing left."""
        spent = {budget for budget in ledger.budgets if is_blocking(budget)}
        spent = {budget for budget in spent if not budget.remaining}
        if not spent:
            return ()
        return [
            name
            for name, provider in self.providers.items()
            if any(budget in spent for budget in self.budgets_of(provider))
        ]

    def budgets_of(self, provider: Provider) -> tuple[Budget, ...]:
        """Return the blocking budgets that cover every call of a provider."""
        if provider.budgets is None:
            ledger = None if self.meter is None else self.meter._services.ledger
            budgets = () if ledger is None else ledger.budgets
            names = provider.names
            provider.budgets = tuple(
                budget
                for budget in budgets
                if is_blocking(budget)
                and covers_model(budget.scope, names.provider, names.model, names.vendor)
            )
        return provider.budgets

    def ranked(
        self, names: tuple[str, ...], request: Request, turn: Callable[[], int]
    ) -> tuple[tuple[str, ...], str]:
        """Return providers best first, and why the first of them is that."""
        if len(names) < 2:
            return names, "policy"
        order, ties, why = names, 1, "policy"
        if self._is_measured:
            if not self.live.is_priced:
                self.live.read_prices()
            order, ties = self.policy.order(names, request, self.known)
        if ties > 1:
            place = turn() % ties
            order = (*order[place:ties], *order[:place], *order[ties:])
            why = "rotated"
        sticky = self.log.provider_of(request.thread) if request.thread else ""
        if sticky in names and self._holds(sticky, order[0], request):
            order = (sticky, *(name for name in order if name != sticky))
            why = "sticky"
        return order, why

    def _holds(self, sticky: str, other: str, request: Request) -> bool:
        """Whether another provider is dearer by what the cache of this one is worth."""
        figures = self.known.figures(sticky)
        if not figures.cached:
            return False
        if sticky == other:
            return True
        stay = figures.cost(request.characters, figures.cached)
        switch = self.known.figures(other).cost(request.characters)
        return stay is None or switch is None or stay <= switch

    def preview(self, request: Request, missing: Mapping[str, str]) -> Preview:
        """Return where a call would go, without a decision."""
        obstacles = self.obstacles(request, missing)
        for name, provider in self.providers.items():
            if reason := provider.circuit.reason:
                obstacles.setdefault(name, reason)
        names = tuple(name for name in self.providers if name not in obstacles)
        order, why = self.ranked(names, request, lambda: self.log.turn)
        costs = {
            name: self.known.figures(name).cost(
                request.characters, self.known.figures(name).cached if name == order[0] else 0.0
            )
            for name in order
        }
        return Preview(order, why if order else "none", obstacles, costs)

    def states(self) -> dict[str, str]:
        """Return what the circuit of each provider says."""
        half = {State.HALF_OPEN: "half-open"}
        circuits = self.known.circuits.items()
        return {name: c.reason or half.get(c.state, "ready") for name, c in circuits}


def _state(router: Router) -> Iterable[Part]:
    """Return the circuits and last decisions of a router, as snapshots have them."""
    policy, now = router.policy.name, datetime.now(UTC)
    for name, state in router.states().items():
        seconds = router.known.circuits[name].returns_in
        until = now + timedelta(seconds=seconds) if 0 < seconds < inf else None
        yield CircuitState(policy, short_name(name), state, until)
    for decision in router.log.last[-_LAST:]:
        obstacles = ", ".join(f"{name}: {why}" for name, why in decision.obstacles.items())
        yield DecisionState(
            policy,
            short_name(decision.provider),
            decision.why,
            decision.attempt,
            obstacles[:_MAX_TEXT],
        )


def is_blocking(budget: Budget) -> bool:
    """Return whether a budget may refuse calls, whatever their tags and metadata."""
    return budget.action == "block" and not looks_at_runs(budget.scope)
