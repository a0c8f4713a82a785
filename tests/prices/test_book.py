"""Own prices, defaults, errors and the book's manners; expected figures are worked out by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from langmeter import Budget, Meter
from langmeter.prices import PriceBook, RateCard, book, catalogue, usd
from tests.support.models import chat_model

OWN = {"input": 0.9, "output": 1.8}


def test_nvidia_nim_has_a_default_price_marked_as_such() -> None:
    """0.0002 USD per 1,000 tokens, in and out, for every model of the provider."""
    prices = PriceBook()
    assert prices.cost("nvidia_nim", "meta/llama-3.1-70b-instruct", input=1000) == Decimal("0.0002")
    assert prices.cost("nvidia_nim", "any/other", output=1000) == Decimal("0.0002")
    card = prices.card("nvidia", "any/other")
    assert card is not None
    assert card.source == "default"
    assert (card.bands[0].input, card.scale) == (200_000, 1)


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


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (7, ["mapping", "7"]),
        ({"gpt-4o": OWN}, ["'gpt-4o'", "provider/model"]),
        ({5: OWN}, ["5", "provider/model"]),
        ({"a/m": 3}, ["a/m", "table"]),
        ({"a/m": {"input": 1}}, ['prices."a/m".output must be given']),
        (
            {"a/m": {**OWN, "inptu": 1}},
            ["unknown setting", "inptu", "did you mean 'input'", "known are"],
        ),
        (
            {"a/m": {**OWN, "input": -1}},
            ["input must be a number", "0 to 1,000,000", "got -1", "per million"],
        ),
        ({"a/m": {**OWN, "input": float("nan")}}, ["got nan"]),
        ({"a/m": {**OWN, "input": 1e9}}, ["got 1000000000.0"]),
        ({"a/m": {**OWN, "input": "free"}}, ["got 'free'"]),
        ({"a/m": {**OWN, "input": True}}, ["got True"]),
        ({"a/m": {**OWN, "web_search": None}}, ["web_search must be", "USD each", "got None"]),
        ({"a/m": {**OWN, "bands": {"above": 1}}}, ["bands", "list of tables"]),
        ({"a/m": {**OWN, "bands": [{"above": 1.5}]}}, ["bands[0].above must be", "got 1.5"]),
        ({"a/m": {**OWN, "bands": [{"input": 1}]}}, ["above must be", "got None"]),
        (
            {"a/m": {**OWN, "bands": [{"above": 9}, {"above": 9}]}},
            ["bands[1].above must be", "got 9", "greater"],
        ),
        (
            {"a/m": {**OWN, "bands": [{"above": 9, "reasoning": 1}]}},
            ["bands[0].reasoning must be", "outside"],
        ),
        ({"a/m": {**OWN, "tiers": [1]}}, ["tiers", "table"]),
        ({"a/m": {**OWN, "tiers": {"batch": 1}}}, ["tiers.batch must be a table"]),
        ({"a/m": {**OWN, "tiers": {"batch": {"date": 1}}}}, ["tiers.batch.date", "known are"]),
        ({"a/m": {**OWN, "date": 5}}, ["date", "5"]),
        ({"prices": []}, ["prices", "[]"]),
        ({"m": {"input_cost_per_token": 1e-6}}, ["'m'", "litellm_provider"]),
        ({"a/m": {"input_cost_per_token": "x"}}, ["input_cost_per_token = 'x'", "0 to 1000"]),
        ({"a/m": {"input_cost_per_token": -1}}, ["input_cost_per_token = -1"]),
        ({"a/m": {"input_cost_per_token": False}}, ["input_cost_per_token = False"]),
    ],
)
def test_a_bad_price_is_refused_by_name(prices: Any, words: list[str]) -> None:
    """The error names the value, what is allowed and what to write instead."""
    with pytest.raises(ValueError, match=r".") as caught:
        PriceBook(prices)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.toml", "[prices", ["p.toml", "TOML"]),
        ("p.json", "{", ["p.json", "JSON"]),
        ("p.yaml", "", ["p.yaml", ".toml or .json"]),
        ("p.json", "[1]", ["p.json", "[1]"]),
    ],
)
def test_a_bad_file_is_refused_by_name(
    name: str, text: str, words: list[str], tmp_path: Path
) -> None:
    """The error names the file."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r".") as caught:
        PriceBook(tmp_path / name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"input": -1}, ["input = -1", ">= 0"]),
        ({"output": 1.5}, ["output = 1.5", "whole number"]),
        ({"input": True}, ["input = True"]),
        ({"input": None}, ["input = None"]),
        ({"input": 5, "cache_read": 3, "cache_write": 3}, ["input = 5", "= 6", "inclusive"]),
        (
            {"input": 9, "cache_write": 3, "cache_write_1h": 4},
            ["cache_write = 3", "cache_write_1h"],
        ),
        ({"output": 3, "reasoning": 4}, ["output = 3", "reasoning"]),
        ({"at": float("nan")}, ["at = nan"]),
        ({"at": True}, ["at = True"]),
        ({"at": "today"}, ["at = 'today'", "datetime"]),
        ({"at": 1e12}, ["at = 1000000000000.0"]),
    ],
)
def test_a_bad_usage_is_refused_by_name(usage: dict[str, Any], words: list[str]) -> None:
    """The error names the count, what is allowed and the remedy."""
    with pytest.raises(ValueError, match=r".") as caught:
        PriceBook().cost("nvidia_nim", "m", **usage)
    for word in words:
        assert word in str(caught.value)


