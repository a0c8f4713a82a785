"""A rate card: what one model costs, as integers; `_core.RateCard` turns counts into money.

The unit is the pico-dollar (1e-12 USD): one USD per million tokens is 1,000,000 of them per token.
Of the 2,330 models of genai-prices 0.2.3 all but 23 have whole rates in it, the highest 3.5e10 (one
web search). Those 23 (0.0833333333333333 USD per million, 0.18000000000000002) use `scale` parts of
a pico-dollar, so that rounding happens once, at the end; their sums need 128 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import inf, lcm
from typing import Any, Final, NamedTuple, TypeAlias

from langmeter import _core
from langmeter._base.money import EXACT, PICO, usd

__all__ = ["EXACT", "KINDS", "PER_UNIT", "PICO", "Band", "Prices", "RateCard", "build_bands", "usd"]


class Band(NamedTuple):
    """Rates of all tokens of a call with more than `above` input tokens, in 1/scale pico-dollars.

    Every rate is filled in: a kind that has no price of its own has the rate of the kind it is part
    of.
    """

    above: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    audio_input: int
    audio_output: int
    image_input: int
    image_output: int
    video_input: int
    video_output: int
    cached_audio: int
    cached_image: int
    citation: int
    web_search: int
    file_search: int
    request: int


#: Kinds of rate, in the order of `Band`.
KINDS: Final = Band._fields[1:]

#: What a rate applies to; USD per million tokens is the field's way of writing a price per token.
PER_UNIT: Final = frozenset({"web_search", "file_search", "request"})

#: A kind without a price is charged as the one it is part of; these two only by what was asked for.
_PART_OF: Final = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "audio_input": "input",
    "audio_output": "output",
    "image_input": "input",
    "image_output": "output",
    "video_input": "input",
    "video_output": "output",
    "citation": "output",
}

#: Numbers of a usage that cost something: input to file_searches.
COUNTS: Final = 18

#: Kind → ((above, pico-dollars per unit), …), ascending, the first above -1.
Prices: TypeAlias = Mapping[str, Sequence[tuple[int, Fraction]]]


class _RateCard(NamedTuple):
    bands: tuple[Band, ...]
    """Ascending; the first is above -1. The last whose `above` is exceeded applies to the whole
    call.
    """
    scale: int
    """Parts of a pico-dollar the rates are counted in; 1 for nearly all models."""
    provider: str
    """Provider that charges: the catalogue's id, or langmeter's for own prices."""
    model: str
    """The model the price is listed under, not the name that was asked for."""
    source: str
    """`genai-prices 0.2.3`, `own`, `litellm`, `default`, with the file where there is one."""
    date: str = ""
    """ISO date this price took effect or was noted; "" when the source does not say."""
    tier: str = ""
    """The service tier whose price this is; "" when standard prices apply."""
    valid_from: float = -inf
    """Unix seconds, inclusive."""
    valid_until: float = inf
    """Unix seconds, exclusive."""
    priced: tuple[str, ...] = KINDS
    """Kinds with a price of their own, in the order of `KINDS`."""
    uncounted: tuple[tuple[str, str], ...] = ()
    """Charges on top that no token count shows: (catalogue's price key, USD), e.g. audio by
    the hour.
    """


class RateCard(_RateCard):
    """Plain data: what a model costs, from when to when, and who says so."""

    @cached_property
    def native(self) -> _core.RateCard:
        """Return these rates for the native arithmetic."""
        bands = [(band.above, band[1:]) for band in self.bands]
        return _core.RateCard(bands, self.scale, self.valid_from, self.valid_until)

    def cost(self, usage: tuple[Any, ...]) -> int:
        """Return the pico-dollars of one call, half a one rounded to even.

        `usage` begins with input, output, total, cache_read, cache_write, cache_write_1h,
        reasoning, audio_input, audio_output, image_input, image_output, video_input, video_output,
        cached_audio, cached_image, citation, web_searches, file_searches: integers from 0 to
        2^63 - 1, inclusive (cache and audio are part of input). Counts that contradict each other
        never raise: the parts are charged, and a whole is at least the sum of its parts.
        """
        return self.native.cost(usage)

    def usd_rate(self, kind: str, band: int = 0) -> Decimal:
        """Price of a kind in USD: per million tokens, or each for searches and requests."""
        rate = Fraction(getattr(self.bands[band], kind), self.scale)
        exact = rate / PICO if kind in PER_UNIT else rate / 10**6
        return EXACT.divide(Decimal(exact.numerator), Decimal(exact.denominator))


def build_bands(prices: Prices) -> tuple[tuple[Band, ...], int]:
    """Bands and scale from exact prices; kinds left out take the price of what they are part of."""
    starts = sorted({-1, *(above for tiers in prices.values() for above, _ in tiers)})
    table = [_fill({kind: _at(tiers, start) for kind, tiers in prices.items()}) for start in starts]
    scale = lcm(*(rate.denominator for row in table for rate in row))
    bands = tuple(
        Band(start, *(int(rate * scale) for rate in row))
        for start, row in zip(starts, table, strict=True)
    )
    return bands, scale


def _at(tiers: Sequence[tuple[int, Fraction]], start: int) -> Fraction:
    return [price for above, price in tiers if above <= start][-1]


def _fill(row: dict[str, Fraction]) -> list[Fraction]:
    full = dict(row)
    for kind in KINDS:
        if kind not in full and kind not in ("cached_audio", "cached_image"):
            full[kind] = full[_PART_OF[kind]] if kind in _PART_OF else Fraction(0)
    for cached, medium in (("cached_audio", "audio_input"), ("cached_image", "image_input")):
        if cached not in full:
            full[cached] = full["cache_read" if "cache_read" in row else medium]
    return [full[kind] for kind in KINDS]
