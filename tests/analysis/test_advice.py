"""Advice: what a snapshot says about spending less, its figures computed independently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from decimal import Decimal, localcontext
from typing import Any
from uuid import uuid4

import genai_prices
import pytest

from langmeter import Snapshot, _core
from langmeter.analysis import Finding, advise, text
from langmeter.analysis.advice.model_family import is_successor, model_name
from langmeter.prices import PriceBook
from langmeter.snapshot import ModelStats

FIELDS = (
    *("input", "output", "total", "cache_read", "cache_write", "cache_write_1h", "reasoning"),
    *("audio_input", "audio_output", "image_input", "image_output", "video_input", "video_output"),
    *("cached_audio", "cached_image", "citation", "web_searches", "file_searches", "estimated"),
)
LLM = _core.KINDS.index("llm")


class Traffic:
    """Calls put straight into a recorder."""

    def __init__(self, prices: PriceBook | None = None) -> None:
        self.recorder = _core.Recorder(significant_digits=2)
        self.prices = prices or PriceBook()

    def call(
        self,
        name: str,
        n: int = 1,
        *,
        outcome: str = "ok",
        tier: str = "",
        priced: bool = True,
        streamed: bool = False,
        **counts: int,
    ) -> Traffic:
        """`n` calls alike."""
        provider, _, model = name.partition("/")
        counts.setdefault("total", counts.get("input", 0) + counts.get("output", 0))
        usage = tuple(counts.get(field, 0) for field in FIELDS) if counts["total"] else None
        card = self.prices.card(provider, model, tier=tier) if usage and priced else None
        cost = card.cost(usage) if card and usage else None
        for _ in range(n):
            run = uuid4()
            self.recorder.run_started(run, None, LLM, "chat", provider, model)
            if streamed:
                self.recorder.token(run)
            self.recorder.run_ended(run, LLM, _core.OUTCOMES.index(outcome), usage=usage, cost=cost)
        return self

    def advise(self, **options: Any) -> list[Finding]:
        return advise(Snapshot(self.recorder.snapshot()), prices=self.prices, **options)


def only(findings: list[Finding], kind: str) -> Finding:
    """The one finding of a kind."""
    (finding,) = (finding for finding in findings if finding.kind == kind)
    return finding


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


def own(**spec: Any) -> PriceBook:
    """Own prices of one model, USD per million tokens, and of one to compare it with."""
    return PriceBook({"acme/one": spec, "acme/two": {"input": 1, "output": 4}})


# --- other models -------------------------------------------------------------------------------


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


# --- caching, tiers, reasoning, failures --------------------------------------------------------


def test_unused_caching_is_an_upper_bound_with_its_assumption() -> None:
    """By hand: of 10 × 1,000 plain tokens 9,000 could be read at 0.2 instead of 2 a million."""
    prices = own(input=2, output=8, cache_read=0.2)
    traffic = Traffic(prices).call("acme/one", 10, input=1500, output=10, cache_read=500)
    finding = only(traffic.advise(), "prompt_caching")
    assert (finding.bound, finding.saving) == ("at most", Decimal("0.0162"))
    assert finding.figures["cache_read_share"] == pytest.approx(1 / 3)
    assert finding.figures["assumed_repeated_share"] == pytest.approx(0.9)
    assert finding.figures["mean_input_tokens"] == 1500
    assert "33.3%" in str(finding)
    assert "assuming that" in str(finding)


@pytest.mark.parametrize("calls", [1, 2, 7])
def test_no_caching_saves_more_than_the_bound(calls: int) -> None:
    """Identical prompts, the first written and the others read: the bound is reached exactly."""
    spec = {"input": 2, "output": 8, "cache_read": 0.2, "cache_write": 2.5}
    plain = Traffic(own(**spec)).call("acme/one", calls, input=1000, output=10)
    best = Traffic(own(**spec)).call("acme/one", input=1000, output=10, cache_write=1000)
    best.call("acme/one", calls - 1, input=1000, output=10, cache_read=1000)
    paid, least = (Snapshot(t.recorder.snapshot()).totals.cost for t in (plain, best))
    assert paid is not None
    assert least is not None
    if calls == 1:
        assert "prompt_caching" not in kinds(plain.advise())
    else:
        assert only(plain.advise(), "prompt_caching").saving == paid - least


def test_no_price_for_reading_a_cache_no_advice_on_it() -> None:
    """Where cached tokens cost what others cost there is nothing to win."""
    assert Traffic(own(input=2, output=8)).call("acme/one", 9, input=900, output=1).advise() == []


def test_cached_media_count_in_the_bound() -> None:
    """Audio and images may be cached too, at a greater gain than text."""
    spec = {"input": 2, "output": 8, "cache_read": 1, "audio_input": 40, "cached_audio": 2}
    spec |= {"image_input": 5, "cached_image": 2}
    traffic = Traffic(own(**spec)).call(
        "acme/one", 2, input=1000, output=1, audio_input=500, image_input=500
    )
    assert only(traffic.advise(), "prompt_caching").saving == Decimal("0.038")


def test_a_cache_that_nobody_reads_is_a_loss() -> None:
    """By hand: 2,000 written for 0.5 and 1,000 for 2 more a million, 1,000 read for 1.8 less."""
    spec = {"input": 2, "output": 8, "cache_read": 0.2, "cache_write": 2.5, "cache_write_1h": 4}
    traffic = Traffic(own(**spec))
    traffic.call(
        "acme/one", input=4000, output=9, cache_write=3000, cache_write_1h=1000, cache_read=1000
    )
    finding = only(traffic.advise(), "unread_cache")
    assert (finding.bound, finding.saving) == ("exactly", Decimal("0.0012"))
    assert finding.figures["reads_per_write"] == 0.33
    traffic.call("acme/one", input=1000, output=9, cache_read=1000)
    assert "unread_cache" not in kinds(traffic.advise())


def test_what_waits_costs_less() -> None:
    """The batch discount is the difference that genai-prices gives for batch processing."""
    traffic = Traffic().call("openai/gpt-4o", 50, input=1000, output=200)
    traffic.call("openai/gpt-4o", 50, input=1000, output=200, streamed=True)
    finding = only(traffic.advise(), "service_tier")
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=200)
    standard = genai_prices.calc_price(usage, "gpt-4o", provider_id="openai").total_price
    batch = genai_prices.calc_price(
        usage, "gpt-4o", provider_id="openai", price_context={"processing": "batch"}
    ).total_price
    assert finding.saving == 100 * (standard - batch) > 0
    assert finding.bound == "at most"
    assert finding.figures["streamed_calls"] == 50
    assert finding.figures["batch_cost_usd"] == 100 * batch


def test_streams_are_not_told_to_wait_for_a_batch() -> None:
    """A batch cannot be streamed; the flex tier can."""
    tiers = {name: {"input": 1, "output": 4} for name in ("batch", "flex", "priority")}
    traffic = Traffic(own(input=2, output=8, tiers=tiers))
    traffic.call("acme/one", 3, input=500, output=250, streamed=True)
    finding = only(traffic.advise(), "service_tier")
    assert "flex price" in finding.title
    assert finding.saving == Decimal("0.0045")


def test_traffic_already_on_a_tier_is_not_told_to_go_there() -> None:
    """What was charged counts, not the standard price; other bounds say what they assume."""
    tiers = {"flex": {"input": 1, "output": 4}}
    prices = own(input=2, output=8, tiers=tiers)
    traffic = Traffic(prices).call("acme/one", 3, input=500, output=250, reasoning=250, tier="flex")
    (finding,) = traffic.advise()
    assert finding.kind == "reasoning"
    # At standard rates 0.006, more than all of it cost.
    assert finding.saving == finding.figures["cost_usd"] == Decimal("0.0045")
    assert "which are not what was charged" in finding.assumption


def test_reasoning_is_shown_with_its_price() -> None:
    """By hand: 10 × 60 reasoning tokens at 10 USD a million."""
    traffic = Traffic(own(input=2, output=8, reasoning=10))
    traffic.call("acme/one", 10, input=100, output=80, reasoning=60)
    (finding,) = traffic.advise()
    assert (finding.saving, finding.bound) == (Decimal("0.006"), "at most")
    assert finding.figures["reasoning_share"] == 0.75
    (finding,) = Traffic().call("unlisted/x", 10, input=100, output=80, reasoning=60).advise()
    assert finding.saving is None
    assert finding.assumption == ""


#: The counters of `ModelStats` on what brought nothing, which the recorder has to have.
RECORDED = "cost_error" in _core.COUNTERS
needs_counters = pytest.mark.skipif(not RECORDED, reason="the recorder has no such counters")


@pytest.fixture(autouse=True)
def wasted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a model's statistics say of waste, where the recorder does not or a test sets it."""
    said: dict[str, Any] = {}

    def told(name: str, usual: Any) -> None:
        real: Any = getattr(ModelStats, name, None)

        def get(stats: Any) -> Any:
            if name in said or not RECORDED:
                return said.get(name, usual)
            return real.__get__(stats)

        monkeypatch.setattr(ModelStats, name, property(get), raising=False)

    told("cost_of", lambda outcome: None)
    told("retried_calls", 0)
    told("retried_cost", None)
    told("truncated", 0)
    return said


