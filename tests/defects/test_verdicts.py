"""Verdicts on attempts: by strength, late, repeated, by receipt, and read from outputs."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langmeter import Meter, Snapshot, _core
from langmeter.defects import OUTCOMES, SOURCES, DefectOptions, Fix, read_fix
from langmeter.errors import ConfigError
from langmeter.snapshot import DefectStats
from langmeter.testing import ManualClock
from tests.support.laws import examples

SCORED = [name for name in OUTCOMES if name not in ("infrastructure", "unscored", "unverified")]


def attempted(meter: Meter, defect: str = "D", **about: Any) -> Any:
    """An attempt that has ended without a call."""
    with meter.defects.attempt(defect, **about) as attempt:
        pass
    return attempt


def only(snapshot: Snapshot) -> DefectStats:
    """The one row there is."""
    [row] = snapshot.defects.values()
    return row


def outcomes(row: DefectStats) -> dict[str, int]:
    """Outcomes that are not 0."""
    return {name: n for name, n in row.outcomes.items() if n}


def test_the_closed_set_of_outcomes_and_sources() -> None:
    """Twelve outcomes, of which nine say something about the model; six sources by strength."""
    assert (len(OUTCOMES), len(_core.TALLIES)) == (12, 219)
    assert SOURCES == {
        "reviewer": 5,
        "re-scan": 4,
        "tests": 3,
        "caller": 3,
        "compile": 2,
        "form": 1,
    }
    meter = Meter()
    for outcome in OUTCOMES:
        attempt = attempted(meter, outcome)
        meter.defects.record(attempt.id, outcome)
    row = only(meter.snapshot())
    assert dict(row.outcomes) == dict.fromkeys(OUTCOMES, 1)
    assert (row.scored, row.closed, row.attempts) == (9, 9, 12)


verdicts = st.tuples(
    st.integers(0, 4),
    st.sampled_from([*OUTCOMES]),
    st.sampled_from([*SOURCES, "team a", "team b"]),
)


@examples(100)
@given(
    st.lists(verdicts, max_size=25),
    st.lists(st.integers(0, 4), max_size=8),
    st.integers(0, 25),
)
def test_late_and_repeated_verdicts_give_what_the_strongest_newest_says(
    told: list[tuple[int, str, str]], repeats: list[int], cut: int
) -> None:
    """Whatever the order; sums and differences of snapshots agree, and nothing is lost in JSON."""
    meter = Meter()
    attempts = [attempted(meter, f"D{n % 3}", type="T") for n in range(5)]
    standing: dict[int, tuple[int, str, str]] = {}
    first = meter.snapshot()
    middle = first
    for place, (n, outcome, source) in enumerate(
        [*told, *(told[i] for i in repeats if i < len(told))]
    ):
        meter.defects.record(attempts[n].id, outcome, source=source)
        strength = SOURCES.get(source, 3)
        if n not in standing or strength >= standing[n][0]:
            standing[n] = strength, outcome, source
        if place == cut:
            middle = meter.snapshot()
    last = meter.snapshot()
    final = [standing.get(n, (0, "unverified", ""))[1] for n in range(5)]
    row = only(last)
    assert outcomes(row) == {name: final.count(name) for name in final}
    closed = {n % 3 for n in range(5) if final[n] in SCORED}
    fixed = {n % 3 for n in range(5) if final[n] == "fixed"}
    assert (row.defects, row.closed, row.fixed) == (3, len(closed), len(fixed))
    assert first + (middle - first) + (last - middle) == last
    assert Snapshot.from_json(last.to_json()) == last == Snapshot.from_bytes(last.to_bytes())
    doubled = only(last + last)
    assert (doubled.attempts, doubled.fixed) == (10, 2 * len(fixed))


def test_an_unknown_id_is_counted_and_changes_nothing() -> None:
    """Also the id of another meter, and that of an attempt too long ago."""
    meter, other = Meter(), Meter()
    attempt = attempted(other)
    for foreign in ("", "x", "0-1", attempt.id):
        assert not meter.defects.record(foreign, "fixed")
    assert meter.snapshot().dropped == {"verdicts_unknown": 4}
    assert not meter.snapshot().defects


def test_a_million_attempts_without_a_verdict_are_forgotten_but_for_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Open blocks are closed when 4,096 others are open; ids work for the last 65,536."""
    meter = Meter()
    native = meter._services.attempts
    first = native.open("first")
    for n in range(70_000):
        native.open(f"D{n}")
    snapshot = meter.snapshot()
    assert snapshot.dropped["attempts_capped"] == 70_001 - 4096
    assert only(snapshot).attempts == 70_001 - 4096
    assert not meter.defects.record(native.id(first), "fixed")
    assert meter.defects.record(native.id(70_001), "fixed")


