"""Own prices: from every source, by the catalogue's side, and in LiteLLM's form."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from langmeter.prices import PriceBook, catalogue

OWN = {"input": 0.9, "output": 1.8}


@pytest.mark.parametrize("form", ["mapping", "toml", "json", "bare json"])
def test_own_prices_read_the_same_from_every_source(form: str, tmp_path: Path) -> None:
    """Keyword, TOML and JSON give one price, which wins over the provider's default."""
    name = "nvidia_nim/meta/llama-3.1-70b-instruct"
    spec = {"input": 0.9, "output": 0.9, "cache_read": 0.09}
    if form == "mapping":
        prices = PriceBook({name: spec})
        source = "own"
    else:
        file = tmp_path / ("prices.toml" if form == "toml" else "prices.json")
        if form == "toml":
            file.write_text(f'[prices."{name}"]\ninput = 0.9\noutput = 0.9\ncache_read = 0.09\n')
        else:
            file.write_text(
                json.dumps({"prices": {name: spec}} if form == "json" else {name: spec})
            )
        prices = PriceBook(str(file))
        source = f"own ({file.name})"
    cost = prices.cost("nvidia_nim", "Meta/Llama-3.1-70B-instruct", input=1000, cache_read=500)
    assert cost == Decimal("0.000495")  # 500 × 0.9e-6 + 500 × 0.09e-6
    card = prices.card("nvidia_nim", "meta/llama-3.1-70b-instruct")
    assert card is not None
    assert card.source == source
    other = prices.card("nvidia_nim", "another")
    assert other is not None
    assert other.source == "default"


def test_own_prices_win_over_the_catalogue_for_dated_names_too() -> None:
    """A price of gpt-4o covers gpt-4o-2024-08-06, which the catalogue lists under it."""
    prices = PriceBook({"openai/gpt-4o": OWN})
    for model in ("gpt-4o", "gpt-4o-2024-08-06"):
        assert prices.cost("openai", model, input=1_000_000) == Decimal("0.9")
    listed = prices.card("openai", "gpt-4o-mini")
    assert listed is not None
    assert listed.source.startswith("genai-prices")


def test_a_price_of_all_models_of_a_provider() -> None:
    """`provider/*` holds for models without a price of their own, in the provider's every name."""
    prices = PriceBook({"azure/*": OWN, "azure.ai.openai/mine": {"input": 7, "output": 8}})
    assert prices.cost("azure.ai.openai", "whatever", output=1_000_000) == Decimal("1.8")
    assert prices.cost("azure", "gpt-4o", output=1_000_000) == Decimal("1.8")
    assert prices.cost("azure_openai", "mine", output=1_000_000) == 8


def test_own_bands_tiers_and_dates() -> None:
    """A band reprices the whole call; a tier changes only what it names."""
    spec = {
        "input": "1",
        "output": Decimal(2),
        "web_search": 0.01,
        "request": 0.5,
        "bands": [{"above": 100, "input": 10}, {"above": 1000, "input": 100}],
        "tiers": {"batch": {"output": 1, "bands": [{"above": 100, "output": 3}]}},
        "date": datetime(2026, 10, 1, tzinfo=UTC).date(),
        "source": "contract 7",
    }
    prices = PriceBook({"acme/m": spec})

    def micro(**usage: Any) -> Decimal:
        cost = prices.cost("acme", "m", **usage)
        assert cost is not None
        return (cost - Decimal("0.5")) * 1_000_000

    assert micro(input=100, output=1) == 102
    assert micro(input=101, output=1) == 1012
    assert micro(input=1001) == 100_100
    assert micro(output=1, tier="batch") == 1
    assert micro(input=101, output=1, tier="batch") == 1013
    assert micro(output=1, tier="flex") == 2
    assert micro(web_searches=3) == 30_000
    card = prices.card("acme", "m", tier="batch")
    assert card is not None
    assert (card.source, card.date, card.tier) == ("contract 7", "2026-10-01", "batch")
    assert "batch" in str(prices.explain("acme", "m"))


def test_every_kind_has_its_rate() -> None:
    """Each kind is charged at its own price, once, and not again as part of its whole."""
    kinds = {
        "input": 1,
        "output": 2,
        "cache_read": 3,
        "cache_write": 5,
        "cache_write_1h": 7,
        "reasoning": 11,
        "audio_input": 13,
        "audio_output": 17,
        "image_input": 19,
        "image_output": 23,
        "video_input": 29,
        "video_output": 31,
        "citation": 37,
        "web_search": 41,
        "file_search": 43,
    }
    prices = PriceBook({"acme/m": kinds})
    cost = prices.cost(
        "acme",
        "m",
        input=10**3 + 10**4 + 10**5 + 10**6 + 10**7 + 1,
        cache_read=10**3,
        cache_write=10**4,
        cache_write_1h=10**2,
        audio_input=10**5,
        image_input=10**6,
        video_input=10**7,
        output=10 + 100 + 1000 + 10**4 + 10**5 + 10**6,
        reasoning=10,
        audio_output=100,
        image_output=10**4,
        video_output=10**5,
        citation=10**6,
        web_searches=2,
        file_searches=3,
    )
    by_hand = 1 + 3 * 10**3 + 5 * (10**4 - 10**2) + 7 * 10**2 + 13 * 10**5 + 19 * 10**6
    by_hand += 29 * 10**7 + 23 * 10**4 + 31 * 10**5 + 37 * 10**6
    by_hand += 11 * 10 + 17 * 100 + 2 * 1000
    assert cost == Decimal(by_hand).scaleb(-6) + 2 * 41 + 3 * 43


