"""The native end of a call reads and prices as the Python it spares."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from langmeter import TokenCountingCallback, _core
from langmeter.prices import PriceBook
from langmeter.prices.card import is_contested
from langmeter.usage import Usage, read
from langmeter.usage.careful import look_carefully
from test_usage_laws import Thing, mapping, result

handler = TokenCountingCallback(max_series=20_000, significant_digits=2)
counts = st.integers(0, 300)
words = st.sampled_from(["", "default", "flex", "priority", "auto", None])
models = st.sampled_from(["gpt-4o", "claude-3-5", "aaaa", "gpt-4ogpt-4o", "", None])


@st.composite
def common(draw: st.DrawFn) -> Thing:
    """A response of the kind most are, now and then with something odd in it."""
    into = draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "cache_read",
                    "cache_creation",
                    "audio",
                    "ephemeral_5m_input_tokens",
                    "ephemeral_1h_input_tokens",
                    "flex",
                ]
            ),
            counts,
            max_size=5,
        )
    )
    out_of = draw(
        st.dictionaries(st.sampled_from(["reasoning", "audio", "flex_reasoning"]), counts)
    )
    sent, received = draw(st.integers(0, 2000)), draw(st.integers(0, 2000))
    usage: dict[str, Any] = {
        "input_tokens": sent,
        "output_tokens": received,
        "total_tokens": sent + received + draw(st.sampled_from([0, 0, 0, 3])),
    }
    if draw(st.booleans()):
        usage["input_token_details"] = into
    if draw(st.booleans()):
        usage["output_token_details"] = out_of
    if draw(st.integers(0, 9)) == 0:
        usage["total_cost"] = 0
    meta: dict[str, Any] = {
        "model_name": draw(models),
        "model_provider": draw(st.sampled_from(["openai", "bedrock", "anthropic"])),
        "service_tier": draw(words),
    }
    raw = draw(
        st.dictionaries(
            st.sampled_from(["prompt_tokens", "cost", "reasoning_tokens", "service_tier"]),
            st.one_of(counts, words),
            max_size=2,
        )
    )
    if draw(st.booleans()):
        meta[draw(st.sampled_from(["token_usage", "usage"]))] = raw
    return result(usage, meta)


def ended(response: Any) -> dict[tuple[str, str], tuple[int, ...]]:
    """What the recorder counted for a call with this response: model → outcomes and usage."""
    before = handler.snapshot()
    run = uuid.uuid4()
    metadata = {"ls_provider": "openai", "ls_model_name": "asked"}
    handler.on_chat_model_start({"name": "Chat"}, [[]], run_id=run, metadata=metadata)
    handler.on_llm_end(response, run_id=run)
    after = handler.snapshot() - before
    places = slice(0, _core.COUNTERS.index("estimated"))
    return {(s.a, s.b): s.counters[places] for s in after._series if s.kind == "model"}


def expected(response: Any) -> dict[tuple[str, str], tuple[int, ...]]:
    reading = read(response)
    usage = reading.usage or Usage()
    outcome = _core.OUTCOMES.index("cache_hit" if reading.cache_hit else "ok")
    outcomes = [int(place == outcome) for place in range(len(_core.OUTCOMES))]
    spent = [0] * 18 if reading.cache_hit else list(usage[:18])
    return {("openai", reading.model or "asked"): (*outcomes, *spent)}


@settings(max_examples=400)
@given(common())
def test_the_native_reading_is_that_of_the_reader(response: Thing) -> None:
    """Whatever is common enough to be read natively is read as `usage.read` reads it."""
    assert ended(response) == expected(response)


@settings(max_examples=200)
@given(mapping, mapping)
def test_junk_ends_a_call_as_the_reader_says(usage: Any, meta: Any) -> None:
    """A response of any shape ends its call, counted as the careful reader counts it."""
    response = result(usage, meta)
    reading = look_carefully(response)
    # Labels are cut and kept as UTF-8; names of junk are another test's matter.
    assume(reading.model.isascii() and "\0" not in reading.model)
    before = handler.snapshot().dropped.get("hook_errors", 0)
    assert ended(response) == expected(response)
    assert handler.snapshot().dropped.get("hook_errors", 0) == before


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            ("openai", "gpt-4o"),
            ("anthropic", "claude-sonnet-4-5"),
            ("gcp.gemini", "gemini-2.5-pro"),
            ("nvidia_nim", "meta/llama-3.1-8b-instruct"),
        ]
    ),
    st.lists(st.integers(0, 40_000), min_size=18, max_size=18),
)
def test_the_native_price_is_that_of_the_card(model: tuple[str, str], figures: list[int]) -> None:
    """A price computed natively is the card's; where parts exceed their whole it gives none."""
    book = PriceBook()
    card = book.card(*model)
    native = book.native[model]
    assert card is not None
    assert native is not None
    sent, received, *parts = figures
    usage = Usage(sent + 150_000, received + 150_000, *parts)
    cost = native.cost(usage)
    if is_contested(usage):
        assert cost is None
    else:
        assert cost == card.cost(usage)
