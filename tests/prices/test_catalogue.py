"""Our arithmetic against genai-prices': every model, every tier, both sides of every change."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from itertools import chain, pairwise

import genai_prices
import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TimeOfDateConstraint,
)
from hypothesis import given
from hypothesis import strategies as st

from langmeter.prices import PriceBook, RateCard, catalogue, listed, table
from tests.support.laws import examples

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
LISTED = [(p, m) for p in get_snapshot().providers for m in p.models]
LISTINGS = [
    table.Found(every, provider, model, True)
    for every in (table.from_objects("genai-prices", get_snapshot().providers),)
    for provider in every.providers
    for model in provider.models()
]
TIERS = ("", "batch", "flex", "priority", "fast", "default", "route=mistral/eu", "unheard-of")
CONTEXT: Mapping[str, dict[str, str]] = {
    "": {},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "route=mistral/eu": {"route": "mistral/eu"},
}

MEDIA = ("audio", "image", "video")
Counts = dict[str, int]
#: Joins of two parts that no usage of ours has: the catalogue does not take them for 0.
NO_JOINS = (
    *(f"output_{medium}_{part}_tokens" for medium in MEDIA for part in ("reasoning", "citation")),
    *(f"cache_{medium}_write_tokens" for medium in MEDIA),
)


def counts(number: random.Random) -> Counts:
    """A usage as a provider could send it: parts never exceed their whole; many counts are 0."""

    def some(limit: int) -> int:
        return number.choice((0, number.randint(0, limit), number.randint(0, min(limit, 1000))))

    size = number.choice((50, 40_000, 150_000, 600_000, 2_000_000))
    own, read, write, audio, image, video = (some(size) for _ in range(6))
    hour, heard, seen = some(write), some(size // 10), some(size // 10)
    plain, thought, spoken, drawn, filmed, quoted = (some(60_000) for _ in range(6))
    return {
        "input": own + read + write + audio + image + video + heard + seen,
        "output": plain + thought + spoken + drawn + filmed + quoted,
        "cache_read": read + heard + seen,
        "cache_write": write,
        "cache_write_1h": hour,
        "reasoning": thought,
        "audio_input": audio + heard,
        "audio_output": spoken,
        "image_input": image + seen,
        "image_output": drawn,
        "video_input": video,
        "video_output": filmed,
        "cached_audio": heard,
        "cached_image": seen,
        "citation": quoted,
        "web_searches": number.choice((0, 0, 1, 7)),
        "file_searches": number.choice((0, 0, 2)),
    }


def oracle(
    usage: Counts,
    provider: Provider,
    model: ModelInfo,
    at: datetime,
    context: dict[str, str],
    **joins: int,
) -> int:
    """genai-prices' own answer in pico-dollars; the joins are given, since it refuses to guess."""
    usage = {**usage, **joins}
    theirs = genai_prices.Usage(
        input_tokens=usage["input"],
        output_tokens=usage["output"],
        cache_read_tokens=usage["cache_read"],
        cache_write_tokens=usage["cache_write"],
        cache_write_1h_tokens=usage["cache_write_1h"],
        output_reasoning_tokens=usage["reasoning"],
        input_audio_tokens=usage["audio_input"],
        output_audio_tokens=usage["audio_output"],
        input_image_tokens=usage["image_input"],
        output_image_tokens=usage["image_output"],
        input_video_tokens=usage["video_input"],
        output_video_tokens=usage["video_output"],
        output_citation_tokens=usage["citation"],
        web_searches=usage["web_searches"],
        storage_searches=usage["file_searches"],
        cache_audio_read_tokens=usage["cached_audio"],
        cache_image_read_tokens=usage["cached_image"],
        cache_video_read_tokens=0,
        **dict.fromkeys(NO_JOINS, 0),
    )
    with localcontext(prec=60):
        answer = model.calc_price(
            theirs, provider, genai_request_timestamp=at, price_context=context or None
        )
        rounded = answer.total_price.quantize(Decimal("1E-12"), ROUND_HALF_EVEN)
        return int(rounded.scaleb(12))


def as_tuple(usage: Counts) -> tuple[int, ...]:
    sent, received, *parts = usage.values()
    return (sent, received, sent + received, *parts, 0)