def test_prices_finer_than_a_pico_dollar_are_rounded_once_half_to_even() -> None:
    """0.0000005 USD per million is half a pico-dollar a token: rates stay exact until the sum."""
    card = PriceBook({"acme/m": {"input": "0.0000005", "output": 0}}).card("acme", "m")
    assert card is not None
    assert card.scale == 2
    costs = [card.cost((n, 0, n, *[0] * 15)) for n in range(6)]
    assert costs == [0, 0, 1, 2, 2, 2]
    assert card.usd_rate("input") == Decimal("0.0000005")


def test_a_price_set_later_is_used_from_the_next_question_on() -> None:
    """`set` prices what was unpriced, and `version` tells that asking again is worth it."""
    prices = PriceBook()
    assert prices.cost("ollama", "llama3", input=1) is None
    version = prices.version
    prices.set("ollama", "llama3", input=0.1, output=0.2, cache_read=0.01, date="2026-10-01")
    assert prices.version > version
    assert prices.cost("ollama", "llama3", input=1_000_000) == Decimal("0.1")
    prices.set("ollama", "*", input=5, output=5, bands=[{"above": 10, "input": 6}])
    assert prices.cost("ollama", "other", input=1_000_000) == 6


def test_a_price_set_while_a_question_is_answered_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer made of the old prices never outlives them in the dict."""
    prices = PriceBook()
    real = catalogue.find

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(catalogue, "find", real)
        prices.set("openai", "gpt-4o", input=1, output=1)
        return real(*args)

    monkeypatch.setattr(catalogue, "find", slow)
    card = prices.card("openai", "gpt-4o")
    assert card is not None
    assert card.source == "own"


LITELLM: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": "a number", "litellm_provider": "one of"},
    "gemini/gemini-x": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 3.1e-07,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "output_cost_per_reasoning_token_above_200k_tokens": 9,
        "input_cost_per_token_batches": 6.25e-07,
        "output_cost_per_token_above_200k_tokens_priority": 3e-05,
        "search_context_cost_per_query": {"search_context_size_medium": 0.035},
        "max_tokens": 8192,
        "output_cost_per_reasoning_token": None,
    },
    "embed": {"litellm_provider": "vertex_ai-embedding-models", "input_cost_per_token": 1e-07},
    "dall-e": {"litellm_provider": "openai", "output_cost_per_image": 0.04},
    "acme/meta/m": {"input_cost_per_token": 1e-06, "output_cost_per_token": 0, "mode": "chat"},
}


@pytest.fixture
def litellm(tmp_path: Path) -> PriceBook:
    file = tmp_path / "model_prices.json"
    file.write_text(json.dumps(LITELLM))
    return PriceBook(file)


def test_litellm_prices_keep_their_meaning(litellm: PriceBook) -> None:
    """Prices per token, thresholds, tiers and searches of LiteLLM's JSON, exactly."""

    def cost(**usage: Any) -> Decimal | None:
        return litellm.cost("gcp.gemini", "gemini-x", **usage)

    assert cost(input=1000, cache_read=400, output=10) == Decimal("0.000974")  # 750 + 124 + 100
    assert cost(input=200_000) == Decimal("0.25")
    assert cost(input=200_001, output=1) == Decimal("0.5000175")
    assert cost(input=1000, output=1, tier="batch") == Decimal("0.000635")
    assert cost(input=200_001, output=1, tier="priority") == Decimal("0.5000325")
    assert cost(output=1, tier="priority") == Decimal("0.00001")
    assert cost(web_searches=2) == Decimal("0.07")
    card = litellm.card("gcp.gemini", "gemini-x")
    assert card is not None
    assert card.source == "litellm (model_prices.json)"
    assert litellm.cost("gcp.vertex_ai", "embed", input=10, output=10) == Decimal("0.000001")
    assert litellm.cost("acme", "meta/m", input=1) == Decimal("0.000001")


def test_litellm_entries_without_a_price_per_token_are_left_to_the_catalogue(
    litellm: PriceBook,
) -> None:
    """An image model of LiteLLM's is not an own price, and its sample entry is not a model."""
    assert litellm.cost("openai", "dall-e", input=1) is None
    assert litellm.cost("one of", "sample_spec", input=1) is None
