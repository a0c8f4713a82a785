"""Defaults, errors and manners of the price book; expected figures are worked out by hand."""

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
from langmeter.prices import PriceBook, RateCard, book, usd
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
