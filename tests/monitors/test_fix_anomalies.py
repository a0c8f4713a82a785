"""Changes of the success rate and of the cost of fixes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from langmeter import _core
from langmeter.monitors.anomalies import Anomaly, AnomalyDetector, FixRow
from tests.support.changes import BEGIN, TICK, at


def fix_rows(*stretches: tuple[int, float, int], seed: int = 0) -> Iterator[FixRow]:
    """Cumulative figures of fixes: ticks of five defects, the share fixed, cost of an attempt."""
    random_ = random.Random(seed)
    closed = fixed = cost = 0
    yield ("p", "m", 0, 0, 0, 0)
    for ticks, rate, price in stretches:
        for _ in range(ticks):
            closed += 5
            fixed += sum(random_.random() < rate for _ in range(5))
            cost += sum(round(price * random_.uniform(0.8, 1.2)) for _ in range(5))
            yield ("p", "m", closed, fixed, fixed, cost)


def play_fixes(stream: Iterable[FixRow]) -> list[Anomaly]:
    detector = AnomalyDetector()
    return [
        anomaly
        for tick, row in enumerate(stream)
        for anomaly in detector.observe([], BEGIN + tick * TICK, [row])
    ]


def test_a_fall_of_the_success_rate_is_reported() -> None:
    """It is the share of the defects with a verdict that are fixed."""
    stream = fix_rows((200, 0.8, 10**9), (60, 0.3, 10**9))
    (anomaly,) = (a for a in play_fixes(stream) if a.metric == "success_rate")
    assert (anomaly.before, anomaly.after) == (
        pytest.approx(0.8, abs=0.05),
        pytest.approx(0.3, abs=0.15),
    )
    assert anomaly.calls_before == pytest.approx(1000, abs=50)
    assert abs(anomaly.at - at(200)) < timedelta(minutes=2)


def test_a_rise_of_the_cost_per_fixed_defect_is_reported() -> None:
    """Each attempt costs three times as much, and as many defects are fixed."""
    stream = fix_rows((300, 0.7, 10**9), (60, 0.7, 3 * 10**9))
    (anomaly,) = play_fixes(stream)
    assert anomaly.metric == "cost_per_fixed"
    assert anomaly.before == pytest.approx(0.001 / 0.7, rel=0.1)
    assert anomaly.after == pytest.approx(0.003 / 0.7, rel=0.3)


def test_steady_fixes_raise_no_alarm() -> None:
    """Twenty models of 20,000 defects each, of unequal rates."""
    for seed in range(20):
        assert play_fixes(fix_rows((4000, 0.05 * seed, 10**9), seed=seed)) == []


def test_fixes_that_later_verdicts_revoke_are_a_fall_and_not_a_new_recorder() -> None:
    """The number of fixed defects falls while a re-scan revokes them; that of closed ones grows."""
    stream = list(fix_rows((120, 0.8, 10**9), seed=3))
    last = stream[-1]
    for n in range(1, 61):
        revoked = last[3] - 2 * n
        stream.append(("p", "m", last[2] + 5 * n, revoked, last[4], last[5]))
    anomalies = play_fixes(stream)
    assert [a.metric for a in anomalies][:1] == ["success_rate"]
    assert anomalies[0].after == 0 < anomalies[0].before


def test_a_real_recorders_fixes_are_understood() -> None:
    """Attempts of two types at the defects of one model are one row; what left is subtracted."""
    recorder = _core.Recorder(max_series=64, max_runs=8)
    attempts = _core.Attempts(recorder)
    usage, llm, ok = (100, 200, 300) + (0,) * 9, _core.KINDS.index("llm"), 0
    for number, kind in enumerate(("leak", "leak", "race")):
        opened = attempts.open(f"CID-{number}", kind)
        run = uuid4()
        recorder.run_started(run, None, llm, "Chat", "openai", "gpt-4o")
        attempts.join(run, opened)
        recorder.run_ended(run, llm, ok, "openai", "gpt-4o", usage, 10**9)
        attempts.judge(opened, "fixed", "tests")
        attempts.close(opened, "unverified")
    attempts.judge(1, "regressed", "reviewer")
    assert recorder.fix_pulse() == [("openai", "gpt-4o", 3, 2, 3, 3 * 10**9)]
