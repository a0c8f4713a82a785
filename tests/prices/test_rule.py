"""Which price counts: one rule for the end of a call, for late prices, budgets and embeddings."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langmeter import (
    Budget,
    BudgetExceeded,
    CostTrackingCallback,
    Meter,
    PriceBook,
    track_embeddings,
)
from langmeter._base.provider_names import PROVIDER_NAMES, catalogue_id, provider_name
from langmeter.prices import catalogue
from tests.support.models import chat_model

USAGE = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}


def client(provider: str, requested: str, answered: str | None, **meta: Any) -> Any:
    """A chat model of a provider that answers under a name, or under none."""
    named = {"model_name": answered} if answered else {}
    fake = chat_model(usage=USAGE, metadata={**named, **meta})
    fake.metadata = {"ls_provider": provider, "ls_model_name": requested}
    return fake


def invoke(handler: Any, provider: str, requested: str, answered: str | None, **meta: Any) -> None:
    """One call, as LangChain makes it."""
    client(provider, requested, answered, **meta).invoke("?", config={"callbacks": [handler]})


def flat(price: float) -> dict[str, float]:
    return {"input": price, "output": price}


#: USD of a call at one dollar a million tokens.
ONE = Decimal("0.0011")

RULE = [
    # own prices, provider, requested, answered, cost
    ({"openai/one": flat(1), "openai/two": flat(2)}, "openai", "two", "one", ONE),
    ({"openai/two": flat(2)}, "openai", "two", "one", 2 * ONE),
    ({"openai/gpt-4o": flat(3)}, "openai", "mine", "gpt-4o-2024-08-06", 3 * ONE),
    ({"acme/house": flat(3)}, "acme", "house-2026-01-31", None, 3 * ONE),
    ({"acme/house": flat(3)}, "acme", "x", "house@20260131", 3 * ONE),
    (
        {"acme/house": flat(3), "acme/house-20260131": flat(4)},
        "acme",
        "x",
        "house-20260131",
        4 * ONE,
    ),
    ({"acme/*": flat(5), "acme/two": flat(2)}, "acme", "x", "y", 5 * ONE),
    ({"acme/*": flat(5), "acme/two": flat(2)}, "acme", "two", "y", 2 * ONE),
    ({"openai/gpt-4o": flat(7)}, "openai", "gpt-4o", "gpt-4o-mini", 7 * ONE),
    ({"azure/gpt-3.5-turbo": flat(6)}, "azure", "ours", "gpt-35-turbo", 6 * ONE),
    ({"azure_openai/gpt-x": flat(6)}, "azure", "gpt-x", "unheard-of", 6 * ONE),
    ({"bedrock/*": flat(6)}, "amazon_bedrock", "any", None, 6 * ONE),
    ({"moonshot/kimi-9": flat(6)}, "moonshotai", "kimi-9", "kimi-9", 6 * ONE),
    ({"nvidia/llama": flat(6)}, "NVIDIA", "llama", "meta/llama-inner", 6 * ONE),
    ({}, "nvidia_nim", "any", "thing", Decimal("0.00022")),
    ({}, "acme", "house", "unheard-of", None),
]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(("own", "provider", "requested", "answered", "cost"), RULE)
def test_the_first_price_of_the_rule_is_charged(
    own: Any, provider: str, requested: str, answered: str | None, cost: Any, awaited: bool
) -> None:
    """By the careful end and by the native one, invoked and awaited."""
    meter = Meter(prices=PriceBook(own).warm(wait=True))
    fake = client(provider, requested, answered)
    for _ in range(3):
        if awaited:
            asyncio.run(fake.ainvoke("?", config={"callbacks": [meter]}))
        else:
            fake.invoke("?", config={"callbacks": [meter]})
    assert meter.cost.total_cost == (None if cost is None else 3 * cost)
    if cost is not None:
        book = meter.cost.prices
        card = book.card(provider, answered or "", requested=requested)
        assert card is not None
        assert card.cost((1000, 100, 1100, *[0] * 16)) == cost.scaleb(12)


LISTED = [
    ("azure", "gpt-4o", "deployed-inside-7", "azure.ai.openai", "gpt-4o"),
    ("openai", "gpt-4o-mini", "a-proxy-says-so", "openai", "gpt-4o-mini"),
    ("openai", "our-alias", "gpt-4o-mini-2024-07-18", "openai", "gpt-4o-mini"),
    ("openrouter", "openrouter/auto", "anthropic/claude-sonnet-4.5", "openrouter", None),
    ("google_vertexai", "gemini-2.5-flash", "publishers/x/y", "gcp.vertex_ai", "gemini-2.5-flash"),
]


@pytest.mark.parametrize(("provider", "requested", "answered", "ours", "listed"), LISTED)
def test_the_catalogue_is_asked_for_both_names(
    provider: str, requested: str, answered: str, ours: str, listed: str | None
) -> None:
    """Deployments, proxies and routers: the name that answered, then the one requested."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    for _ in range(2):
        invoke(meter, provider, requested, answered)
    price = PriceBook().cost(ours, listed or answered, input=1000, output=100)
    assert price is not None
    assert meter.cost.total_cost == 2 * price
    assert meter.snapshot().unpriced == {}


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A catalogue that does not load until the event is set."""
    on, read = threading.Event(), catalogue._read

    def slow(number: str) -> Any:
        on.wait(60)
        return read(number)

    monkeypatch.setattr(catalogue, "_table", None)
    monkeypatch.setattr(catalogue, "_warming", None)
    monkeypatch.setattr(catalogue, "_read", slow)
    yield on
    on.set()
    catalogue.warm(wait=True)


@pytest.mark.parametrize("kind", [Meter, CostTrackingCallback])
def test_own_prices_are_charged_before_the_catalogue_is_loaded(
    kind: Any, cold: threading.Event
) -> None:
    """From the first call on: by name, by its undated form, by `provider/*`."""
    own = {"openai/gpt-4o": flat(1), "acme/*": flat(2)}
    handler = kind(prices=PriceBook(own))
    invoke(handler, "openai", "gpt-4o", "gpt-4o")
    invoke(handler, "openai", "mine", "gpt-4o-2024-08-06")
    invoke(handler, "acme", "x", None)
    costs = {key: stats.cost for key, stats in _models(handler).items()}
    assert costs == {
        ("openai", "gpt-4o"): ONE,
        ("openai", "gpt-4o-2024-08-06"): ONE,
        ("acme", "x"): 2 * ONE,
    }
    assert not catalogue.ready()


def _models(handler: Any) -> Any:
    from langmeter import Snapshot

    return Snapshot(handler._recorder.snapshot([])).models


def test_a_budget_holds_own_prices_before_the_catalogue_is_loaded(cold: threading.Event) -> None:
    """It blocks the call that does not fit, and spends what the others cost."""
    budget = Budget(usd=ONE * 3, action="block")
    meter = Meter(budgets=[budget], prices=PriceBook({"acme/*": flat(1)}))
    fake = client("acme", "m", "m").bind(max_tokens=100)
    made = 0
    try:
        for _ in range(9):
            fake.invoke("?" * 900, config={"callbacks": [meter]})
            made += 1
    except BudgetExceeded:
        pass
    assert made in (2, 3)
    assert budget.spent == made * ONE
    assert not catalogue.ready()


def test_a_late_price_follows_the_same_rule(cold: threading.Event) -> None:
    """Calls that ended before the catalogue was there are charged as the model requested."""
    meter = Meter()
    invoke(meter, "azure", "gpt-4o", "deployed-inside-7")
    invoke(meter, "openai", "mine", "gpt-4o-mini-2024-07-18")
    assert {stats.cost for stats in _models(meter).values()} == {None}
    cold.set()
    azure = PriceBook().cost("azure", "gpt-4o", input=1000, output=100)
    mini = PriceBook().cost("openai", "gpt-4o-mini", input=1000, output=100)
    assert azure is not None
    assert mini is not None
    assert meter.cost.total_cost == azure + mini
    assert meter.snapshot().models["azure.ai.openai", "deployed-inside-7"].cost == azure


def test_a_price_set_for_the_requested_name_prices_what_is_unpriced() -> None:
    """Groups of calls remember what was requested."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    for _ in range(3):
        invoke(meter, "acme", "alias", "inner")
    assert meter.cost.total_cost is None
    meter.cost.prices.set("acme", "alias", input=1, output=1)
    assert meter.cost.total_cost == 3 * ONE


