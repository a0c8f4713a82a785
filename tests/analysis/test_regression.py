"""`compare`: which figures, which verdicts, which rules; on snapshots made to measure."""

from __future__ import annotations

import json
import math
import re

import pytest

from langmeter import Snapshot
from langmeter.analysis.regression import compare
from langmeter.analysis.regression import significance as tests
from langmeter.analysis.regression.comparison import Comparison, Row
from langmeter.analysis.regression.metrics import NAMES, measure
from langmeter.analysis.regression.rules import Rule
from tests.support.simulated import calls, latencies


def row(found: Comparison, metric: str, name: str = "openai/gpt-4o") -> Row:
    """The one row of a metric."""
    (only,) = [row for row in found.rows if (row.metric, row.name) == (metric, name)]
    return only


BASE = calls(latencies(300, seed=1))
SAME = calls(latencies(300, seed=2))
SLOW = calls(latencies(300, seed=3, scale=1.3))


# --- verdicts ------------------------------------------------------------------------------------


def test_what_is_slower_is_worse_and_the_other_way_round_better() -> None:
    """The change, its interval and p are those of the figures; the two directions mirror."""
    found, mirrored = compare(BASE, SLOW), compare(SLOW, BASE)
    worse, better = row(found, "latency.p50"), row(mirrored, "latency.p50")
    assert (worse.verdict, better.verdict) == ("worse", "better")
    before, after = (s.totals.latency.quantile(0.5) for s in (BASE, SLOW))
    assert (worse.before, worse.after) == (before, after)
    assert worse.change == pytest.approx(after / before - 1)
    assert worse.interval is not None
    assert worse.interval[0] < worse.change < worse.interval[1]
    assert worse.interval[0] > 0.1
    assert worse.p is not None
    assert worse.raw_p is not None
    assert worse.raw_p < worse.p < 0.001
    assert better.p == worse.p
    assert found.failed
    assert not mirrored.failed
    assert worse in found.worse
    assert row(found, "latency.ks").verdict == "worse"


def test_what_did_not_change_is_the_same() -> None:
    """Two samples of one distribution show nothing, and nothing fails."""
    found = compare(BASE, SAME)
    assert {row.verdict for row in found.rows} == {"same", "too few", "no test"}
    assert not found.failed
    assert found.text().startswith("ok: ")
    assert "latency.p50" not in found.text()
    assert "latency.p50" in found.text(everything=True)


def test_a_snapshot_is_the_same_as_itself() -> None:
    """Nothing can be less significant."""
    found = compare(SLOW, SLOW)
    assert all(row.change == 0 for row in found.rows)
    assert all(row.p in (None, 1.0) for row in found.rows)


def test_too_few_calls_are_said_to_be_so_with_how_many_it_takes() -> None:
    """With as many as it says, the clearest change there can be is significant; not with fewer."""
    found = compare(calls(latencies(20)), calls(latencies(20, scale=1000)))
    few = row(found, "latency.p95")
    assert (few.verdict, few.p, few.calls) == ("too few", None, (20, 20))
    assert few.needed is not None
    assert f"needs {row(found, 'latency.p99').needed:,} on each side" in str(found)

    def clearest(n: int) -> Comparison:
        return compare(calls([0.001] * n), calls([1000.0] * n), ["latency.p95>+0%"])

    needed = row(clearest(20), "latency.p95").needed
    assert needed is not None
    assert row(clearest(needed), "latency.p95").verdict == "worse"
    assert row(clearest(needed - 1), "latency.p95").verdict == "too few"


def test_errors_are_judged_among_the_calls_that_could_have_succeeded() -> None:
    """Neither abandoned calls nor cache hits are in the error rate."""
    base = calls([1.0] * 200, errors=2, abandoned=10, cached=8)
    now = calls([1.0] * 200, errors=30, abandoned=10, cached=8)
    found = row(compare(base, now), "error_rate")
    assert found.verdict == "worse"
    assert found.calls == (182, 182)
    assert (found.before, found.after) == (2 / 182, 30 / 182)
    assert found.change == pytest.approx(28 / 182)
    assert found.raw_p == tests.share_test(2, 182, 30, 182).p
    abandoned = row(compare(base, now), "abandoned_rate")
    assert (abandoned.before, abandoned.calls, abandoned.verdict) == (10 / 192, (192, 192), "same")