def test_a_receipt_carries_a_verdict_to_another_meter_once() -> None:
    """The sum of both has the attempt once, with the verdict of the reviewer."""
    here, there = Meter(), Meter()
    attempt = attempted(here, "D-secret", type="LEAK", severity="high", strategy="guard")
    attempt.failed(source="compile", outcome="does_not_compile")
    receipt = attempt.receipt
    assert "secret" not in receipt
    for _ in range(3):
        assert there.defects.record(receipt, "fixed", source="reviewer", score=0.75)
    assert not there.defects.record(receipt, "failed", source="tests"), "a stronger one counts"
    row = only(here.snapshot() + there.snapshot())
    assert (outcomes(row), row.attempts, row.defects, row.fixed) == ({"fixed": 1}, 1, 1, 1)
    assert (row.first_attempt_rate, row.attempt_interval, row.revisions) == (1, row.interval, 1)
    [strategy] = (here.snapshot() + there.snapshot()).defect_strategies.values()
    assert strategy.fixed == 1
    # In the process of the attempt the receipt is the attempt itself.
    assert here.defects.record(receipt, "fixed", source="re-scan")
    assert outcomes(only(here.snapshot())) == {"fixed": 1}


def _judge(receipt: str, connection: Any) -> None:
    meter = Meter()
    meter.defects.record(receipt, "fixed", source="re-scan")
    connection.send(meter.snapshot().to_bytes())


@pytest.mark.process
def test_a_verdict_in_another_process_and_the_attempts_of_a_forked_child() -> None:
    """A spawned process judges by receipt; a forked child forgets its parent's attempts."""
    meter = Meter()
    attempt = attempted(meter, type="T")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_judge, args=(attempt.receipt, theirs))
    process.start()
    theirs.close()  # so that a child that fails ends the wait
    judged = Snapshot.from_bytes(ours.recv())
    process.join()
    assert outcomes(only(meter.snapshot() + judged)) == {"fixed": 1}
    if not hasattr(os, "fork"):
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        known = meter.defects.record(attempt.id, "fixed")
        attempted(meter, "E", type="T")
        os.write(write, json.dumps([known, len(meter.snapshot().defects)]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(read, 100)) == [False, 1]


@pytest.mark.parametrize(
    "damaged", [lambda text: text[:-3], lambda text: text + "AAAA", lambda text: "lmfix1.!!"]
)
def test_a_damaged_receipt_is_refused(damaged: Any) -> None:
    """With the remedy; nothing is counted."""
    meter = Meter()
    receipt = attempted(meter).receipt
    with pytest.raises(
        ConfigError, match=r"receipt must be a text of attempt\.receipt, got .*whole"
    ):
        meter.defects.record(damaged(receipt), "fixed")
    assert outcomes(only(meter.snapshot())) == {"unverified": 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"outcome": "solved"}, "outcome must be one of fixed, partial, failed"),
        ({"outcome": True}, "outcome must be one of fixed"),
        ({"score": 1.5}, "score must be .*, got 1.5"),
        ({"score": math.nan}, "score must be"),
        ({"source": ""}, "source must be a text that is not empty"),
        ({"source": 3}, "source must be a text, got 3"),
    ],
)
def test_wrong_verdicts_are_named(wrong: dict[str, Any], message: str) -> None:
    """With what is allowed."""
    meter = Meter()
    attempt = attempted(meter)
    given_ = {"outcome": "fixed", **wrong}
    with pytest.raises(ConfigError, match=message):
        meter.defects.record(attempt.id, given_.pop("outcome"), **given_)
    with pytest.raises(TypeError, match=r"id_or_receipt must be attempt.id or attempt.receipt"):
        meter.defects.record(3, "fixed")  # type: ignore[arg-type]