def test_calls_without_an_answer_are_counted_with_what_they_cost(wasted: dict[str, Any]) -> None:
    """What failed and cancelled calls are known to have cost is the most there was to save."""
    wasted["cost_of"] = {"error": Decimal("0.0005"), "cancelled": Decimal(0)}.__getitem__
    traffic = Traffic(own(input=2, output=8)).call("acme/one", 6, input=100, output=10)
    traffic.call("acme/one", 2, outcome="error").call("acme/one", 1, outcome="cancelled")
    traffic.call("acme/one", 1, outcome="abandoned", input=10, output=1)
    (finding,) = traffic.advise()
    assert finding.kind == "unfinished"
    assert (finding.saving, finding.bound) == (Decimal("0.0005"), "at most")
    assert dict(finding.figures) == {
        "calls": 10,
        "error_calls": 2,
        "cancelled_calls": 1,
        "abandoned_calls": 1,
        "unfinished_share": 0.4,
        "error_cost_usd": Decimal("0.0005"),
    }


@pytest.mark.parametrize("cost", [None, Decimal(0)])
def test_failures_that_cost_nothing_claim_no_saving(wasted: dict[str, Any], cost: Any) -> None:
    """They are counted all the same."""
    wasted["cost_of"] = lambda outcome: cost
    (finding,) = Traffic().call("unlisted/x", 2, outcome="error").advise()
    assert (finding.kind, finding.saving, finding.assumption) == ("unfinished", None, "")
    assert finding.figures["error_calls"] == 2


