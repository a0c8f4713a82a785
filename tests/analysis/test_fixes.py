"""`langmeter.analysis.defects`: rates, the better model, the frontier; against scipy."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot
from langmeter.analysis import compare, defects
from langmeter.analysis.fixes import ModelFixes
from tests.support.attempts import CENT, Tries, tried
from tests.support.laws import examples

#: One of each sort: fixed, not fixed, and outside of every rate.
OUTCOMES = ["fixed", "failed", "infrastructure"]


def rows_of(snapshot: Snapshot) -> dict[str, ModelFixes]:
    """Return rows of one defect type, by the model's own name."""
    return {row.model: row for row in defects(snapshot).rows}


@pytest.mark.parametrize(("fixed", "closed"), [(0, 3), (7, 9), (20, 20), (45, 120)])
def test_the_interval_is_wilsons(fixed: int, closed: int) -> None:
    """The 99 % interval of a row is scipy's Wilson interval of its defects."""
    (row,) = defects(tried([("large", fixed, closed)])).rows
    wilson = scipy.stats.binomtest(fixed, closed).proportion_ci(0.99, method="wilson")
    assert row.interval == pytest.approx((wilson.low, wilson.high))


def test_a_model_is_best_where_its_interval_lies_above_each_other() -> None:
    """70 of 100 is better than 40 of 100, not than 65 of 100; 95 of 100 is better than all."""
    rows = rows_of(tried([("a", 70, 100), ("b", 40, 100), ("c", 65, 100)]))
    assert rows["a"].better_than == ("acme/b",)
    assert not any(row.best for row in rows.values())
    report = defects(tried([("a", 95, 100), ("b", 40, 100), ("c", 65, 100)]))
    assert {key: row.name for key, row in report.best.items()} == {("leak", "high"): "acme/a"}
    assert report.best["leak", "high"].better_than == ("acme/b", "acme/c")


def test_a_single_model_is_not_best() -> None:
    """There has to be another model to be better than; attempts without a call are none."""
    tries = Tries().model(50, 50)
    for number in range(50):
        tries.defect(f"no call {number}", ["failed"], model=None)
    report = defects(tries.snapshot())
    assert report.best == {}
    assert [row.name for row in report.rows] == ["acme/large", "no model"]
    assert [row.on_frontier for row in report.rows] == [True, False]


def test_models_are_compared_within_a_type_and_severity() -> None:
    """A model that is given only easy defects is not better for it."""
    tries = Tries()
    tries.model(95, 100, "a", defect_type="style")
    tries.model(10, 100, "b", defect_type="race")
    report = defects(tries.snapshot())
    assert [row.better_than for row in report.rows] == [(), ()]
    assert [row.defect for row in report.rows] == ["race/high", "style/high"]


def test_the_frontier_has_models_that_no_other_beats_in_rate_and_cost() -> None:
    """Dominated models are left out; equal ones share their place."""
    tries = Tries()
    for model, fixed, cost in (
        ("cheap", 4, CENT),
        ("twin", 4, CENT),
        ("dear and worse", 3, 2 * CENT),
        ("middle", 6, 2 * CENT),
        ("dear", 8, 4 * CENT),
        ("dear and equal", 8, 5 * CENT),
    ):
        for number in range(10):
            outcome = "fixed" if number < fixed else "failed"
            tries.defect(f"{model} {number}", [outcome], model=model, cost=cost)
    report = defects(tries.snapshot())
    assert {row.model for row in report.frontier} == {"cheap", "twin", "middle", "dear"}


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=5))
def test_the_frontier_is_that_of_all_pairs(models: list[tuple[int, int]]) -> None:
    """A row is on it exactly where no other row dominates it, compared one by one."""
    tries = Tries()
    for place, (fixed, cents) in enumerate(models):
        for number in range(4):
            outcome = "fixed" if number < fixed else "failed"
            name = f"m{place}"
            tries.defect(f"{name} {number}", [outcome], model=name, cost=cents * CENT)
    report = defects(tries.snapshot())
    points = {
        row.model: (row.stats.success_rate, row.stats.cost_per_fixed)
        for row in report.rows
        if row.stats.cost_per_fixed is not None
    }
    expected = {
        name
        for name, (rate, cost) in points.items()
        if not any(
            other_rate >= rate and other_cost <= cost and (other_rate, other_cost) != (rate, cost)
            for other_rate, other_cost in points.values()
        )
    }
    assert {row.model for row in report.frontier} == expected


def test_a_model_with_an_unpriced_call_is_not_on_the_frontier() -> None:
    """What its fixes cost is not known; nor does it push another model off."""
    tries = Tries().model(9, 10, "free")
    tries.defect("one more", ["fixed"], model="free", cost=None)
    tries.model(3, 10, "priced")
    report = defects(tries.snapshot())
    assert [row.model for row in report.frontier] == ["priced"]
    assert "≥ $" in str(report)
    assert "unpriced: 1 call" in str(report)


@examples(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["leak", "race"]),
            st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3),
        ),
        max_size=8,
    ),
    st.integers(0, 8),
)
def test_the_report_of_a_sum_is_that_of_all_attempts(
    tries: list[tuple[str, str, list[str]]], cut: int
) -> None:
    """Rows of two recorders merge to those of one that counted every defect."""

    def report(part: slice) -> Snapshot:
        one = Tries()
        for number, (model, defect_type, outcomes) in list(enumerate(tries))[part]:
            one.defect(str(number), outcomes, model=model, defect_type=defect_type)
        return one.snapshot()

    merged = report(slice(cut)) + report(slice(cut, None))
    assert defects(merged).to_dict() == defects(report(slice(None))).to_dict()