class Candidate(BaseModel):
    """A proposed change."""

    fix_code: str
    line_ranges: list[dict[str, int]]
    confidence: float = 0.5


class Answer(BaseModel):
    """What a fix generator returns."""

    fix_candidates: list[Candidate]
    recommended_fix_index: int = 0
    success: bool | None = None
    confidence: float | None = None


CANDIDATES = [
    {"fix_code": "a", "line_ranges": [{"start": 1, "end": 2}], "confidence": 0.8},
    {"fix_code": "b", "line_ranges": []},
]


@pytest.mark.parametrize(
    ("output", "fix"),
    [
        ({"success": True, "confidence": 0.9}, Fix("fixed", None, 0.9)),
        ({"success": False}, Fix("failed")),
        ({"fix_candidates": []}, Fix("empty")),
        ({"fix_candidates": [], "success": False}, Fix("empty")),
        (
            {"fix_candidates": CANDIDATES, "recommended_fix_index": 0},
            Fix(None, None, 0.8, 2, 0),
        ),
        (
            {"fix_candidates": CANDIDATES, "recommended_fix_index": 7, "confidence": "high"},
            Fix(None, None, None, 2, None),
        ),
        ({"answer": 3}, Fix("unparsable")),
        ("not JSON", Fix("unparsable")),
        ("[1, 2]", Fix("unparsable")),
        (b"\xff\xfe", Fix("unparsable")),
        (None, Fix("unparsable")),
        ('```json\n{"success": true}\n```', Fix("fixed")),
        (AIMessage('{"success": true}'), Fix("fixed")),
        (
            Answer(fix_candidates=[Candidate(fix_code="x", line_ranges=[])], confidence=0.25),
            Fix(None, None, 0.25, 1, 0),
        ),
    ],
)
def test_answers_of_fix_generators_are_read(output: Any, fix: Fix) -> None:
    """Pydantic models, mappings, JSON and messages."""
    assert read_fix(output) == fix


def test_the_output_of_a_marked_chain_is_its_verdict() -> None:
    """The weakest one: any other says otherwise. What the reader raises is counted."""
    meter = Meter(defects=DefectOptions(outcome=read_fix))
    config: Any = {"callbacks": [meter]}

    def ask(output: Any, **metadata: Any) -> None:
        chain = RunnableLambda(lambda q: output) | RunnableLambda(lambda q: q)
        chain.invoke("q", config={**config, "metadata": metadata})  # type: ignore[arg-type]

    ask({"fix_candidates": CANDIDATES, "recommended_fix_index": 1}, defect_id="D1")
    ask({"success": True}, defect_id="D2")
    ask("sorry", defect_id="D3")
    ask("no mark")
    row = only(meter.snapshot())
    assert outcomes(row) == {"unverified": 1, "fixed": 1, "unparsable": 1}
    assert (row.candidates, row.funnel["parsed"], row.funnel["applied"]) == (2, 1, 0)

    def broken(output: Any) -> Any:
        raise ValueError("broken")

    meter = Meter(defects=DefectOptions(outcome=broken))
    config = {"callbacks": [meter]}
    ask("x", defect_id="D1")
    snapshot = meter.snapshot()
    assert (outcomes(only(snapshot)), snapshot.dropped) == (
        {"unverified": 1},
        {"callback_errors": 1},
    )