def test_second_attempts_are_shown_with_their_cost(wasted: dict[str, Any]) -> None:
    """That of the calls made again, at most: where the first answer was none, one is needed."""
    traffic = Traffic(own(input=2, output=8)).call("acme/one", 8, input=100, output=10)
    wasted.update(retried_calls=2, retried_cost=Decimal("0.00056"))
    (finding,) = traffic.advise()
    assert (finding.kind, finding.saving, finding.bound) == (
        "retried",
        Decimal("0.00056"),
        "at most",
    )
    assert finding.figures["retried_share"] == 0.25
    wasted["retried_cost"] = None
    (finding,) = traffic.advise()
    assert (finding.saving, finding.assumption) == (None, "")
    assert "retried_cost_usd" not in finding.figures


def test_answers_that_were_cut_are_counted(wasted: dict[str, Any]) -> None:
    """With their share of the answers and the mean length; what they cost is unknown."""
    traffic = Traffic(own(input=2, output=8)).call("acme/one", 8, input=100, output=10)
    wasted["truncated"] = 6
    (finding,) = traffic.advise()
    assert (finding.kind, finding.saving) == ("truncated", None)
    assert finding.figures["truncated_share"] == 0.75
    assert finding.figures["mean_output_tokens"] == 10
    assert "6 of 8 answers ended at their limit" in finding.title