def test_money_is_exact_whatever_the_callers_decimal_context() -> None:
    """A context of three digits does not reach into the book."""
    with localcontext(prec=3):
        cost = PriceBook({"a/m": OWN}).cost("a", "m", input=123_456_789)
        assert cost == Decimal("111.1111101")
        assert str(usd(10**30 + 1)) == "1000000000000000000.000000000001"


def test_explanations_say_what_a_model_costs_and_why() -> None:
    """Source, listing, rates, bands, tiers: as text for people and as data for programs."""
    at = datetime(2026, 10, 20, 12, tzinfo=UTC)
    prices = PriceBook()
    told = prices.explain("gcp.gemini", "models/gemini-2.5-pro", at=at)
    text = str(told)
    assert "google/gemini-2.5-pro" in text
    assert "more than 200,000 input tokens" in text
    assert "1.25 USD per million tokens" in text
    data = json.loads(json.dumps(told.to_dict()))
    assert [band["above"] for band in data["bands"]] == [0, 200_000]
    assert data["bands"][1]["output"] == "15"
    assert "batch" in data["tiers"]
    daily = prices.explain("deepseek", "deepseek-v4-flash", at=at)
    assert "until 2026-10-2" in str(daily)
    assert datetime.fromisoformat(daily.to_dict()["valid_until"]) > at
    assert "standard prices apply" in str(prices.explain("openai", "gpt-4o", tier="odd", at=at))
    assert "charged on top" in str(prices.explain("openai", "whisper-1"))
    assert "no charge per token" in str(prices.explain("openai", "whisper-1"))
    assert prices.explain("azure.ai.openai", "gpt-4o").variants == ()
    routed = prices.explain("openrouter", "mistralai/mistral-large-4-0")
    assert routed.variants == ("route=mistral/eu",)
    unknown = prices.explain("", "unlisted-model")
    assert "PROVIDER" in str(unknown)
    assert unknown.to_dict()["bands"] == []
    assert "default" in str(prices.explain("nvidia_nim", "x"))


def test_a_rate_card_is_plain_data() -> None:
    """Tuples of numbers and text only, so that it can cross into Rust as it is."""

    def plain(value: object) -> bool:
        return (
            all(map(plain, value)) if isinstance(value, tuple) else type(value) in (int, float, str)
        )

    card = PriceBook().card("anthropic", "claude-sonnet-4-5")
    assert isinstance(card, RateCard)
    assert plain(card)


