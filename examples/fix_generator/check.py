"""The figures of the meter beside what the providers sent and what they know of their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal

from genai_prices import Usage, calc_price

from langmeter import Snapshot
from langmeter.testing.simulator import MODELS, Sent

from .providers import PROVIDERS, Providers

#: Outcome of an attempt by what the provider answered.
OUTCOMES = {
    "right": "fixed",
    "overfitted": "failed",
    "wrong": "failed",
    "broken": "does_not_compile",
    "prose": "unparsable",
    "down": "infrastructure",
}


def differences(
    snapshot: Snapshot, providers: Providers, refused: Mapping[str, int]
) -> Iterator[str]:
    """Yield what the meter and the providers do not agree about, one line each.

    `refused` are the attempts that the budget stopped, by type of defect.
    """
    yield from _attempts(snapshot, providers, refused)
    for name, provider in PROVIDERS.items():
        model = MODELS.get(provider.model, provider.model)
        sent = providers.truth().sent("ok", model=model)
        rows = [row for key, row in snapshot.defects.items() if key[1:3] == (name, model)]
        cost = sum((row.cost or Decimal(0) for row in rows), Decimal(0))
        for what, expected, counted in (
            ("calls", sent.calls, sum(row.calls.calls for row in rows)),
            ("input tokens", sent.input, sum(row.tokens.input for row in rows)),
            ("output tokens", sent.output, sum(row.tokens.output for row in rows)),
            ("cost", _cost(name, sent), cost),
            ("cost of the model", cost, _cost_of(snapshot, name, model)),
        ):
            if expected != counted:
                yield f"{name}: {what}: expected {expected}, counted {counted}"


def _attempts(
    snapshot: Snapshot, providers: Providers, refused: Mapping[str, int]
) -> Iterator[str]:
    """Compare the attempts by defect type, model and outcome."""
    expected = Counter({(type, "", "infrastructure"): n for type, n in refused.items()})
    for (model, defect_type, kind), n in providers.answered.items():
        # An attempt whose only call failed belongs to the model as it was requested.
        by = model if kind == "down" else MODELS.get(model, model)
        expected[defect_type, by, OUTCOMES[kind]] += n
    counted: Counter[tuple[str, str, str]] = Counter()
    for (defect_type, _, model, _), row in snapshot.defects.items():
        for outcome, n in row.outcomes.items():
            counted[defect_type, model, outcome] += n
    for key in sorted({*expected, *(+counted)}):
        if expected[key] != counted[key]:
            yield f"{key}: expected {expected[key]} attempts, counted {counted[key]}"


def _cost(name: str, sent: Sent) -> Decimal:
    """Return the price of what a provider sent: its own, or that of the package genai-prices."""
    provider = PROVIDERS[name]
    if provider.price is not None:
        per_token = [Decimal(str(price)) / 1_000_000 for price in provider.price]
        return sent.input * per_token[0] + sent.output * per_token[1]
    usage = Usage(input_tokens=sent.input, output_tokens=sent.output)
    return calc_price(usage, provider.model, provider_id="openai").total_price


def _cost_of(snapshot: Snapshot, name: str, model: str) -> Decimal:
    stats = snapshot.models.get((name, model))
    return (stats and stats.cost) or Decimal(0)