def test_sums_have_no_test_and_no_verdict() -> None:
    """Tokens and cost per call with usage: known to the last digit, and never significant."""
    base = calls([1.0] * 10, errors=2)
    now = calls([1.0] * 10, errors=2, tokens=(1000, 150), cost=5_000_000_000, cache_read=500)
    found = compare(base, now)
    for metric, before, after in (
        ("input_tokens.per_call", 1000, 1000),
        ("output_tokens.per_call", 100, 150),
        ("cost.per_call", 0.004, 0.005),
        ("cache_read.share", 0, 0.5),
    ):
        told = row(found, metric)
        assert (told.before, told.after, told.calls) == (before, after, (8, 8))
        assert (told.verdict, told.p, told.raw_p, told.interval) == ("no test", None, None, None)
    assert not found.failed


def test_rates_of_events_are_compared_as_poisson() -> None:
    """Web searches per call, which one call can make many of."""
    found = compare(calls([1.0] * 50, searches=1), calls([1.0] * 50, searches=3))
    told = row(found, "web_searches.per_call")
    assert (told.before, told.after, told.verdict) == (1, 3, "worse")
    assert told.raw_p == tests.rate_test(50, 50, 150, 50).p
    assert "web_searches.per_call" not in {row.metric for row in compare(BASE, SAME).rows}


def test_gaps_of_a_stream_count_for_no_more_than_the_stream() -> None:
    """Ten thousand gaps of a hundred streams are a hundred observations."""
    found = compare(
        calls(latencies(100, seed=1), gaps=100), calls(latencies(100, seed=2), gaps=100)
    )
    told = row(found, "inter_token_latency.p50")
    assert told.calls == (100, 100)
    assert row(found, "time_to_first_token.p50").calls == (100, 100)
    assert told.verdict == "same"


# --- subjects ------------------------------------------------------------------------------------


def test_models_and_their_total_are_compared() -> None:
    """The total only where it is more than the one model; what one snapshot lacks is named."""
    other = calls(latencies(50), model="gpt-4o-mini")
    assert {row.name for row in compare(BASE, SAME).rows} == {"openai/gpt-4o"}
    found = compare(BASE + other, SAME + calls(latencies(50), model="new"))
    assert {row.name for row in found.rows} == {"total", "openai/gpt-4o"}
    assert (found.gone, found.new) == (("openai/gpt-4o-mini",), ("openai/new",))
    assert "only before: openai/gpt-4o-mini" in str(found)
    assert "only now: openai/new" in str(found)
    assert {row.name for row in compare(BASE, other).rows} == {"total"}


def test_components_are_compared_by_their_latency_and_errors() -> None:
    """A tool that got slower is worse, whatever the models did."""
    base = BASE + calls(latencies(200, seed=4), kind="tool", name="search")
    now = SAME + calls(latencies(200, seed=5, scale=1.5), kind="tool", name="search", errors=60)
    found = compare(base, now)
    assert {row.metric for row in found.rows if row.kind == "tool"} == {
        *("latency.p50", "latency.p95", "latency.p99", "latency.ks"),
        *("error_rate", "abandoned_rate"),
    }
    assert row(found, "latency.p50", "tool search").verdict == "worse"
    assert row(found, "error_rate", "tool search").verdict == "worse"
    assert {row.name for row in found.worse} == {"tool search"}
    # A tool has neither cost nor tokens: to ask for them is allowed, but nothing can be judged.
    for metric in ("cost.per_call", "web_searches.per_call", "ttft.p50"):
        (ruling,) = compare(base, now, [f"{metric}[tool search]>+1%"]).rulings
        assert ruling.state == "no data"
        assert "was not measured in both" in str(compare(base, now, [ruling.rule]))


