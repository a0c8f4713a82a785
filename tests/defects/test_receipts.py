"""Verdicts by receipt on attempts with candidates, strategies and scores: sums stay right."""

from __future__ import annotations

from typing import Any

import pytest

from langmeter import Meter
from langmeter.snapshot import DefectStats


def _attempt(meter: Meter, **about: Any) -> Any:
    """An attempt with three candidates, of which the second is recommended."""
    with meter.defects.attempt("D", type="LEAK", severity="high", strategy="guard") as attempt:
        for index in range(3):
            attempt.candidate(index, recommended=index == 1, **about)
    return attempt


def _figures(row: DefectStats) -> tuple[Any, ...]:
    samples = (row.pass_at(1), row.pass_at(2), row.pass_all(2))
    return (*samples, row.candidates, row.defects, row.closed, row.fixed, row.attempt_rate)


@pytest.mark.parametrize("outcome", ["fixed", "failed", "infrastructure"])
def test_a_verdict_by_receipt_counts_in_the_sum_as_one_at_home(outcome: str) -> None:
    """Also in pass@k, pass^k and the rows of strategies."""
    sums = []
    for elsewhere in (False, True):
        here, there = Meter(), Meter()
        attempt = _attempt(here, confidence=0.5)
        attempt.candidate(0).failed(source="tests")
        attempt.candidate(1).succeeded(source="compile")
        judge = there if elsewhere else here
        for _ in range(2):
            assert judge.defects.record(attempt.receipt, outcome, source="re-scan")
        both = here.snapshot() + there.snapshot()
        [row], [strategy] = both.defects.values(), both.defect_strategies.values()
        sums.append((*_figures(row), _figures(strategy), row.outcomes, row.revisions, row.funnel))
    at_home, by_receipt = map(repr, sums)  # NaN is not equal to itself
    assert at_home == by_receipt


def test_the_same_verdict_in_two_processes_is_no_revision() -> None:
    """By the caller's own source too, whose name does not leave the process."""
    here, there = Meter(), Meter()
    attempt = _attempt(here)
    attempt.failed(score=0.25, source="team a")
    assert there.defects.record(attempt.receipt, "failed", score=0.25, source="team a")
    assert not there.snapshot().defects or not any(
        row.revisions for row in there.snapshot().defects.values()
    )
    assert "team a" not in attempt.receipt


def test_a_second_receipt_of_an_attempt_is_the_same_attempt() -> None:
    """Whatever it says by then: the process that took the first one goes on from there."""
    here, there = Meter(), Meter()
    attempt = _attempt(here)
    first = attempt.receipt
    there.defects.record(first, "fixed", source="reviewer")
    attempt.failed()
    assert attempt.receipt != first
    assert not there.defects.record(attempt.receipt, "failed")
    [row] = there.snapshot().defects.values()
    assert row.fixed == 1
