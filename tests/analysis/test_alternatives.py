"""Advice on another model: the same traffic at the prices of relatives and of named models."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import genai_prices
import pytest

from langmeter import Snapshot
from langmeter.analysis import advise
from langmeter.analysis.advice.model_family import is_successor, model_name
from langmeter.prices import PriceBook
from tests.support.advice import Traffic, only, own


def _listed(model: str, usage: Mapping[str, int], provider: str = "openai") -> Decimal:
    """What genai-prices itself charges."""
    counts = genai_prices.Usage(**usage)
    return genai_prices.calc_price(counts, model, provider_id=provider).total_price


def test_the_family_is_priced_on_the_same_traffic() -> None:
    """A relative's saving is what genai-prices charges for the one less that for the other."""
    usage = {"input_tokens": 2000, "cache_read_tokens": 500, "output_tokens": 300}
    counts: Any = {"input": 2000, "cache_read": 500, "output": 300}
    findings = Traffic().call("openai/gpt-4o-2024-08-06", 100, **counts).advise()
    moved = {f.title.rpartition("/")[2]: f for f in findings if f.kind == "alternative_model"}
    assert {"gpt-4o-mini"} < moved.keys()
    assert len(moved) == 3
    for model, finding in moved.items():
        charged, instead = (_listed(name, usage) * 100 for name in ("gpt-4o", model))
        assert finding.saving == charged - instead > 0
        assert finding.bound == "exactly"
        assert finding.figures["cost_usd"] == charged
        assert finding.figures["other_cost_usd"] == instead
        assert finding.figures["calls"] == 100
        assert finding.figures["input_tokens"] == 200_000
        assert "as many tokens" in finding.assumption


@pytest.mark.parametrize(
    ("model", "relatives", "strangers"),
    [
        (
            "gpt-4o",
            ["gpt-4o-mini", "gpt-4.1", "gpt-5-nano", "gpt-4o-2024-05-13"],
            ["gpt-3.5-turbo", "gpt-4o-audio-preview", "gpt-4.5-preview", "gpt-4o:extended", "o1"],
        ),
        ("o1", ["o3", "o4-mini"], ["o1-preview", "gpt-4o", "o3-deep-research"]),
        (
            "claude-opus-4-1-20250805",
            ["claude-opus-4-5", "claude-haiku-4-5"],
            ["claude-opus-4-0", "claude-3-5-haiku-latest", "claude-instant-1"],
        ),
        ("gemini-3-flash-preview", ["gemini-3.5-flash"], ["gemini-3-pro-preview", "gemma-3"]),
        ("llama-3.1-70b-instruct", ["llama-3.3-8b-instruct"], ["llama-guard-3-8b", "llama-2-70b"]),
        ("mistral-large-2407", ["mistral-small-2512"], ["mistral-tiny-2312", "mistral-large"]),
        ("command-r-plus", ["command-r"], ["command", "command-r-08-2024"]),
        ("text-embedding-3-large", ["text-embedding-3-small"], ["text-embedding-ada-002"]),
        ("qwen/qwen3-32b", ["qwen/qwen3.8-a3b"], ["qwen/qwen3-coder-30b", "acme/qwen3-8b"]),
    ],
)
def test_a_family_is_words_and_no_older_version(
    model: str, relatives: list[str], strangers: list[str]
) -> None:
    """Sizes and dates differ within a family; another word or an older version is outside."""
    current = model_name(model)
    assert [n for n in relatives if not is_successor(model_name(n), current)] == []
    assert [n for n in strangers if is_successor(model_name(n), current)] == []