def test_the_class_that_calls_a_model_is_compared_where_a_rule_names_it() -> None:
    """Otherwise every call would be compared twice."""
    assert "llm chat" not in {row.name for row in compare(BASE, SLOW).rows}
    found = compare(BASE, SLOW, ["latency.p50[llm *]>+10%"])
    assert [ruling.state for ruling in found.rulings] == ["broken"]
    assert row(found, "latency.p50", "llm chat").verdict == "worse"


def test_empty_snapshots_have_nothing_to_compare() -> None:
    """It fails only where a rule asks for it."""
    found = compare(Snapshot(), Snapshot())
    assert (found.rows, found.failed) == ((), False)
    assert str(found) == "ok: nothing to compare (level 0.05)"
    (ruling,) = compare(Snapshot(), BASE, ["latency.p95>+10%"]).rulings
    assert (ruling.row, ruling.state) == (None, "no data")
    assert compare(Snapshot(), BASE, ["latency.p95>+10%"], strict=True).failed


# --- corrections ---------------------------------------------------------------------------------


def test_rows_under_rules_are_corrected_among_themselves() -> None:
    """One rule is one comparison, however much else the snapshots hold."""
    found = compare(BASE, SLOW, ["latency.p50>+10%"])
    told = row(found, "latency.p50")
    assert told.p == told.raw_p
    unruled = row(compare(BASE, SLOW), "latency.p50")
    assert unruled.raw_p == told.raw_p
    assert unruled.p is not None
    assert told.raw_p is not None
    assert unruled.p > told.raw_p


def test_what_cannot_be_significant_does_not_weaken_the_rest() -> None:
    """Errors that neither had are compared with nothing."""
    found = compare(BASE, SLOW)
    corrected = [row for row in found.rows if row.p is not None and row.verdict != "same"]
    assert row(found, "error_rate").p == 1.0
    testable = [
        row
        for row in found.rows
        if row.p is not None and row.metric not in ("error_rate", "abandoned_rate")
    ]
    least = min(testable, key=lambda row: row.raw_p or 0)
    assert least in corrected
    assert least.p == pytest.approx(len(testable) * (least.raw_p or 0))


# --- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("latency.p50>+10%", "broken"),
        ("latency.p50 > +100 ms", "broken"),
        ("latency.p50[openai/*]>+10%", "broken"),
        ("latency.p50[openai/gpt-?o]>+.1s", "broken"),
        ("latency.ks>+5pp", "broken"),
        ("latency.p50>+80%", "held"),
        ("latency.p50>+2s", "held"),
        ("latency.p50<-10%", "held"),
        ("cost.per_call>+5%", "held"),
        ("latency.p95[total]>+10%", "no data"),
        ("ttft.p50>+10%", "no data"),
        ("latency.p99.9>+10%", "too few"),
    ],
)
def test_rules_are_held_against_the_figures(rule: str, state: str) -> None:
    """300 calls that got 30 % slower; they did not stream."""
    found = compare(BASE, SLOW, [rule])
    assert [ruling.state for ruling in found.rulings] == [state]
    assert found.failed is (state == "broken")
    assert compare(BASE, SLOW, [rule], strict=True).failed is (state != "held")
    assert (rule in str(found)) is (state != "held")


def test_a_change_that_may_be_chance_breaks_no_rule() -> None:
    """It says how many calls would tell, about: with twice as many as that they do."""
    base, now = calls(latencies(60, seed=1)), calls(latencies(60, seed=8, scale=1.15))
    found = compare(base, now, ["latency.p50>+5%"])
    (ruling,) = found.rulings
    assert ruling.state == "not significant"
    assert not compare(base, now, ["latency.p50>+5%"], strict=True).failed
    assert ruling.needed is not None
    assert 60 < ruling.needed < 2000
    assert f"about {ruling.needed:,} calls on each side would tell" in str(found)
    more = 2 * ruling.needed
    base, now = calls(latencies(more, seed=1)), calls(latencies(more, seed=8, scale=1.15))
    assert compare(base, now, ["latency.p50>+5%"]).failed