def test_total_cost_is_none_where_nothing_is_priced() -> None:
    """Before the first call too: unknown is not free."""
    meter = Meter(prices=PriceBook({"acme/free": flat(0)}).warm(wait=True))
    assert meter.cost.total_cost is None
    invoke(meter, "acme", "unheard-of", None)
    assert meter.cost.total_cost is None
    invoke(meter, "acme", "free", None)
    assert meter.cost.total_cost == 0


def test_embeddings_of_an_own_price_are_priced_at_once(cold: threading.Event) -> None:
    """By the same rule as chat models."""
    meter = Meter(prices=PriceBook({"deterministicfake/*": flat(1)}))
    embeddings = track_embeddings(DeterministicFakeEmbedding(size=3), meter, token_counter=len)
    embeddings.embed_query("four")
    (stats,) = _models(meter).values()
    assert (stats.priced_calls, stats.unpriced_calls) == (1, 0)


TIERS = [
    # What the response says, the tier as prices know it.
    ({"service_tier": "flex"}, "flex"),
    ({"service_tier": "priority"}, "priority"),
    ({"usage": {"speed": "fast", "input_tokens": 1000, "output_tokens": 100}}, "fast"),
    (
        {"usage": {"inference_geo": "us", "input_tokens": 1000, "output_tokens": 100}},
        "inference_geo=us",
    ),
]