def test_a_named_model_is_compared_even_where_it_costs_more() -> None:
    """By hand: 3,000 × 2 + 1,000 × 8 millionths against 3,000 × 1 + 1,000 × 4, and back."""
    prices = own(input=2, output=8)
    one = Traffic(prices).call("acme/one", 10, input=300, output=100)
    (finding,) = one.advise(alternatives=["acme/two"])
    assert finding.saving == Decimal("0.007")
    assert "saves exactly $0.007000" in str(finding)
    assert (finding.provider, finding.model) == ("acme", "one")
    two = Traffic(prices).call("acme/two", 10, input=300, output=100)
    (finding,) = two.advise(alternatives=[("acme", "one")])
    assert finding.saving == Decimal("-0.007")
    assert "costs exactly $0.007000" in str(finding)


def test_a_relative_that_is_named_is_shown_once() -> None:
    """Naming a model of the family adds nothing to what is found anyway."""
    traffic = Traffic().call("openai/gpt-4o", input=1000, output=100)
    named = traffic.advise(alternatives=["openai/gpt-4o-mini", "openai/gpt-4o"])
    assert [str(finding) for finding in named] == [str(finding) for finding in traffic.advise()]


def test_an_embedding_model_is_compared_with_its_kind_only() -> None:
    """A model with output is not an alternative to one without, nor the reverse."""
    traffic = Traffic().call("openai/text-embedding-3-large", 10, input=3000)
    traffic.call("openai/gpt-4o", input=10, output=10)
    findings = traffic.advise(
        alternatives=["openai/text-embedding-3-small", "anthropic/claude-haiku-4-5"]
    )
    moved = {(f.model, f.title.rpartition("/")[2]) for f in findings if "traffic on" in f.title}
    assert ("text-embedding-3-large", "text-embedding-3-small") in moved
    assert ("gpt-4o", "claude-haiku-4-5") in moved
    assert not {pair for pair in moved if ("embedding" in pair[0]) != ("embedding" in pair[1])}


def test_relatives_have_room_for_the_mean_call() -> None:
    """The catalogue gives gpt-4o-mini 128,000 tokens of context and gpt-5-nano 400,000."""
    for mean, expected in ((1_000, {"gpt-4o-mini", "gpt-5-nano"}), (150_000, {"gpt-5-nano"})):
        findings = Traffic().call("openai/gpt-4o", 2, input=mean, output=10).advise()
        shown = {f.title.rpartition("/")[2] for f in findings if f.kind == "alternative_model"}
        assert shown & {"gpt-4o-mini", "gpt-5-nano"} == expected


def test_a_failure_without_tokens_is_all_there_is_to_say() -> None:
    """A model none of whose calls used a token has no price to compare."""
    (finding,) = Traffic().call("openai/gpt-4o", 2, outcome="error").advise()
    assert finding.kind == "unfinished"


def test_a_model_whose_provider_is_not_known_is_advised_on_by_its_name() -> None:
    """The catalogue tells the provider of a well-known name; titles show no empty provider."""
    findings = Traffic().call("/gpt-4o", 2, input=1000, output=100).advise()
    titles = [finding.title for finding in findings if finding.kind == "alternative_model"]
    assert "gpt-4o: the same traffic on gpt-4o-mini" in titles


def test_unpriced_traffic_gets_the_other_cost_and_no_saving() -> None:
    """Without a price there is no saving, but what it would cost elsewhere is a figure."""
    traffic = Traffic(own(input=2, output=8)).call("acme/nameless", 4, input=500, output=250)
    (finding,) = traffic.advise(alternatives=["acme/two"])
    assert finding.saving is None
    assert finding.figures["other_cost_usd"] == Decimal("0.006")
    assert finding.figures["unpriced_calls"] == 4
    assert "saves" not in str(finding)


def test_calls_that_were_not_priced_are_taken_at_standard_rates() -> None:
    """A price that came late prices all the traffic, and the finding says how much was unpriced."""
    traffic = Traffic(own(input=2, output=8))
    traffic.call("acme/one", 2, input=500, output=250, priced=False)
    traffic.call("acme/one", 2, input=500, output=250)
    (finding,) = traffic.advise(alternatives=["acme/two"])
    assert finding.figures["cost_usd"] == Decimal("0.012")
    assert finding.saving == Decimal("0.006")
    assert finding.figures["unpriced_calls"] == 2