def test_a_change_without_any_evidence_is_not_extrapolated() -> None:
    """One error more among a hundred calls tells nothing of how many calls would tell."""
    found = compare(calls([1.0] * 100), calls([1.0] * 100, errors=1), ["error_rate>+0.5pp"])
    (ruling,) = found.rulings
    assert (ruling.state, ruling.needed) == ("not significant", None)
    assert "error_rate>+0.5pp at openai/gpt-4o: +1.00 pp may be chance\n" in str(found)


def test_calls_that_nobody_can_judge_have_no_error_rate() -> None:
    """Neither ok nor error: abandoned, or answered by LangChain's cache."""
    found = compare(calls([1.0] * 5, abandoned=5), calls([1.0] * 5, abandoned=5))
    assert "error_rate" not in {row.metric for row in found.rows}
    assert row(found, "abandoned_rate").before == 1
    cached = calls([1.0] * 5, cached=5)
    assert compare(cached, cached).rows == ()


def test_a_rule_about_a_sum_goes_by_the_threshold_alone() -> None:
    """Exactly the threshold is within it, to the last bit; a fall can be refused, too."""
    base = calls([1.0] * 3, cost=4_000_000_000, cache_read=500)
    now = calls([1.0] * 3, cost=4_200_000_000, cache_read=100)
    assert not compare(base, now, ["cost.per_call>+5%"]).failed
    assert not compare(base, now, ["cost.per_call>+0.0002usd"]).failed
    found = compare(base, now, ["cost.per_call>+4.9%", "cache_read.share<-30pp"])
    assert [ruling.state for ruling in found.rulings] == ["broken", "broken"]
    assert "by the threshold alone" in str(found)
    assert str(found).startswith("FAILED: 2 of 2 rules broken; ")


def test_a_rule_without_a_place_covers_the_total_and_every_model() -> None:
    """And no component."""
    two = [
        calls(latencies(60, seed=seed)) + calls(latencies(60, seed=seed), model="b")
        for seed in (1, 2)
    ]
    found = compare(two[0], two[1], ["latency.p50>+50%"])
    names = [ruling.row.name for ruling in found.rulings if ruling.row]
    assert names == ["total", "openai/b", "openai/gpt-4o"]