def context_of(tier: str) -> dict[str, str]:
    return CONTEXT.get(tier, {"service_tier": tier})


def constraints(model: ModelInfo) -> Iterator[StartDateConstraint | TimeOfDateConstraint]:
    listed = model.prices if isinstance(model.prices, list) else []
    for item in chain[ConditionalPrice | PriceVariant](listed, model.price_variants or ()):
        if item.constraint is not None:
            yield item.constraint


def moments(model: ModelInfo) -> set[datetime]:
    """Now, and both sides of every change of a model's price."""
    found = {NOW}
    for constraint in constraints(model):
        if isinstance(constraint, StartDateConstraint):
            day = constraint.start_date
            edges = [datetime(day.year, day.month, day.day, tzinfo=UTC)]
        else:
            edges = [
                datetime.combine(NOW.date(), edge).astimezone(UTC)
                for edge in (constraint.start_time, constraint.end_time)
            ]
        for edge in edges:
            found |= {edge, edge - timedelta(microseconds=1), edge + timedelta(hours=30)}
    return found


@pytest.mark.slow
def test_every_model_costs_what_the_catalogue_says_to_the_pico_dollar() -> None:
    """For every model, tier and side of a price change our integers equal `calc_price`."""
    number = random.Random(20261020)
    checked = 0
    for (provider, model), found in zip(LISTED, LISTINGS, strict=True):
        tiers = TIERS if model.price_variants else ("", "batch")
        for at in moments(model):
            for tier in tiers:
                card = listed.card(found, tier, at)
                for usage in (counts(number), counts(number)):
                    theirs = oracle(usage, provider, model, at, context_of(tier))
                    assert card.cost(as_tuple(usage)) == theirs, (provider.id, model.id, tier, at)
                    checked += 1
    assert checked > 10_000


@examples(150)
@given(
    pair=st.sampled_from(LISTED),
    seed=st.randoms(use_true_random=False),
    tier=st.sampled_from(TIERS),
    at=st.datetimes(datetime(2023, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),
)
def test_any_usage_at_any_time_costs_what_the_catalogue_says(
    pair: tuple[Provider, ModelInfo], seed: random.Random, tier: str, at: datetime
) -> None:
    """Through the book's front door, where the catalogue finds that model by its id."""
    provider, model = pair
    usage = counts(seed)
    try:
        found = get_snapshot().find_provider_model(model.id, None, provider.id, None)
    except LookupError:
        return
    cost = BOOK.cost(provider.id, model.id, tier=tier, at=at, **usage)
    # calc_price itself looks for variants only with the provider that lists the model.
    assert cost is not None
    assert int(cost.scaleb(12)) == oracle(usage, *found, at, context_of(tier))


BOOK = PriceBook()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("azure", "azure.ai.openai"),
        ("aws", "aws.bedrock"),
        ("google", "gcp.gemini"),
        ("google", "gcp.vertex_ai"),
        ("mistral", "mistral_ai"),
        ("x-ai", "x_ai"),
        ("groq", "groq"),
        ("cohere", "cohere"),
        ("deepseek", "deepseek"),
        ("moonshotai", "moonshot_ai"),
        ("perplexity", "perplexity"),
        ("together", "together"),
        ("fireworks", "fireworks"),
        ("openrouter", "openrouter"),
    ],
)
def test_our_provider_names_reach_the_same_price_list(name: str, ours: str) -> None:
    """OpenTelemetry's names and the catalogue's lead to one card for every model of a provider."""
    provider = next(p for p in get_snapshot().providers if p.id == name)
    for model in provider.models[:20]:
        assert BOOK.card(ours, model.id) == BOOK.card(name, model.id)
        card = BOOK.card(ours, model.id)
        assert card is None or card.provider == name


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("openai", "gpt-5.2-20251211", "openai/gpt-5.2"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::x1", "openai/ft:gpt-4o-mini"),
        ("azure.ai.openai", "gpt-35-turbo", "azure/gpt-3.5-turbo"),
        ("gcp.gemini", "models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0"),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-5-haiku-20241022-v1:0",
            "aws/regional.anthropic.claude-3-5-haiku-20241022-v1:0",
        ),
        ("", "gpt-4o", "openai/gpt-4o"),
    ],
)
def test_names_are_matched_by_the_catalogue(provider: str, model: str, listed: str) -> None:
    """Dated names, fine-tunes, deployments, regions, ARNs and resource names find their model."""
    card = BOOK.card(provider, model)
    assert card is not None
    assert f"{card.provider}/{card.model}" == listed


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("ollama", "llama3"),
        ("vllm", "gpt-4o"),
        ("openai", "no-such-model"),
        ("azure.ai.openai", "our-deployment"),
        ("", "llama-3"),
        ("fireworks", "acme/models/gemini-2.5-pro"),
    ],
)
def test_a_model_without_a_price_costs_none_not_zero(provider: str, model: str) -> None:
    """An unknown provider or model is unpriced: no price list is guessed."""
    assert BOOK.card(provider, model) is None
    assert BOOK.card(provider, model) is None  # and so the second time, from the dict
    assert BOOK.cost(provider, model, input=10, output=10) is None