def test_many_threads_get_one_answer() -> None:
    """Sixteen threads asking and one setting prices agree in the end."""
    prices = PriceBook()
    start = threading.Barrier(17)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            start.wait()
            for n in range(200):
                assert prices.card("nvidia_nim", f"m{n % 7}") is not None
                prices.card("openai", "gpt-4o")
        except BaseException as error:  # reported below: a thread's assertion is silent
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    start.wait()
    for n in range(50):
        prices.set("openai", "gpt-4o", input=n, output=n)
    for thread in threads:
        thread.join()
    assert not failures
    assert prices.cost("openai", "gpt-4o", input=1_000_000) == 49


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.process
def test_no_catalogue_is_loaded_before_it_is_asked() -> None:
    """Making a book, own prices and defaults load no catalogue; the first listed model does."""
    assert (
        run(
            "import sys; from langmeter.prices import PriceBook\n"
            "book = PriceBook({'openai/mine': {'input': 1, 'output': 1}})\n"
            "assert book.card('nvidia_nim', 'm') and book.card('openai', 'mine')\n"
            "assert not book.ready and 'genai_prices' not in sys.modules\n"
            "assert 'pydantic' not in sys.modules\n"
            "assert book.card('openai', 'gpt-4o') and book.ready\n"
            "print('genai_prices' in sys.modules)"
        )
        == "False"
    )


@pytest.mark.process
def test_warming_loads_the_catalogue_in_a_thread() -> None:
    """`warm(wait=True)` leaves a book that is ready; a second call starts no second thread."""
    assert (
        run(
            "import threading; from langmeter.prices import PriceBook, catalogue\n"
            "book = PriceBook().warm(); thread = catalogue._warming; book.warm()\n"
            "assert catalogue._warming is thread\n"
            "book.warm(wait=True); assert book.ready and not thread.is_alive()\n"
            "book.warm(); assert catalogue._warming is thread\n"
            "print(book.card('openai', 'gpt-4o').model)"
        )
        == "gpt-4o"
    )


def test_windows_kept_for_one_model_are_bounded() -> None:
    """Asking for the price on a hundred days keeps the last few windows only."""
    prices = PriceBook()
    for day in range(100):
        assert prices.card("deepseek", "deepseek-v4-flash", at=1.8e9 + day * 86_400) is not None
    (answer,) = prices._answers.values()
    assert len(answer[3]) <= book._MAX_WINDOWS


WEST = timezone(-timedelta(hours=5))


@pytest.mark.parametrize(
    "at",
    [
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=WEST),
        datetime.max,  # a float of seconds rounds it up into the year 10000
        datetime(1969, 12, 31, tzinfo=UTC),
        253_402_300_800,
        -1,
        float("nan"),
        float("inf"),
        True,
        "2026-10-01",
    ],
)
def test_a_time_that_no_calendar_has_is_refused_by_value_range_and_remedy(at: Any) -> None:
    """The years 1970 to 9999, in UTC."""
    message = f"at = {at!r} must be a datetime or Unix seconds between the years 1970 and 9999"
    with pytest.raises(ValueError, match=re.escape(message) + r".*datetime\.now\(UTC\)"):
        PriceBook().cost("openai", "gpt-4o", input=1, at=at)


def test_the_first_and_the_last_second_have_prices() -> None:
    """Also where the datetime is naive, which means UTC."""
    book = PriceBook()
    for at in (0, datetime(1970, 1, 1), 253_402_300_799.0, datetime(9999, 12, 31, 23, 59, 59)):
        assert book.cost("openai", "gpt-4o", input=1, at=at) == Decimal("0.0000025")


def test_no_amount_prints_as_a_scaled_zero() -> None:
    """A cost of nothing is 0: the cost of no tokens, of no calls, what a budget has spent."""
    assert str(PriceBook().cost("openai", "gpt-4o")) == "0"
    budget, free = Budget(usd=1), PriceBook({"genericfakechatmodel/*": {"input": 0, "output": 0}})
    meter = Meter(prices=free, budgets=[budget])
    chat_model().invoke("x", {"callbacks": [meter]})
    stats = meter.snapshot().totals
    amounts = [stats.cost, meter.cost.total_cost, meter.cost.burn_rate, budget.spent]
    amounts += [budget.reserved, *meter.cost.provider_costs.values(), usd(0)]
    assert [str(amount) for amount in amounts] == ["0"] * len(amounts)
    assert repr(budget) == "<Budget '1 USD': 0 of 1 USD spent>"
    assert stats.priced_calls == 1