@needs_counters
def test_what_the_recorder_counts_is_what_is_advised_on() -> None:
    """A failed call's cost, recorded as any other, is in the finding on calls without answer."""
    traffic = Traffic(own(input=2, output=8)).call("acme/one", 6, input=100, output=10)
    traffic.call("acme/one", 1, outcome="error", input=100, output=10)
    traffic.call("acme/one", 1, outcome="cancelled", input=100, output=5)
    (finding,) = (found for found in traffic.advise() if found.kind == "unfinished")
    assert finding.figures["error_cost_usd"] == Decimal("0.00028")
    assert finding.figures["cancelled_cost_usd"] == Decimal("0.00024")
    assert finding.saving == Decimal("0.00052")


# --- findings -----------------------------------------------------------------------------------


def test_findings_are_sorted_by_what_they_save_and_all_have_figures() -> None:
    """The greatest saving first, those without one last; none comes without a number."""
    traffic = Traffic().call("openai/gpt-4o", 20, input=2000, output=500, reasoning=100)
    traffic.call("anthropic/claude-opus-4-1", 5, input=9000, output=100, cache_write=8000)
    traffic.call("google/gemini-2.5-pro", 9, input=9000, output=700, estimated=9700)
    traffic.call("openai/gpt-4o", 3, outcome="error")
    findings = traffic.advise()
    savings = [finding.saving for finding in findings]
    known = [saving for saving in savings if saving is not None]
    assert known == sorted(known, reverse=True)
    assert savings == [*known, *[None] * (len(savings) - len(known))]
    assert kinds(findings) == {
        *("alternative_model", "prompt_caching", "unread_cache"),
        *("service_tier", "reasoning", "unfinished"),
    }
    assert all(finding.figures for finding in findings)
    assert all("estimated_tokens" in f.figures for f in findings if f.provider == "google")


def test_findings_are_immutable_and_say_everything_in_text() -> None:
    """A finding cannot be changed; the text shows title, saving, assumption and every figure."""
    finding = only(Traffic().call("openai/gpt-4o", 2, input=999, output=9).advise(), "service_tier")
    with pytest.raises(FrozenInstanceError):
        finding.saving = Decimal(0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        finding.figures["calls"] = 0  # type: ignore[index]
    shown = text([finding, finding])
    assert shown.startswith(f"1. {finding.title}\n")
    assert f"\n\n2. {finding.title}\n" in shown
    assert f"assuming that {finding.assumption}" in shown
    assert all(name in shown for name in finding.figures)
    assert hash(finding) == hash(finding)


def test_a_bound_on_a_loss_turns_round() -> None:
    """To save at least minus one dollar is to cost at most one."""
    finding = Finding("kind", "title", "p", "m", {}, Decimal(-1), "at least")
    assert str(finding) == "title\n  costs at most $1.000"


def test_an_empty_snapshot_has_nothing_to_say() -> None:
    """No calls, no findings; the text says so."""
    assert advise(Snapshot()) == []
    assert text([]) == "nothing to save was found"


def test_advice_is_exact_whatever_the_callers_decimal_precision() -> None:
    """A context of three digits changes no figure."""
    traffic = Traffic().call("openai/gpt-4o", 3, input=123_457, output=98_765)
    expected = [finding.saving for finding in traffic.advise()]
    with localcontext(prec=3):
        assert [finding.saving for finding in traffic.advise()] == expected


def test_a_merged_snapshot_is_advised_on_its_sum() -> None:
    """Two halves together save what the whole saves."""
    half = Snapshot(Traffic().call("openai/gpt-4o", 5, input=2000, output=100).recorder.snapshot())
    whole = Snapshot(
        Traffic().call("openai/gpt-4o", 10, input=2000, output=100).recorder.snapshot()
    )
    assert [f.saving for f in advise(half + half)] == [f.saving for f in advise(whole)]
