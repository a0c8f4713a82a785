"""A rate card: what one model costs, as integers, and the arithmetic that turns counts into money.

The unit is the pico-dollar (1e-12 USD): one USD per million tokens is 1,000,000 of them per token.
Of the 2,330 models of genai-prices 0.2.3 all but 23 have whole rates in it, the highest 3.5e10 (one
web search). Those 23 (0.0833333333333333 USD per million, 0.18000000000000002) use `scale` parts of
a pico-dollar, so that rounding happens once, at the end; their sums need 128 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from math import inf, lcm
from typing import Final, NamedTuple, TypeAlias

#: Pico-dollars in a dollar.
PICO: Final = 10**12

#: Our own context: the caller's may be set to six digits.
EXACT: Final = Context(prec=80)


def usd(pico_dollars: int) -> Decimal:
    """Pico-dollars as an exact number of US dollars."""
    # A scaled 0 prints as 0E-12.
    return EXACT.scaleb(Decimal(pico_dollars), -12) if pico_dollars else Decimal(0)


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


class RateCard(NamedTuple):
    """Plain data: what a model costs, from when to when, and who says so."""

    bands: tuple[Band, ...]
    """Ascending; the first is above -1. The last whose `above` is exceeded applies to the whole
    call.
    """
    scale: int
    """Parts of a pico-dollar the rates are counted in; 1 for nearly all models."""
    provider: str
    """Who charges: the catalogue's provider id, or ours for own prices."""
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
    """What is charged on top and no token count shows: (catalogue's price key, USD), e.g. audio by
    the hour.
    """

    def cost(self, usage: Sequence[int]) -> int:
        """Pico-dollars for one call.

        `usage` begins with input, output, total, cache_read, cache_write, cache_write_1h,
        reasoning, audio_input, audio_output, image_input, image_output, video_input, video_output,
        cached_audio, cached_image, citation, web_searches, file_searches: integers >= 0, inclusive
        (cache and audio are part of input). Counts that contradict each other never raise: the
        parts are charged, and a whole is at least the sum of its parts.
        """
        i, o, _, r, w, h, z, a, b, g, p, v, y, ca, cg, c, s, f = usage[:COUNTS]
        bands = self.bands
        band = bands[0]
        if len(bands) > 1:
            for other in bands:
                if i > other[0]:
                    band = other
        _, ri, ro, rr, rw, rh, rz, ra, rb, rg, rp, rv, ry, rca, rcg, rc, rs, rf, rq = band
        a, g, r = a - ca, g - cg, r - ca - cg  # those that are not cached audio or images
        text = i - r - ca - cg - w - a - g - v
        plain = o - z - b - p - y - c
        if text < 0 or plain < 0 or h > w or a < 0 or g < 0 or r < 0:  # as in `is_contested`
            parts = _contested(band, usage)
        else:
            parts = text * ri + plain * ro + rq
            # Most counts are 0: a test is 15 ns, a multiplication and an addition 45.
            if r:
                parts += r * rr
            if w:
                parts += (w - h) * rw + h * rh
            if z:
                parts += z * rz
            if a:
                parts += a * ra
            if b:
                parts += b * rb
            if g:
                parts += g * rg
            if s:
                parts += s * rs
            if p or v or y or ca or cg or c or f:
                parts += p * rp + v * rv + y * ry + ca * rca + cg * rcg + c * rc + f * rf
        scale = self.scale
        if scale == 1:
            return parts
        whole, rest = divmod(parts, scale)
        return whole + (2 * rest > scale or (2 * rest == scale and whole & 1))

    def usd_rate(self, kind: str, band: int = 0) -> Decimal:
        """Price of a kind in USD: per million tokens, or each for searches and requests."""
        rate = Fraction(getattr(self.bands[band], kind), self.scale)
        exact = rate / PICO if kind in PER_UNIT else rate / 10**6
        return EXACT.divide(Decimal(exact.numerator), Decimal(exact.denominator))


def is_contested(usage: Sequence[int]) -> bool:
    """Return whether parts of a usage exceed their whole."""
    i, o, _, r, w, h, z, a, b, g, p, v, y, ca, cg, c, *_ = usage
    text, plain = i - r - w - a - g - v + ca + cg, o - z - b - p - y - c
    return text < 0 or plain < 0 or h > w or a < ca or g < cg or r < ca + cg


def _contested(band: Band, usage: Sequence[int]) -> int:
    """Charge counts whose parts exceed their whole.

    Legitimate where cached tokens are audio or image tokens too, and no provider says how many: the
    overlap is then taken as small as the counts allow, which is the highest price they allow
    wherever audio costs more than text.
    """
    i, o, _, r, w, h, z, a, b, g, p, v, y, ca, cg, c, s, f = usage[:COUNTS]
    h = min(h, w)
    i = max(i, r + w, a + g + v)
    o = max(o, z, b + p + y, c)
    # A kind charged as its whole takes no room from the others.
    if band.audio_input == band.input and band.cached_audio == band.cache_read:
        a = ca = 0
    if band.image_input == band.input and band.cached_image == band.cache_read:
        g = cg = 0
    if band.video_input == band.input:
        v = 0
    if band.cache_write == band.cache_write_1h == band.input:
        w = h = 0
    if band.reasoning == band.output:
        z = 0
    if band.audio_output == band.output:
        b = 0
    if band.image_output == band.output:
        p = 0
    if band.video_output == band.output:
        y = 0
    if band.citation == band.output:
        c = 0
    over = max(0, r + w + a + g + v - i)
    cached_audio = min(max(over - cg, ca), r, a)
    cached_image = min(max(over - cached_audio, cg), r - cached_audio, g)
    both = cached_audio + cached_image
    return (
        max(0, i - r - w - a - g - v + both) * band.input
        + (r - both) * band.cache_read
        + cached_audio * band.cached_audio
        + cached_image * band.cached_image
        + (a - cached_audio) * band.audio_input
        + (g - cached_image) * band.image_input
        + v * band.video_input
        + (w - h) * band.cache_write
        + h * band.cache_write_1h
        + max(0, o - z - b - p - y - c) * band.output
        + z * band.reasoning
        + b * band.audio_output
        + p * band.image_output
        + y * band.video_output
        + c * band.citation
        + s * band.web_search
        + f * band.file_search
        + band.request
    )


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
