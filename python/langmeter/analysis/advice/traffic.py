"""The traffic of one model in a snapshot, and what it would cost at other rates.

A snapshot holds sums, not calls. Rates are linear in tokens, so a sum costs what its calls cost,
save where a long call is charged at a higher band: there a cost is a range, from that of no call in
a higher band to that of every call in one.
"""

from __future__ import annotations

from typing import NamedTuple

from langmeter._base.money import EXACT
from langmeter.prices import Band, RateCard
from langmeter.snapshot import ModelStats


class Cost(NamedTuple):
    """Pico-dollars; `low` and `high` are equal where the snapshot leaves nothing open."""

    low: int
    high: int


class Traffic(NamedTuple):
    """The traffic of one model, and its cost."""

    provider: str
    model: str
    stats: ModelStats
    card: RateCard | None
    """Its standard rates; None when it has no price."""
    cost: Cost | None
    """Cost as charged; where not every call was priced, all of it at the standard rates."""
    most_input: int
    """No call had more input tokens than this."""

    @property
    def name(self) -> str:
        """Provider and model, as `provider/model`; "unknown" where neither is known."""
        return "/".join(filter(None, (self.provider, self.model))) or "unknown"

    @property
    def calls(self) -> int:
        """Calls that used tokens."""
        return used(self.stats)

    @property
    def plain_input(self) -> int:
        """Input tokens neither read from nor written to a cache."""
        tokens = self.stats.tokens
        return max(0, tokens.input - tokens.cache_read - tokens.cache_write)

    def at(self, card: RateCard) -> Cost:
        """The same traffic at other rates."""
        costs = [at_band(self.stats, card, band) for band in self.bands(card)]
        return Cost(min(costs), max(costs))

    def bands(self, card: RateCard) -> list[Band]:
        """Those bands of a card that one of the calls may have been in."""
        return [band for band in card.bands if band.above < max(1, self.most_input)]


def traffic(provider: str, model: str, stats: ModelStats, card: RateCard | None) -> Traffic:
    """The traffic of a model, from its figures and its standard rates."""
    result = Traffic(provider, model, stats, card, None, stats.tokens.input)
    if stats.cost is not None and not stats.unpriced_calls:
        charged = int(EXACT.scaleb(stats.cost, 12))
        longest = result.most_input if card is None else _longest(result, card, charged)
        return result._replace(cost=Cost(charged, charged), most_input=longest)
    return result if card is None else result._replace(cost=result.at(card))


def used(stats: ModelStats) -> int:
    """Calls that used tokens."""
    return stats.priced_calls + stats.unpriced_calls


def at_band(stats: ModelStats, card: RateCard, band: Band) -> int:
    """Return the cost of all calls in one band of a card, pico-dollars."""
    tokens = stats.tokens
    usage = (
        tokens.input,
        tokens.output,
        tokens.total,
        tokens.cache_read,
        tokens.cache_write,
        tokens.cache_write_1h,
        tokens.reasoning,
        tokens.audio_input,
        tokens.audio_output,
        tokens.image_input,
        tokens.image_output,
        tokens.video_input,
        tokens.video_output,
        tokens.cached_audio,
        tokens.cached_image,
        tokens.citation,
        stats.web_searches,
        stats.file_searches,
    )
    flat = card._replace(bands=(band._replace(above=-1, request=0),))
    return flat.cost(usage) + used(stats) * band.request // card.scale


def _longest(found: Traffic, card: RateCard, charged: int) -> int:
    """The most input tokens of a call, told by what was charged."""
    if len(found.bands(card)) > 1:
        base, above = (at_band(found.stats, card, band) for band in card.bands[:2])
        if charged == base < above:
            # To the pico-dollar what the lowest band costs: no call was above it.
            return card.bands[1].above
    return found.most_input