def test_the_funnel_and_costs_are_those_of_all_rows() -> None:
    """Stages count attempts of every model; money of failed attempts is wasted."""
    tries = Tries().model(3, 5, "a").model(1, 2, "b", defect_type="race")
    tries.defect("broken checker", ["infrastructure"], model="a")
    report = defects(tries.snapshot())
    assert report.total.funnel["asked"] == 8
    assert report.total.funnel["tests_passed"] == 4
    assert report.total.cost == Decimal("0.08")
    assert report.total.wasted == Decimal("0.04")
    text = report.text()
    assert text.startswith("fixes: 8 attempts, 4 of 7 defects fixed (")
    assert "outside of every rate: infrastructure 1" in text
    assert "of $0.08000, for attempts that did not fix: $0.04000" in text


def test_rows_are_plain_data() -> None:
    """JSON has each figure; what is not known is null, not NaN."""
    tries = Tries().model(3, 4)
    tries.defect("no verdict", ["unverified"], model="small")
    data = json.loads(defects(tries.snapshot()).to_json())
    large, small = data["rows"]
    assert (large["fixed"], large["closed"], large["success_rate"]) == (3, 4, 0.75)
    assert Decimal(large["cost_per_fixed_usd"]) == pytest.approx(Decimal("0.04") / 3)
    assert (small["success_rate"], small["interval_99"]) == (None, [None, None])
    assert small["cost_per_fixed_usd"] is None


def test_an_empty_snapshot_has_one_line() -> None:
    """There is no table where no attempt was made."""
    assert str(defects(Snapshot())) == "no attempt at a defect was metered"
    assert defects(Snapshot()).rows == ()


def test_a_table_that_is_too_wide_is_divided() -> None:
    """No line is wider than asked, but for the key and the notes."""
    table = defects(tried([("a", 3, 9), ("b", 4, 9)])).text(60).split("\n\n")[1:3]
    assert max(len(line) for part in table for line in part.splitlines()) <= 60


# --- compare -------------------------------------------------------------------------------------


def test_a_lower_success_rate_is_worse_by_fishers_test() -> None:
    """The test counts defects; p is scipy's one-sided p doubled."""
    base, now = tried([("large", 45, 50)]), tried([("large", 28, 50)])
    (row,) = (row for row in compare(base, now).rows if row.metric == "success_rate")
    assert (row.name, row.verdict, row.calls) == ("leak/high by acme/large", "worse", (50, 50))
    less = scipy.stats.fisher_exact([[28, 22], [45, 5]], alternative="less").pvalue
    assert row.raw_p == pytest.approx(2 * less)
    (up,) = (row for row in compare(now, base).rows if row.metric == "success_rate")
    assert up.verdict == "better"


def test_attempts_at_one_defect_count_once() -> None:
    """Nine failed attempts at each of 3 defects are 3 observations, which show nothing."""

    def snapshot(outcome: str) -> Snapshot:
        tries = Tries()
        for number in range(3):
            tries.defect(str(number), [outcome] * 9)
        return tries.snapshot()

    comparison = compare(snapshot("fixed"), snapshot("failed"))
    (row,) = (row for row in comparison.rows if row.metric == "success_rate")
    assert row.calls == (3, 3)
    assert row.verdict in ("same", "too few")
    assert not comparison.failed


def test_a_fall_of_the_success_rate_is_one_alarm() -> None:
    """The cost of a fix rises with it, and is held by rules only: sums have no test."""
    base, now = tried([("large", 45, 50)]), tried([("large", 20, 50)])
    comparison = compare(base, now)
    assert [row.metric for row in comparison.worse] == ["success_rate"]
    (cost,) = (row for row in comparison.rows if row.metric == "cost.per_fixed")
    assert (cost.verdict, cost.before) == ("no test", pytest.approx(0.5 / 45))
    assert cost.change == pytest.approx(45 / 20 - 1)
    broken = compare(base, now, ["cost.per_fixed>+10%", "success_rate[*large]<-50pp"])
    assert [ruling.state for ruling in broken.rulings] == ["broken", "held"]


def test_rules_of_defects_and_of_calls_keep_apart() -> None:
    """`error_rate[*]` is not about rows of defects, `success_rate` not about models."""
    base, now = tried([("large", 45, 50)]), tried([("large", 20, 50)])
    comparison = compare(base, now, ["error_rate[*]>+1pp", "success_rate<-5pp"])
    kinds = {(r.rule.measure.name, r.row.kind) for r in comparison.rulings if r.row}
    assert {kind for name, kind in kinds if name == "success_rate"} == {"defect"}
    assert "defect" not in {kind for name, kind in kinds if name == "error_rate"}
    assert {name for name, _ in kinds} == {"error_rate", "success_rate"}
    with pytest.raises(ValueError, match="neither snapshot has it; they have leak/high by acme"):
        compare(base, now, ["success_rate[acme/large]<-5pp"])


def test_rows_of_defects_that_one_snapshot_has_are_named() -> None:
    """A row that is only new or only gone is listed, not compared."""
    comparison = compare(tried([("a", 3, 9)]), tried([("b", 4, 9)]))
    assert "leak/high by acme/a" in comparison.gone
    assert "leak/high by acme/b" in comparison.new
