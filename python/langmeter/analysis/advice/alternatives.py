"""The same traffic at other models' prices: those of the family, and those the user names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from langmeter._base.provider_names import catalogue_id, provider_name
from langmeter.analysis.advice.finding import Bound, Finding, costs, finding
from langmeter.analysis.advice.model_family import is_successor, model_name
from langmeter.analysis.advice.traffic import Traffic
from langmeter.prices import PriceBook, RateCard, catalogue
from langmeter.prices.book import Moment

#: Relatives shown of a model: of each size the cheapest, and of those the cheapest.
_RELATIVES: Final = 3


class Other(NamedTuple):
    """A model to compare with."""

    provider: str
    model: str
    card: RateCard


def named(book: PriceBook, name: str | tuple[str, str], at: Moment | None) -> Other:
    """Return a model by its name; ValueError if it is not `provider/model` or has no price."""
    provider, model = (*name.split("/", 1), "")[:2] if isinstance(name, str) else name
    if not (provider and model):
        raise ValueError(
            f'alternative {name!r} must be "provider/model", e.g. "openai/gpt-4o-mini"'
        )
    card = book.card(provider, model, at=at)
    if card is None:
        raise ValueError(
            f"no price is known for the alternative {provider}/{model}; "
            "correct its name or give a price of your own"
        )
    return Other(provider_name(provider), model, card)


def compared(found: Traffic, others: Iterable[Other]) -> Iterator[Finding]:
    """Return the costs with the models named by the user, also where they are higher."""
    for other in others:
        card = found.card
        same = card and (card.provider, card.model) == (other.card.provider, other.card.model)
        if not same and _comparable(found, other.card):
            yield _moved(found, other)


def relatives(found: Traffic, book: PriceBook, at: Moment | None) -> Iterator[Finding]:
    """The cheapest of each size in the model's family, where it would surely have cost less.

    The family is on the same provider's price list, not deprecated, of the same or a newer version,
    and its context window holds the mean call.
    """
    data = catalogue.current()
    ours = provider_name(found.provider)
    listing = data and catalogue.find(data, catalogue_id(ours), found.model)
    if not listing or found.cost is None:
        return
    current = model_name(listing.model.id)
    mean_input = found.stats.tokens.input / found.calls
    cheapest: dict[frozenset[str], tuple[int, Other]] = {}
    for listed in listing.provider.models():
        candidate = model_name(listed.id)
        too_small = listed.context_window is not None and listed.context_window < mean_input
        if listed == listing.model or listed.deprecated or too_small:
            continue
        if not is_successor(candidate, current):
            continue
        card = book.card(found.provider, listed.id, at=at)
        # A name that finds another entry of the list has no price of its own.
        if card is None or card.model.lower() != listed.id.lower():
            continue
        highest = found.at(card).high
        known = cheapest.get(candidate.sizes)
        # A price of 0 is a trial or a gap in the list, nothing to plan with.
        if highest and _comparable(found, card) and (known is None or highest < known[0]):
            cheapest[candidate.sizes] = (highest, Other(found.provider, listed.id, card))
    for highest, other in sorted(cheapest.values())[:_RELATIVES]:
        if highest < found.cost.low:
            yield _moved(found, other)


def _comparable(found: Traffic, card: RateCard) -> bool:
    """False between a model that writes and one that only reads: an embedding model."""
    band = card.bands[0]
    if found.stats.tokens.output:
        return bool(band.output or not band.input)
    return not band.output


def _moved(found: Traffic, other: Other) -> Finding:
    instead = found.at(other.card)
    saving = None
    bound: Bound = "exactly"
    if found.cost is not None:
        saving = found.cost.low - instead.high
        bound = "exactly" if found.cost.high - instead.low == saving else "at least"
    return finding(
        found,
        "alternative_model",
        f"the same traffic on {'/'.join(filter(None, other[:2]))}",
        {
            "input_tokens": found.stats.tokens.input,
            "output_tokens": found.stats.tokens.output,
            **(costs("cost", found.cost) if found.cost else {}),
            **costs("other_cost", instead),
        },
        saving=saving,
        bound=bound,
        assumption="it needs as many tokens and caches as well; "
        "whether its answers are as good, only a test tells",
    )
