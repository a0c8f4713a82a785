"""Advice: what a snapshot says about spending less, its figures computed independently."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from decimal import Decimal, localcontext
from typing import Any

import genai_prices
import pytest

from langmeter import Snapshot, _core
from langmeter.analysis import Finding, advise, text
from langmeter.snapshot import ModelStats
from tests.support.advice import Traffic, only, own


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


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
