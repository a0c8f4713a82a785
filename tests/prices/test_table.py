"""The compact table against genai-prices itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from hypothesis import given
from hypothesis import strategies as st

from langmeter.prices import table
from tests.support.tables import SNAPSHOT, TABLE

KEPT = table.from_text("genai-prices", table.to_text(TABLE) or b"")
PROVIDERS = [provider.id for provider in SNAPSHOT.providers]


#: Other names of providers, unknown ones, and the two ways of giving none.
NAMES = [
    *PROVIDERS,
    "",
    "litellm",
    "LiteLLM",
    "gemini",
    "azure_ai",
    "bedrock",
    "unlisted",
    " OpenAI ",
]


def literals(clause: Any) -> Iterator[str]:
    """Texts that stand in a clause, those of its expressions with digits in them."""
    for inner in getattr(clause, "or_", ()) or getattr(clause, "and_", ()):
        yield from literals(inner)
    for field in ("equals", "starts_with", "ends_with", "contains"):
        if text := getattr(clause, field, None):
            yield text
    if text := getattr(clause, "regex", None):
        yield (
            text.strip("^$")
            .replace("\\.", ".")
            .replace("\\d{8}", "20251211")
            .replace("\\d{4}-\\d{2}-\\d{2}", "2025-12-11")
            .replace("\\d", "7")
        )


def written(model: ModelInfo) -> set[str]:
    """Names that a model may be called by, and some that only look like it."""
    texts = {model.id, *literals(model.match)}
    return texts | {
        form
        for text in texts
        for form in (f"{text}-20251211", f"{text}-20259911", f"x/{text}", text.upper(), text[:-1])
        if form
    }


def theirs(provider: str, name: str) -> tuple[str, str] | None:
    """Whose list genai-prices looks in, and the model that it finds."""
    try:
        asked, model = SNAPSHOT.find_provider_model(name, None, provider or None, None)
    except LookupError:
        return None
    return asked.id, model.id


def ours(provider: str, name: str, of: table.Table = KEPT) -> tuple[str, str] | None:
    """The same by the table."""
    found = of.find(provider, name)
    return found and (found.provider.id, found.model.id)


@pytest.mark.slow
@pytest.mark.parametrize("provider", SNAPSHOT.providers, ids=lambda p: p.id)
def test_every_name_finds_the_model_that_genai_prices_finds(provider: Provider) -> None:
    """Ids, aliases, prefixes, dated and upper-case names of every model, asked of its provider."""
    every = {name for model in provider.models for name in written(model)}
    # The largest list, 923 models, by a sample.
    names = sorted(every) if len(every) < 1000 else random.Random(7).sample(sorted(every), 1000)
    for name in names:
        assert ours(provider.id, name) == theirs(provider.id, name), name


SOME = sorted({name for p in SNAPSHOT.providers for m in p.models for name in written(m)})


@given(st.sampled_from(NAMES), st.one_of(st.sampled_from(SOME), st.text(max_size=12)))
def test_any_name_of_any_provider_is_found_as_by_genai_prices(provider: str, name: str) -> None:
    """Of another provider, of none, through LiteLLM's prefix, and where nothing fits."""
    for form in (name, f"{provider}/{name}", f"azure/{name}"):
        assert ours(provider, form) == theirs(provider, form)


def test_the_text_holds_all_that_the_objects_say() -> None:
    """What is written and read again has the same models, prices, variants and comments."""
    for kept, fresh, original in zip(
        KEPT.providers, TABLE.providers, SNAPSHOT.providers, strict=True
    ):
        models = kept.models()
        assert models == fresh.models()
        assert [m.id for m in models] == [m.id for m in original.models]
        assert [m.comment for m in models] == [m.price_comments or "" for m in original.models]
        assert [m.context_window for m in models] == [m.context_window for m in original.models]
        assert [m.deprecated for m in models] == [bool(m.deprecated) for m in original.models]


words = st.text("ab.-1", min_size=1, max_size=4)


plain = st.one_of(
    words.map(ClauseEquals),
    words.map(ClauseStartsWith),
    words.map(ClauseEndsWith),
    words.map(ClauseContains),
    st.sampled_from(["^a", "a+", "^ab?", "^a\\.b", "^a|b", "(a)", "^a{2}", "b$"]).map(ClauseRegex),
)


clauses = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(ClauseOr),
        st.lists(inner, min_size=1, max_size=3).map(ClauseAnd),
    ),
    max_leaves=6,
)


@given(clauses, st.text("aAbB.-1", max_size=6))
def test_a_clause_fits_the_names_that_it_fits_in_genai_prices(clause: Any, name: str) -> None:
    """Whatever its operators, and where an expression's literal beginning is asked first."""
    model = ModelInfo("m", clause, prices=ModelPrice())
    kept = table.from_objects("x", [Provider("p", "P", "x", models=[model])])
    text = table.to_text(kept)
    assert text is not None
    found = table.from_text("x", text).find("p", name) is not None
    assert found == clause.is_match(name.lower())


times = st.times(timezones=st.sampled_from([None, UTC]))


constraints = st.one_of(
    st.none(),
    st.dates(datetime(2024, 1, 1).date(), datetime(2026, 1, 1).date()).map(StartDateConstraint),
    st.tuples(times, times).map(lambda pair: TimeOfDateConstraint(*pair)),
)


@given(
    st.lists(constraints, min_size=1, max_size=4),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)),
)
def test_prices_at_a_moment_are_those_of_genai_prices(limits: list[Any], at: datetime) -> None:
    """Dated and daily prices, in any order, on either side of midnight."""
    numbered = [ConditionalPrice(c, prices=ModelPrice(input_mtok=n)) for n, c in enumerate(limits)]  # type: ignore[arg-type]
    model = ModelInfo("m", ClauseEquals("m"), prices=numbered)
    found = table.from_objects("x", [Provider("p", "P", "x", models=[model])]).find("p", "m")
    assert found is not None
    prices = table.prices_at(found.model, at, {})
    assert prices["input_mtok"] == str(model.get_prices(at).input_mtok)


def test_tiers_stand_in_order() -> None:
    """As genai-prices sorts them."""
    tiers = TieredPrices(base=1, tiers=[Tier(9, 3), Tier(5, 2)])  # type: ignore[arg-type]
    model = ModelInfo("m", ClauseEquals("m"), prices=ModelPrice(input_mtok=tiers))
    found = table.from_objects("x", [Provider("p", "P", "x", models=[model])]).find("p", "m")
    assert found is not None
    assert found.model.prices == {"input_mtok": ["1", [5, "2"], [9, "3"]]}


def test_a_provider_without_models_keeps_its_place() -> None:
    """Its names find nothing, and not the next provider's models."""
    model = ModelInfo("m", ClauseEquals("m"), prices=ModelPrice())
    bare = [
        Provider("none", "N", "x", provider_match=ClauseContains("o")),
        Provider("other", "O", "x", models=[model]),
    ]
    text = table.to_text(table.from_objects("x", bare))
    assert text is not None
    kept = table.from_text("x", text)
    assert kept.find("one", "m") is None
    assert kept.find("other", "m") is not None
    assert kept.providers[0].models() == []