async def test_a_custom_event_judges_the_attempt_around_it() -> None:
    """In a marked chain and in a block; outside of both it counts a fix as before."""
    meter = Meter()

    def judge(data: Any) -> Any:
        dispatch_custom_event("langmeter.fix", data)
        return data

    async def ajudge(data: Any) -> Any:
        await adispatch_custom_event("langmeter.fix", data)
        return data

    config: Any = {"callbacks": [meter]}
    marked: Any = {**config, "metadata": {"defect_id": "D1"}}
    RunnableLambda(judge).invoke({"success": True, "score": 0.5}, config=marked)
    await RunnableLambda(ajudge).ainvoke({"outcome": "regressed", "source": "tests"}, config=marked)
    with meter.defects.attempt("D2"):
        RunnableLambda(judge).invoke({"success": False}, config=config)
    RunnableLambda(judge).invoke({"success": True, "kind": "syntax"}, config=config)
    snapshot = meter.snapshot()
    assert outcomes(only(snapshot)) == {"fixed": 1, "regressed": 1, "failed": 1}
    assert snapshot.components["fix", "syntax"].calls == 1
    assert meter.defects.success_rate == pytest.approx(2 / 3)
    assert not snapshot.dropped


def test_stated_confidence_never_makes_a_fix_and_is_compared_with_the_results() -> None:
    """Brier score and bins against numpy, from 30 stated confidences on."""
    meter = Meter()
    random = np.random.default_rng(3)
    stated = random.uniform(0, 1, 40)
    fixed = random.uniform(0, 1, 40) < stated
    for n, (confidence, right) in enumerate(zip(stated, fixed, strict=True)):
        with meter.defects.attempt(f"D{n}") as attempt:
            attempt.candidate(0, recommended=True, confidence=float(confidence))
        assert only(meter.snapshot()).fixed == int(fixed[:n].sum())
        if n == 29:
            assert only(meter.snapshot()).brier is None
            assert only(meter.snapshot()).reliability == ()
        if right:
            attempt.succeeded()
        else:
            attempt.failed()
    row = only(meter.snapshot())
    assert row.stated == 40
    assert row.brier == pytest.approx(np.mean((stated - fixed) ** 2), abs=1e-6)
    tenths = np.minimum((stated.astype(np.float32) * 10).astype(int), 9)
    expected = [
        (int((tenths == t).sum()), stated[tenths == t].mean(), fixed[tenths == t].mean())
        for t in range(10)
        if (tenths == t).any()
    ]
    got = [(bin_.count, bin_.confidence, bin_.fixed) for bin_ in row.reliability]
    assert got == [pytest.approx(each, abs=1e-5) for each in expected]


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=40))
def test_rates_and_intervals_are_those_of_scipy_and_numpy(results: list[tuple[int, bool]]) -> None:
    """Wilson's by defect, the clustered one by the residuals of each defect."""
    meter = Meter()
    for defect, right in results:
        attempt = attempted(meter, f"D{defect}")
        meter.defects.record(attempt.id, "fixed" if right else "failed")
    row = only(meter.snapshot())
    clusters: dict[int, list[bool]] = {}
    for defect, right in results:
        clusters.setdefault(defect, []).append(right)
    k = np.array([sum(each) for each in clusters.values()], float)
    m = np.array([len(each) for each in clusters.values()], float)
    exact = scipy.stats.binomtest(int((k > 0).sum()), len(k)).proportion_ci(0.95, method="wilson")
    assert row.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    rate, n = k.sum() / m.sum(), len(k)
    assert row.attempt_rate == pytest.approx(rate)
    residuals = k - rate * m
    if n > 1 and (residuals**2).sum() > 1e-6:
        error = math.sqrt(n / (n - 1) * (residuals**2).sum()) / m.sum()
        low, high = rate - 1.959964 * error, rate + 1.959964 * error
        assert row.attempt_interval == pytest.approx((max(0, low), min(1, high)), abs=1e-6)
    else:
        assert row.attempt_interval[0] < row.attempt_interval[1]


@examples(30)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_candidate(
    attempts: list[list[bool]],
) -> None:
    """By counting every subset of k candidates."""
    from itertools import combinations

    meter = Meter()
    for n, rights in enumerate(attempts):
        with meter.defects.attempt(f"D{n}") as attempt:
            for index, right in enumerate(rights):
                candidate = attempt.candidate(index)
                candidate.succeeded() if right else candidate.failed()
    row = only(meter.snapshot())
    for k in (1, 2, 3):
        subsets = [list(combinations(rights, k)) for rights in attempts if len(rights) >= k]
        for measure, holds in ((row.pass_at, any), (row.pass_all, all)):
            if subsets:
                expected = np.mean([np.mean([holds(s) for s in each]) for each in subsets])
                assert measure(k) == pytest.approx(expected)
            else:
                assert math.isnan(measure(k))
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 16, got 0"):
        row.pass_at(0)