def test_a_threshold_changes_the_price_of_the_whole_call() -> None:
    """Crossing 200,000 input tokens reprices all tokens, output included, not those above."""
    card = BOOK.card("gcp.gemini", "gemini-2.5-pro", at=NOW)
    assert card is not None
    assert [band.above for band in card.bands] == [-1, 200_000]
    at = as_tuple(dict.fromkeys(counts(random.Random(0)), 0) | {"input": 200_000, "output": 10})
    above = (200_001, *at[1:])
    assert card.cost(at) == 200_000 * 1_250_000 + 10 * 10_000_000
    assert card.cost(above) == 200_001 * 2_500_000 + 10 * 15_000_000


OVERLAPPING = [
    (p, m)
    for p, m in LISTED
    if isinstance(m.prices, ModelPrice)
    and (m.prices.cache_audio_read_mtok or m.prices.cache_image_read_mtok)
]


@examples(100)
@given(
    pair=st.sampled_from(OVERLAPPING),
    read=st.integers(0, 1000),
    part=st.integers(0, 1000),
    extra=st.integers(0, 1000),
    image=st.booleans(),
)
def test_cached_audio_and_images_overlap_as_little_as_the_counts_allow(
    pair: tuple[Provider, ModelInfo], read: int, part: int, extra: int, image: bool
) -> None:
    """Where cached and audio tokens exceed the input, the excess is cached audio (or image)."""
    provider, model = pair
    whole = max(read, part) + min(extra, read, part)
    kind, join = ("image_input", "cached_image") if image else ("audio_input", "cached_audio")
    usage = dict.fromkeys(counts(random.Random(0)), 0)
    usage |= {"input": whole, "cache_read": read, kind: part}
    both = max(0, read + part - whole)
    assert isinstance(model.prices, ModelPrice)
    if getattr(model.prices, f"cache_{'image' if image else 'audio'}_read_mtok") is None:
        both = 0  # not priced apart, so the catalogue does not ask
    card = listed.card(LISTINGS[LISTED.index((provider, model))], "", NOW)
    assert card.cost(as_tuple(usage)) == oracle(usage, provider, model, NOW, {}, **{join: both})


@examples(200)
@given(
    found=st.sampled_from(LISTINGS),
    usage=st.lists(st.integers(0, 10**7), min_size=18, max_size=19).map(tuple),
)
def test_counts_that_contradict_each_other_still_have_a_price(
    found: table.Found, usage: tuple[int, ...]
) -> None:
    """No usage of non-negative integers raises or costs less than nothing."""
    cost = listed.card(found, "", NOW).cost(usage)
    assert type(cost) is int
    assert cost >= 0


def test_parts_are_charged_when_their_whole_is_missing() -> None:
    """Cached tokens reported without any input cost what the same tokens inside the input cost."""
    card = BOOK.card("anthropic", "claude-sonnet-4-5", at=NOW)
    assert card is not None
    assert card.cost((0, 0, 0, 500, 200, 300, *[0] * 12)) == card.cost(
        (700, 0, 0, 500, 200, 200, *[0] * 12)
    )
    assert card.cost((0, 0, 0, 0, 0, 0, 40, *[0] * 11)) == card.cost((0, 40, 0, *[0] * 15))


