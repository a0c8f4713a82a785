"""What a snapshot says about spending less: findings, each with its figures.

A snapshot holds sums of calls. What it cannot know is never guessed: a saving is exact for the same
token counts, or a bound that says so and names what it assumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from langmeter import _table
from langmeter.analysis.family import Line, line, may_replace
from langmeter.analysis.traffic import Traffic, traffic
from langmeter.prices import PriceBook, RateCard, usd
from langmeter.prices.book import Moment
from langmeter.prices.catalogue import find, snapshot as catalogue
from langmeter.prices.names import canonical, catalogue_id
from langmeter.snapshot import Snapshot

#: How a saving is meant.
Bound: TypeAlias = Literal["exactly", "at least", "at most"]
Figure: TypeAlias = int | float | Decimal

#: Siblings shown for a model: the cheapest of each size, the cheapest sizes first.
_SIBLINGS: Final = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the traffic says.

    Attributes:
        kind: alternative_model, prompt_caching, unread_cache, service_tier, reasoning or unfinished.
        title: one line for people.
        provider, model: whose traffic it is about.
        figures: what it rests on, by name; `…_usd` in US dollars, `…_share` from 0 to 1, else
            tokens or calls.
        saving: US dollars that this traffic would have cost less; negative when it would have cost
            more, None when the snapshot cannot tell.
        bound: whether that is exact, the least or the most.
        assumption: what has to hold for it; "" when nothing.
    """

    kind: str
    title: str
    provider: str
    model: str
    figures: Mapping[str, Figure] = field(hash=False)
    saving: Decimal | None = None
    bound: Bound = "exactly"
    assumption: str = ""

    def __str__(self) -> str:
        saved = "" if self.saving is None else f"{self.bound} {_table.money(self.saving)}: "
        lines = [
            f"{saved}{self.title}",
            *([f"  if {self.assumption}"] if self.assumption else []),
            *(f"  {name:<26}{_figure(name, value)}" for name, value in self.figures.items()),
        ]
        return "\n".join(lines)


def advise(
    snapshot: Snapshot,
    *,
    prices: PriceBook | None = None,
    alternatives: Iterable[str | tuple[str, str]] = (),
) -> list[Finding]:
    """Findings about the traffic of a snapshot, the greatest saving first, None last.

    `alternatives`: models to compare every model with, as `provider/model` or a pair, beside those
    of its own family on the same provider's price list. Prices are those at the snapshot's end. The
    first call loads the price catalogue. Raises ValueError for an alternative that has no price.
    """
    book = PriceBook() if prices is None else prices
    at = snapshot.taken_at
    named = [_named(book, name, at) for name in alternatives]
    findings: list[Finding] = []
    for (provider, model), stats in snapshot.models.items():
        found = traffic(provider, model, stats, book.card(provider, model, at=at))
        for check in _CHECKS:
            findings.extend(check(found))
        if found.calls:
            findings.extend(_alternatives(found, named))
            if found.card is not None:
                findings.extend(_service_tiers(found, book, at))
                findings.extend(_siblings(found, book, at))
    return sorted(findings, key=_order)


def text(findings: Iterable[Finding]) -> str:
    """Findings as plain text, numbered."""
    shown = [f"{number}. {finding}" for number, finding in enumerate(findings, 1)]
    return "\n\n".join(shown) if shown else "nothing found to save"


def _order(finding: Finding) -> tuple[bool, Decimal, str, str]:
    saving = finding.saving
    return saving is None, -(saving or Decimal(0)), finding.title, finding.kind


def _figure(name: str, value: Figure) -> str:
    if isinstance(value, Decimal):
        return _table.money(value)
    return f"{value:.1%}" if name.endswith("_share") else f"{value:,}"


def _finding(
    found: Traffic,
    kind: str,
    title: str,
    figures: Mapping[str, Figure],
    *,
    saving: int | None = None,
    bound: Bound = "exactly",
    assumption: str = "",
) -> Finding:
    estimated = found.stats.tokens.estimated
    return Finding(
        kind,
        f"{found.name}: {title}",
        found.provider,
        found.model,
        MappingProxyType(
            {
                "calls": found.stats.calls,
                **figures,
                **({"estimated_tokens": estimated} if estimated else {}),
            }
        ),
        None if saving is None else usd(saving),
        bound,
        assumption,
    )


# --- other models -------------------------------------------------------------------------------


class _Candidate(tuple[str, RateCard]):
    __slots__ = ()


def _named(
    book: PriceBook, name: str | tuple[str, str], at: Moment | None
) -> tuple[str, str, RateCard]:
    provider, slash, model = name.partition("/") if isinstance(name, str) else (name[0], "/", name[1])
    if not (provider and slash and model):
        raise ValueError(
            f'alternative {name!r} must be "provider/model", e.g. "openai/gpt-4o-mini"'
        )
    card = book.card(provider, model, at=at)
    if card is None:
        raise ValueError(
            f"no price is known for the alternative {provider}/{model}; check the name with "
            f"`langmeter prices {model} --provider {provider}` or give a price of your own"
        )
    return canonical(provider), model, card


def _alternatives(
    found: Traffic, named: Iterable[tuple[str, str, RateCard]]
) -> Iterator[Finding]:
    for provider, model, card in named:
        same = found.card is not None and found.card[2:4] == card[2:4]
        if not same and _comparable(found, card):
            yield _moved(found, f"{provider}/{model}", card, "named by you")


def _siblings(found: Traffic, book: PriceBook, at: Moment | None) -> Iterator[Finding]:
    """The cheapest of each size in the family, where it would surely have cost less."""
    data, provider = catalogue(), canonical(found.provider)
    listing = data and find(data, catalogue_id(provider), found.model)
    if not listing or found.cost is None:
        return
    current = line(listing.model.id)
    cheapest: dict[Line | frozenset[str], tuple[int, str, RateCard, Line]] = {}
    mean_input = found.stats.tokens.input / found.calls
    for other in listing.provider.models:
        parts = line(other.id)
        fits = other.context_window is None or other.context_window > mean_input
        if other.id == listing.model.id or other.deprecated or not fits:
            continue
        if not may_replace(parts, current):
            continue
        card = book.card(found.provider, other.id, at=at)
        # An id that finds another entry has no price of its own to compare with.
        if card is None or card.model != other.id.lower() != other.id or not _comparable(found, card):
            continue