def test_long_context_bands_make_a_saving_a_bound() -> None:
    """Sums don't show which calls were long: the saving is the least, the other cost a range."""
    bands = [{"above": 1000, "input": 2, "output": 8}]
    prices = PriceBook(
        {
            "acme/one": {"input": 4, "output": 16},
            "acme/two": {"input": 1, "output": 4, "bands": bands},
        }
    )
    short = Traffic(prices).call("acme/one", 10, input=90, output=10)
    (finding,) = short.advise(alternatives=["acme/two"])  # 900 tokens: none can be above 1,000
    assert (finding.bound, finding.saving) == ("exactly", Decimal("0.00390"))
    long = Traffic(prices).call("acme/one", 10, input=900, output=100)
    (finding,) = long.advise(alternatives=["acme/two"])
    assert finding.bound == "at least"
    assert finding.figures["other_cost_lowest_usd"] == Decimal("0.013")
    assert finding.figures["other_cost_highest_usd"] == Decimal("0.026")
    assert finding.saving == Decimal("0.052") - Decimal("0.026")
    dear = Traffic(prices).call("acme/two", 3, input=900, output=100)
    dear.call("acme/one", 1, input=1500, output=100)
    findings = dear.advise(alternatives=["acme/one", "acme/two"])
    # Charged what the lowest band costs: none of the calls to `two` was long.
    assert only([f for f in findings if f.model == "two"], "alternative_model").saving == Decimal(
        "-0.0117"
    )


def test_what_was_charged_tells_that_no_call_was_long() -> None:
    """Charged exactly at the lowest band, the next one is out for the other model too."""
    bands = [{"above": 1000, "input": 20, "output": 80}]
    prices = PriceBook(
        {
            "acme/one": {"input": 4, "output": 16, "bands": bands},
            "acme/two": {"input": 1, "output": 4, "bands": bands},
        }
    )
    traffic = Traffic(prices).call("acme/one", 10, input=900, output=100)
    (finding,) = traffic.advise(alternatives=["acme/two"])
    assert (finding.bound, finding.saving) == ("exactly", Decimal("0.039"))
    traffic.call("acme/one", input=1001, output=100)
    (finding,) = traffic.advise(alternatives=["acme/two"])
    assert finding.bound == "at least"
    unpriced = Traffic(prices).call("acme/one", 10, input=900, output=100, priced=False)
    (finding,) = unpriced.advise(alternatives=["acme/two"])
    assert {"cost_lowest_usd", "cost_highest_usd"} < finding.figures.keys()
    assert finding.bound == "at least"


def test_requests_and_searches_are_charged_by_the_call() -> None:
    """A fee for each request is paid once a call, not once a snapshot."""
    prices = PriceBook(
        {
            "acme/one": {"input": 2, "output": 8, "request": 0.01, "web_search": 0.1},
            "acme/two": {"input": 2, "output": 8, "request": 0.001, "web_search": 0.01},
        }
    )
    traffic = Traffic(prices).call("acme/one", 5, input=100, output=10, web_searches=2)
    (finding,) = traffic.advise(alternatives=["acme/two"])
    assert finding.saving == 5 * Decimal("0.009") + 10 * Decimal("0.09")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt-4o", 'must be "provider/model"'),
        ("openai/", 'must be "provider/model"'),
        (("", "gpt-4o"), 'must be "provider/model"'),
        ("acme/three", "no price is known for the alternative acme/three"),
    ],
)
def test_an_alternative_without_a_price_is_an_error(name: Any, message: str) -> None:
    """What was asked for and cannot be answered is said, not left out."""
    with pytest.raises(ValueError, match=message):
        advise(Snapshot(), alternatives=[name])