@pytest.mark.parametrize(("meta", "tier"), TIERS)
def test_what_changes_a_price_is_charged(meta: dict[str, Any], tier: str) -> None:
    """Tier, speed and region, where an own price names them."""
    book = PriceBook({"acme/m": {**flat(1), "tiers": {tier: flat(3)}}}).warm(wait=True)
    meter = Meter(prices=book)
    for _ in range(2):
        invoke(meter, "acme", "m", "m", **meta)
    assert meter.cost.total_cost == 6 * ONE


@pytest.mark.parametrize(("meta", "tier"), TIERS)
def test_what_has_no_price_of_its_own_is_said_once(
    meta: dict[str, Any], tier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The standard price is charged, and a warning names model, tier and remedy."""
    meter = Meter(prices=PriceBook({"acme/m": flat(1)}).warm(wait=True))
    with caplog.at_level(logging.WARNING, "langmeter"):
        for _ in range(3):
            invoke(meter, "acme", "m", "m", **meta)
    assert meter.cost.total_cost == 3 * ONE
    (record,) = caplog.records
    assert f"acme/m as {tier}" in record.getMessage()
    assert repr({tier: ...})[:-10] in record.getMessage()


def test_of_two_modifiers_the_one_without_a_price_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Fast in a region: the catalogue has a price of the first alone."""
    book = PriceBook().warm(wait=True)
    card = book.card("anthropic", "claude-opus-4-8", tier="speed=fast;inference_geo=us")
    fast = book.card("anthropic", "claude-opus-4-8", tier="fast")
    assert card is not None
    assert fast is not None
    assert (card.tier, card.bands) == ("speed=fast", fast.bands)
    both = PriceBook({"acme/m": {**flat(1), "tiers": {"us": flat(2)}}}).card(
        "acme", "m", tier="speed=fast;inference_geo=us"
    )
    assert both is not None
    assert (both.tier, both.bands[0].input) == ("inference_geo=us", 2_000_000)


def test_a_hundred_unknown_models_are_ten_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """The tenth says that there will be no more; `snapshot.unpriced` has them all."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    with caplog.at_level(logging.WARNING, "langmeter"):
        for n in range(100):
            invoke(meter, "acme", f"m{n}", None)
    assert len(caplog.records) == 10
    assert "models without a price are only counted" in caplog.records[-1].getMessage()
    assert len(meter.snapshot().unpriced) == 100
    assert meter.snapshot().dropped == {"warnings": 90}


def test_every_name_of_a_provider_is_one_provider() -> None:
    """Our names are their own names; usage and prices have one table."""
    for alias, name in PROVIDER_NAMES.items():
        assert provider_name(alias) == provider_name(f" {alias.upper()} ") == name
        assert provider_name(name) == name
    for provider in catalogue.current().providers if catalogue.current() else ():  # type: ignore[union-attr]
        assert catalogue_id(provider_name(provider.id)) in (provider.id, provider.id.lower())


def test_prices_are_found_by_every_name_of_a_provider() -> None:
    """What the usage side calls a provider, the price side knows."""
    book = PriceBook().warm(wait=True)
    for alias in PROVIDER_NAMES:
        ours, theirs = provider_name(alias), catalogue_id(provider_name(alias))
        for name in ("gpt-4o", "claude-sonnet-4-5", "kimi-k2", "grok-4"):
            assert book.card(alias, name) == book.card(ours, name) == book.card(theirs, name)