def test_something_out_of_nothing_is_an_infinite_rise() -> None:
    """No errors before: any percentage is exceeded."""
    found = compare(calls([1.0] * 100), calls([1.0] * 100, errors=30), ["error_rate>+500%"])
    assert found.failed
    told = compare(calls([1.0] * 9, tokens=(9, 0)), calls([1.0] * 9, tokens=(9, 9)))
    assert math.isinf(row(told, "output_tokens.per_call").change)
    assert "∞" in told.text(everything=True)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "invalid rule"),
        ("latency.p95", "invalid rule"),
        ("latency.p95>", "invalid rule"),
        ("latency.p95>+ten%", "invalid rule"),
        ("latency.p95[]>+10%", "invalid rule"),
        ("latency.p95>+10%%", "changes by % or s or ms or us or µs, not by '%%'"),
        ("latency.p95>+10", "changes by % or s or ms or us or µs, not by ''"),
        ("latency.ks>+10%", "changes by pp, not by '%'"),
        ("error_rate>+10ms", "changes by % or pp, not by 'ms'"),
        ("tokens>+10%", "no metric 'tokens' to compare; there are latency.p50"),
        ("latency.p0>+10%", "no metric 'latency.p0'"),
        ("latency.p100>+10%", "no metric 'latency.p100'"),
        ("latency.mean>+10%", "no metric 'latency.mean'"),
        ("speed.p50>+10%", "no metric 'speed.p50'"),
        ("latency.p95>10%", "a rule is about a change; write >+10% against a rise, <-10%"),
        ("latency.p95>-10%", "a rule is about a change"),
        ("latency.p95<+10%", "a rule is about a change"),
    ],
)
def test_what_is_no_rule_is_said_with_the_remedy(rule: str, message: str) -> None:
    """The message quotes the rule and names what there is."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        compare(BASE, SAME, [rule])
    assert repr(rule) in str(caught.value)


def test_every_metric_that_messages_name_exists() -> None:
    """And short names are their long ones."""
    for text in NAMES:
        for name in text.replace(" (or any p1 … p99.99)", "").split(" and "):
            assert measure(name).name == name
    assert Rule.parse("ttft.p99.9>+10%").measure.name == "time_to_first_token.p99.9"
    assert Rule.parse("itl.ks>+1pp").measure.name == "inter_token_latency.ks"


@pytest.mark.parametrize("name", ["a]b", "RunnableParallel<x,y>", "o[1]", "ü>+5%", "a.b*c"])
def test_a_place_may_be_named_anything(name: str) -> None:
    """Brackets and comparison signs in names are part of them."""
    base = calls(latencies(60), kind="tool", name=name)
    (ruling,) = compare(base, base, [f"latency.p50[tool {name}]>+5%"]).rulings
    assert ruling.state == "held"
    assert not Rule.parse("latency.p50[tool axb]>+5%").covers("tool", "tool a.b")


@pytest.mark.parametrize("level", [0, 1, -0.1, 5, math.nan])
def test_a_level_is_a_probability(level: float) -> None:
    """Neither certain nor impossible."""
    with pytest.raises(ValueError, match=f"between 0 and 1, e.g. 0.05; got {level}"):
        compare(BASE, SAME, level=level)


def test_arguments_that_make_no_sense_are_refused() -> None:
    """A text for a list of rules; strictness without any."""
    with pytest.raises(ValueError, match=r"rules are a list; write \['latency"):
        compare(BASE, SAME, "latency.p95>+10%")
    with pytest.raises(ValueError, match="strict is about rules"):
        compare(BASE, SAME, strict=True)


# --- forms ---------------------------------------------------------------------------------------


def test_a_comparison_is_plain_data() -> None:
    """JSON without nan or infinity; rules point at their rows."""
    found = compare(BASE, SLOW, ["latency.p50>+10%", "ttft.p50>+1%", "latency.p99.9>+1%"])
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["failed"], data["level"], data["strict"]) == (True, 0.05, False)
    assert [rule["state"] for rule in data["rules"]] == ["broken", "too few", "no data"]
    told = data["rows"][data["rules"][0]["row"]]
    assert (told["metric"], told["verdict"], told["kind"]) == ("latency.p50", "worse", "model")
    assert told["change"] == pytest.approx(told["after"] / told["before"] - 1)
    assert data["rules"][2]["row"] is None
    unbounded = data["rows"][data["rules"][1]["row"]]
    assert unbounded["interval"][1] is None
    assert unbounded["needed"] > 300


def test_the_table_shows_each_figure_in_its_unit() -> None:
    """Durations, shares, dollars, tokens; intervals and p as people write them."""
    base = calls(latencies(300, seed=1), errors=3, gaps=2)
    now = calls(latencies(300, seed=3, scale=1.3), errors=60, gaps=2, cost=5_000_000_000)
    text = compare(base, now, ["cost.per_call>+5%"], level=0.01).text(everything=True)
    assert "99 % interval" in text
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("openai/")}
    assert "$0.004000" in lines["cost.per_call"]
    assert "+25.0 %" in lines["cost.per_call"]
    assert "1.00 %" in lines["error_rate"]
    assert "+19.00 pp" in lines["error_rate"]
    assert "< 0.0001" in lines["error_rate"]
    assert "1,000.0" in lines["input_tokens.per_call"]
    assert " ms" in lines["inter_token_latency.p50"]
    assert "(over " in lines["latency.ks"]


def test_names_cannot_draw_on_the_terminal() -> None:
    """Control characters in a model's name are shown as what they are."""
    one, two = (calls([seconds] * 50, model="\x1b[31mred") for seconds in (1.0, 2.0))
    assert "\x1b" not in str(compare(one, two, ["latency.p50>+1%", "ttft.p50[*red]>+1%"]))
    with pytest.raises(ValueError, match="red, total") as caught:
        compare(one, two, ["latency.p50[tool \x1b]>+1%"])
    assert str(caught.value).isprintable()