def test_a_snapshot_that_contradicts_its_figures_of_attempts_is_refused() -> None:
    """Unknown figures, wrong shapes, and totals that differ from them."""
    meter = Meter()
    attempted(meter).succeeded()
    data = meter.snapshot().to_dict()
    for change, message in (
        ({"attempts": 3}, r"defects\[0\].attempts must be 1"),
        ({"fixed": 2}, r"defects\[0\].fixed must be 1"),
        ({"tallies": {"luck": [1, 0]}}, "figures that are known"),
        ({"tallies": {"defects": [1]}}, "two whole numbers"),
        ({"tallies": {"defects": [-1, 0]}}, "a whole number"),
    ):
        wrong = {**data, "defects": [{**data["defects"][0], **change}]}
        with pytest.raises(ValueError, match=message):
            Snapshot.from_dict(wrong)


def test_native_names_are_checked_on_their_own() -> None:
    """The native attempts refuse outcomes that are none, and ignore unknown numbers."""
    native = _core.Attempts(_core.Recorder(clock=ManualClock()))
    with pytest.raises(ValueError, match="outcome must be one of fixed, partial"):
        native.close(1, "gone")
    native.close(1, "failed")
    native.candidate(5, 0)
    native.state_confidence(5, 0.5)
    assert native.judge_candidate(5, 0, "fixed", "caller") is False
    assert native.judge(5, "fixed", "caller") == "unknown"
    assert native.receipt(5) is None
    assert native.of_run(__import__("uuid").uuid4()) is None


def test_a_score_without_an_outcome_is_recorded_and_a_verdict_after_it_is_no_revision() -> None:
    """Nothing proves that the defect is gone: the attempt stays unverified, with its quality."""
    meter = Meter()
    attempt = attempted(meter)
    attempt.judge(Fix(None, 0.9))
    row = only(meter.snapshot())
    assert (outcomes(row), row.quality.count, row.revisions) == ({"unverified": 1}, 1, 0)
    attempt.succeeded(source="tests")
    row = only(meter.snapshot())
    assert (outcomes(row), row.quality.count, row.revisions) == ({"fixed": 1}, 1, 0)


@pytest.mark.parametrize(
    ("outcome", "right"),
    [
        ("fixed", 1.0),
        ("failed", 0.0),
        ("does_not_compile", 0.0),
        ("infrastructure", None),
        (None, None),
    ],
)
def test_a_candidate_takes_the_verdict_of_its_scorers(
    outcome: str | None, right: float | None
) -> None:
    """Fixed is right, an outcome about the checker records nothing, every other one is wrong."""
    meter = Meter()
    with meter.defects.attempt("D") as attempt:
        attempt.candidate(0).judge(Fix(outcome, source="tests"))
    row = only(meter.snapshot())
    assert row.pass_at(1) == right or (right is None and math.isnan(row.pass_at(1)))


def test_a_verdict_on_the_recommended_candidate_is_the_attempts_with_score_and_reason() -> None:
    """It is one verdict: no revision, one score, one reason; other candidates leave both alone."""
    meter = Meter()
    with meter.defects.attempt("D") as attempt:
        first, second = attempt.candidate(0), attempt.candidate(1, recommended=True)
    first.failed(reason="loop", score=0.1)
    second.judge(Fix("failed", 0.5, source="tests", reason="1 of 2 tests failed"))
    row = only(meter.snapshot())
    assert (outcomes(row), row.revisions, row.quality.count) == ({"failed": 1}, 0, 1)
    assert row.pass_at(2) == 0
    assert dict(meter.defects.failure_reasons) == {("failed", "1 of 2 tests failed"): 1}
    second.succeeded(source="reviewer")
    assert only(meter.snapshot()).pass_at(2) == 1
    with pytest.raises(ConfigError, match="outcome must be another one than 'fixed'"):
        first.failed(outcome="fixed")
