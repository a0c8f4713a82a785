"""Gauges: figures that rules read of the state of processes, which no span of time has."""

from __future__ import annotations

from typing import NamedTuple

from langmeter.snapshot.state import State

__all__ = ["GaugeValue", "gauges"]

#: What a circuit says of a provider that gets calls.
_CLOSED = ("ready", "half-open")


class GaugeValue(NamedTuple):
    """A figure of the state of processes.

    Attributes:
        gauge: "budget.used" or "circuit.open".
        name: of the budget or the provider.
        value: in the unit of the gauge.
        period: names the period of a budget; a rule fires once in each.
    """

    gauge: str
    name: str
    value: float
    period: str = ""


def gauges(state: State) -> list[GaugeValue]:
    """Return the gauges of a state.

    Of a budget that several processes have it is the one that is used most; of a provider, in how
    many of them its circuit is open.
    """
    used: dict[str, GaugeValue] = {}
    for budget in state.budgets:
        value = float(budget.used / budget.limit) if budget.limit else 0.0
        if budget.name not in used or value > used[budget.name].value:
            period = budget.per if budget.resets is None else budget.resets.isoformat()
            used[budget.name] = GaugeValue("budget.used", budget.name, value, period)
    opened: dict[str, int] = {}
    for circuit in state.circuits:
        opened.setdefault(circuit.provider, 0)
        opened[circuit.provider] += circuit.state not in _CLOSED
    circuits = [GaugeValue("circuit.open", name, count) for name, count in opened.items()]
    return [*used.values(), *circuits]
