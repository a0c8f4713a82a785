"""Verdicts on attempts: by strength, late, repeated and by receipt."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Meter, Snapshot, _core
from langmeter.defects import OUTCOMES, SOURCES, Fix
from langmeter.errors import ConfigError
from langmeter.testing import ManualClock
from tests.support.laws import examples
from tests.support.repairs import attempted, only, outcomes

SCORED = [name for name in OUTCOMES if name not in ("infrastructure", "unscored", "unverified")]


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