def test_a_price_by_the_hour_changes_at_the_hour() -> None:
    """Windows meet without gap or overlap, come round each day, and each is resolved once."""
    book = PriceBook()
    found: list[RateCard] = []
    at = NOW
    for _ in range(5):
        card = book.card("deepseek", "deepseek-v4-flash", at=at)
        assert card is not None
        assert card.valid_from <= at.timestamp() < card.valid_until
        found.append(card)
        at = datetime.fromtimestamp(card.valid_until, UTC)
    for one, other in pairwise(found):
        assert one.valid_until == other.valid_from
        assert one.bands != other.bands
    assert book.card("deepseek", "deepseek-v4-flash", at=NOW) is found[0]
    assert book.card("deepseek", "deepseek-v4-flash", at=NOW.timestamp()) is found[0]
    assert book.card("deepseek", "deepseek-v4-flash", at=NOW.replace(tzinfo=None)) is found[0]


def test_a_price_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question for a provider, model and tier never reaches the catalogue."""
    book = PriceBook()
    first = book.card("openai", "gpt-4o", tier="batch")
    monkeypatch.setattr(catalogue, "find", None)
    monkeypatch.setattr(listed, "card", None)
    assert book.card("openai", "gpt-4o", tier="batch") is first


def test_a_tier_without_a_price_of_its_own_costs_the_standard_price() -> None:
    """`card.tier` tells whether the tier that was asked for has its own price."""
    batch, standard, odd = (
        BOOK.card("openai", "gpt-4.1", tier=tier, at=NOW) for tier in ("batch", "", "unheard-of")
    )
    assert batch is not None
    assert standard is not None
    assert odd is not None
    assert (batch.tier, standard.tier, odd.tier) == ("batch", "", "")
    assert batch.bands[0].input * 2 == standard.bands[0].input
    assert odd.bands == standard.bands
    assert batch.date == "2026-10-14"


def test_new_catalogue_data_is_used_after_refresh() -> None:
    """What genai-prices' updater installs is asked from the next refresh on, and says so."""
    book = PriceBook()
    assert book.card("openai", "gpt-4o") is not None
    model = ModelInfo("m", ClauseEquals("m"), prices=ModelPrice(input_mtok=Decimal(3)))
    fresh = DataSnapshot([Provider("acme", "Acme", "https://acme", models=[model])], True)
    version = book.version
    set_custom_snapshot(fresh)
    try:
        book.refresh()
        card = book.card("acme", "m")
        assert card is not None
        assert card.source == f"genai-prices, updated {fresh.timestamp.date()}"
        assert book.card("openai", "gpt-4o") is None
        assert book.version > version
    finally:
        set_custom_snapshot(None)


def test_a_condition_we_cannot_date_is_asked_each_time() -> None:
    """A kind of constraint that a later catalogue may add is never cached past its moment."""

    class Odd:
        def active(self, moment: datetime) -> bool:
            return moment.second % 2 == 1

    conditional = [
        ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))),
        ConditionalPrice(Odd(), prices=ModelPrice(input_mtok=Decimal(2))),  # type: ignore[arg-type]
    ]
    model = ModelInfo("m", ClauseEquals("m"), prices=conditional)
    set_custom_snapshot(DataSnapshot([Provider("acme", "A", "x", models=[model])], False))
    try:
        book = PriceBook()
        costs = [book.cost("acme", "m", input=1_000_000, at=float(s)) for s in (10, 11, 12)]
        assert costs == [1, 2, 1]
    finally:
        set_custom_snapshot(None)


def test_units_that_tokens_do_not_show_are_named() -> None:
    """A transcription model is charged by the hour: the card says what it cannot count."""
    card = BOOK.card("openai", "whisper-1")
    assert card is not None
    assert dict(card.uncounted).keys() >= {"audio_hours"}


def test_the_answers_kept_are_bounded() -> None:
    """A stream of made-up model names cannot grow the book."""
    book = PriceBook({"acme/*": {"input": 1, "output": 1}})
    for n in range(5000):
        assert book.card("nvidia_nim", f"m{n}") is not None
    assert len(book._answers) <= 4096
