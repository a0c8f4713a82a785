"""The native arithmetic of money, against fractions and against sums written in another way."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter import PriceBook, _core
from langmeter.prices.card import _PART_OF as WHOLES
from langmeter.prices.card import COUNTS, KINDS, PER_UNIT
from tests.support.laws import examples

#: What a call counts, in the order of `Usage`.
NAMES = _core.COUNTERS[6 : 6 + COUNTS]
PARTS = {
    "cache_read": "input",
    "cache_write": "input",
    "audio_input": "input",
    "image_input": "input",
    "video_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
    "video_output": "output",
    "citation": "output",
}
RATE_OF = {"web_searches": "web_search", "file_searches": "file_search"}

amounts = st.decimals(0, 1000, places=9, allow_nan=False).map(str)


@st.composite
def prices(draw: st.DrawFn) -> dict[str, Any]:
    """An own price of some kinds, with up to two bands."""
    kinds = draw(st.sets(st.sampled_from(KINDS)))
    spec: dict[str, Any] = {kind: draw(amounts) for kind in {"input", "output", *kinds}}
    edges = draw(st.sets(st.integers(0, 300), max_size=2))
    spec["bands"] = [
        {
            "above": edge,
            **{kind: draw(amounts) for kind in draw(st.sets(st.sampled_from([*kinds])))},
        }
        if kinds
        else {"above": edge, "input": draw(amounts)}
        for edge in sorted(edges)
    ]
    return spec


@st.composite
def usages(draw: st.DrawFn) -> dict[str, int]:
    """Counts whose parts fit their whole, cached audio and images among the reads."""
    count = st.one_of(st.just(0), st.integers(0, 90))
    usage = dict.fromkeys(NAMES, 0) | {part: draw(count) for part in PARTS}
    for cached, kind in (("cached_audio", "audio_input"), ("cached_image", "image_input")):
        usage[cached] = draw(st.integers(0, usage[kind]))
    usage["cache_read"] += usage["cached_audio"] + usage["cached_image"]
    usage["cache_write_1h"] = draw(st.integers(0, usage["cache_write"]))
    for whole in ("input", "output"):
        usage[whole] = draw(count) + sum(usage[part] for part in PARTS if PARTS[part] == whole)
    usage["input"] -= usage["cached_audio"] + usage["cached_image"]  # they are in two parts
    usage["total"] = usage["input"] + usage["output"]
    return usage | {"web_searches": draw(count), "file_searches": draw(count)}


def rate(spec: dict[str, Any], band: dict[str, Any], kind: str) -> Fraction:
    """USD for one of a kind: the band's, else the price's, else that of what it is part of."""
    if kind in spec:
        return Fraction(band.get(kind, spec[kind])) / (1 if kind in PER_UNIT else 10**6)
    if kind in ("cached_audio", "cached_image"):
        other = "audio_input" if kind == "cached_audio" else "image_input"
        return rate(spec, band, "cache_read" if "cache_read" in spec else other)
    return rate(spec, band, WHOLES[kind]) if kind in WHOLES else Fraction(0)


def by_fractions(spec: dict[str, Any], usage: dict[str, int]) -> Fraction:
    """USD of a call: each part at the difference between its rate and that of its whole."""
    band: dict[str, Any] = {}
    for above in spec["bands"]:  # what a band does not name stays as below it
        band |= above if usage["input"] > above["above"] else {}
    cost = rate(spec, band, "request")
    for name in NAMES:
        if name != "total":
            kind = RATE_OF.get(name, name)
            cost += usage[name] * rate(spec, band, kind)
        if name in PARTS:
            cost -= usage[name] * rate(spec, band, PARTS[name])
    cost -= usage["cache_write_1h"] * rate(spec, band, "cache_write")
    for cached, kind in (("cached_audio", "audio_input"), ("cached_image", "image_input")):
        more = rate(spec, band, "cache_read") + rate(spec, band, kind) - rate(spec, band, "input")
        cost -= usage[cached] * more
    return cost


@pytest.mark.slow
@examples(300)
@given(prices(), usages())
def test_a_cost_is_exact(spec: dict[str, Any], usage: dict[str, Any]) -> None:
    """Rates of nine decimals, bands, every kind: rounded to a pico-dollar once, half to even."""
    book = PriceBook({"acme/m": spec})
    cost = book.cost("acme", "m", **usage)
    assert cost is not None
    assert cost.scaleb(12) == round(by_fractions(spec, usage) * 10**12)


def overlapping(band: Any, usage: tuple[int, ...]) -> int:
    """What contradicting counts cost, as it was first written: the parts, in one sum."""
    i, o, _, r, w, h, z, a, b, g, p, v, y, ca, cg, c, s, f = usage
    h = min(h, w)
    i = max(i, r + w, a + g + v)
    o = max(o, z, b + p + y, c)
    if band.audio_input == band.input and band.cached_audio == band.cache_read:
        a = ca = 0
    if band.image_input == band.input and band.cached_image == band.cache_read:
        g = cg = 0
    v = 0 if band.video_input == band.input else v
    if band.cache_write == band.cache_write_1h == band.input:
        w = h = 0
    z = 0 if band.reasoning == band.output else z
    b = 0 if band.audio_output == band.output else b
    p = 0 if band.image_output == band.output else p
    y = 0 if band.video_output == band.output else y
    c = 0 if band.citation == band.output else c
    over = max(0, r + w + a + g + v - i)
    heard = min(max(over - cg, ca), r, a)
    seen = min(max(over - heard, cg), r - heard, g)
    both = heard + seen
    return (
        max(0, i - r - w - a - g - v + both) * band.input
        + (r - both) * band.cache_read
        + heard * band.cached_audio
        + seen * band.cached_image
        + (a - heard) * band.audio_input
        + (g - seen) * band.image_input
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


whole = st.integers(0, 50).map(str)


@examples(300)
@given(
    st.dictionaries(st.sampled_from(KINDS[2:]), whole),
    whole,
    whole,
    st.lists(st.integers(0, 9), min_size=COUNTS, max_size=COUNTS).map(tuple),
)
def test_counts_that_contradict_each_other_are_charged_by_their_parts(
    kinds: dict[str, str], sent: str, received: str, usage: tuple[int, ...]
) -> None:
    """And those that do not cost what they cost anyhow."""
    card = PriceBook({"acme/m": {**kinds, "input": sent, "output": received}}).card("acme", "m")
    assert card is not None
    if _core.RateCard.is_contested(usage):
        assert card.cost(usage) == overlapping(card.bands[0], usage)


@pytest.mark.parametrize("price", ["0.123456789012345678901234", "0.3000000000000000444", 1e-17])
def test_the_finest_price_is_exact(price: Any) -> None:
    """24 decimals of a dollar a million tokens; a float is what it prints as."""
    book = PriceBook({"acme/m": {"input": price, "output": 0}})
    exact = Fraction(str(price)) * 10**6 * 123_456_789
    cost = book.cost("acme", "m", input=123_456_789)
    assert cost is not None
    assert cost.scaleb(12) == round(exact)


def test_a_price_finer_than_that_is_rounded() -> None:
    """The thirtieth decimal changes no call."""
    book = PriceBook({"acme/m": {"input": "0.1" + "0" * 28 + "1", "output": 0}})
    assert book.cost("acme", "m", input=10**6) == Decimal("0.1")


def test_what_the_recorder_cannot_count_is_still_a_price() -> None:
    """More than 9.2 million USD: `cost` says how much; a call of that is refused by the meter."""
    book = PriceBook({"acme/m": {"input": 1_000_000, "output": 0}})
    assert book.cost("acme", "m", input=2**62) == Decimal(2**62)


@pytest.mark.parametrize("count", [2**63, -1, 10**40])
def test_counts_beyond_64_bits_are_refused(count: int) -> None:
    """With the name, the value, and what is allowed."""
    with pytest.raises(ValueError, match=rf"input = {count} must be a whole number >= 0"):
        PriceBook().cost("nvidia_nim", "m", input=count)
