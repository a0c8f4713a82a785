"""Snapshots as text: what is read back, and what no recorder can have written."""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot, _core
from langmeter.errors import SnapshotError
from langmeter.testing import ManualClock
from tests.support.laws import examples

LLM, TOOL = _core.KINDS.index("llm"), _core.KINDS.index("tool")
_USAGE = len(_core.COUNTERS[len(_core.OUTCOMES) : _core.COUNTERS.index("estimated") + 1])


def usage(**counts: int) -> tuple[int, ...]:
    """A call's counts, by name."""
    names = _core.COUNTERS[len(_core.OUTCOMES) :][:_USAGE]
    return tuple(counts.get(name, 0) for name in names)


def forms(snapshot: Snapshot) -> None:
    """Assert that a snapshot is read back from its text and is written the same again."""
    text = snapshot.to_json()
    again = Snapshot.from_json(text)
    assert again == snapshot
    assert again.to_json() == text


# --- what recorders write is read back -----------------------------------------------------------

EVENTS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        how=st.sampled_from(["call", "call", "tool", "no start", "twice", "open", "batch"]),
        outcome=st.sampled_from(range(len(_core.OUTCOMES))),
        model=st.sampled_from(["m", "n", ""]),
        tokens=st.integers(0, 3),
        seconds=st.sampled_from([0.0, 0.5, 4000.0]),
        # Providers' figures may contradict each other: more read from the cache than was sent.
        usage=st.none()
        | st.builds(
            usage,
            input=st.integers(0, 9),
            output=st.integers(0, 9),
            total=st.integers(0, 9),
            cache_read=st.integers(0, 9),
            cache_write_1h=st.integers(0, 9),
            reasoning=st.integers(0, 9),
            estimated=st.integers(0, 9),
        ),
        cost=st.none() | st.integers(0, 2**63),
    ),
    max_size=8,
)


def happen(recorder: _core.Recorder, clock: ManualClock, events: list[dict[str, Any]]) -> None:
    """Let a recorder hear of these."""
    for event in events:
        run, kind = uuid.uuid4(), TOOL if event["how"] == "tool" else LLM
        if event["how"] != "no start":
            recorder.run_started(run, None, kind, "c", "p", "m" if kind == LLM else "")
        for _ in range(event["tokens"]):
            clock.advance(0.1)
            recorder.token(run)
        clock.advance(event["seconds"])
        if event["how"] == "open":
            continue
        for _ in range(2 if event["how"] == "twice" else 1):
            if kind == TOOL:
                recorder.run_ended(run, kind, event["outcome"])
            else:
                recorder.run_ended(
                    run, kind, event["outcome"], "p", event["model"], event["usage"], event["cost"]
                )


@examples(60)
@given(EVENTS, EVENTS)
def test_what_was_recorded_is_read_back(
    first: list[dict[str, Any]], then: list[dict[str, Any]]
) -> None:
    """Snapshots of any events, their differences and sums, contradicting providers included."""
    clock = ManualClock()
    recorder = _core.Recorder(clock=clock, max_series=16, max_runs=16)
    happen(recorder, clock, first)
    a = Snapshot(recorder.snapshot())
    happen(recorder, clock, then)
    b = Snapshot(recorder.snapshot())
    for snapshot in (a, b, b - a, a + b, (b - a) + a):
        forms(snapshot)


def test_live_snapshots_are_read_back() -> None:
    """Taken beside eight threads, with their differences and sums."""
    recorder = _core.Recorder(max_series=32)
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            run = uuid.uuid4()
            recorder.run_started(run, None, LLM, "c", "p", f"m{number % 3}")
            recorder.token(run)
            recorder.token(run)
            counts = usage(input=100, output=10, total=110, cache_read=50, reasoning=5)
            recorder.run_ended(run, LLM, number % 2, "p", f"m{number % 3}", counts, 7)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        taken = []
        for _ in range(30):
            time.sleep(0)  # the others' turn
            taken.append(Snapshot(recorder.snapshot()))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert taken[0].totals.calls < taken[-1].totals.calls
    for before, now in pairwise(taken):
        for snapshot in (now, now - before, now + before):
            forms(snapshot)


def test_a_series_that_contradicts_itself_says_by_how_much() -> None:
    """A provider that reports more cached than sent is believed; the text shows it."""
    recorder = _core.Recorder()
    for started in (True, False):
        run = uuid.uuid4()
        if started:
            recorder.run_started(run, None, LLM, "c", "p", "m")
        recorder.run_ended(run, LLM, 0, "p", "m", usage(input=10, total=10, cache_read=30), None)
    snapshot = Snapshot(recorder.snapshot())
    (model,) = snapshot.to_dict()["models"]
    assert model["discrepancies"] == {"cached": 40, "latency": -1}
    forms(snapshot)
    del model["discrepancies"]["cached"]
    with pytest.raises(SnapshotError, match=r"models\[0\]\.cached must be at most input \(20\)"):
        Snapshot.from_dict({**snapshot.to_dict(), "models": [model]})


# --- what no recorder can have written is refused ------------------------------------------------


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """A text of two models, a tool, a label and an anomaly, read as data."""
    clock = ManualClock()
    recorder = _core.Recorder(clock=clock)
    for number in range(20):
        run, tool = uuid.uuid4(), uuid.uuid4()
        recorder.run_started(run, None, LLM, "chat", "p", "mn"[number % 2])
        recorder.token(run)
        clock.advance(0.25)
        recorder.token(run)
        clock.advance(1.0)
        counts = usage(input=100, output=40, total=140, cache_read=30, reasoning=12)
        recorder.run_ended(run, LLM, number == 4, "p", "mn"[number % 2], counts, 5)
        recorder.run_started(tool, None, TOOL, "search")
        recorder.run_ended(tool, TOOL, 0)
    data: dict[str, Any] = json.loads(Snapshot(recorder.snapshot()).to_json())
    change = {
        **{"at_unix_nano": 1, "detected_at_unix_nano": 2, "provider": "p", "model": "m"},
        **{"metric": "latency", "before_1e12": 1, "after_1e12": 2},
        **{"calls_before": 9, "calls_after": 9},
    }
    data["anomalies"] = [change]
    data["dropped"] = {"other": 1}
    Snapshot.from_dict(data)
    return data


def _set(*path: Any) -> Callable[[Any], None]:
    *way, last, value = path

    def change(data: Any) -> None:
        for step in way:
            data = data[step]
        data[last] = value

    return change


def _counters(**counts: int) -> Callable[[Any], None]:
    return lambda data: data["models"][0]["counters"].update(counts)


_MODEL = ("models", 0)
REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    # figures that follow from others
    "calls": (_set(*_MODEL, "calls", 99), r"models\[0\]\.calls must be 10, as its counters"),
    "calls of nothing": (
        _set(*_MODEL, {"provider": "p", "model": "m", "counters": {}, "calls": 3, "rates": []}),
        r"models\[0\]\.calls must be 0",
    ),
    "errors": (_set("components", 0, "errors", 7), r"components\[0\]\.errors must be "),
    "cost": (
        _set(*_MODEL, "cost_usd", "5"),
        r"cost_usd must be '0\.000000000050', as its counters",
    ),
    "count": (_set(*_MODEL, "latency", "count", 9), r"latency\.count must be 10, as its histogram"),
    "p95": (_set(*_MODEL, "latency", "p95", 9.5), r"latency\.p95 must be 1\.25"),
    "mean": (_set(*_MODEL, "latency", "mean", "1.25"), r"latency\.mean must be "),
    "max": (_set("components", 1, "latency", "max", 9), r"latency\.max must be "),
    "date": (
        _set("taken_at", "2020-01-01T00:00:00+00:00"),
        "taken_at must be the time of taken_at_",
    ),
    "no date": (_set("started_at", 5), "started_at must be the time of started_at_unix_nano"),
    # parts and wholes
    "more calls than timed": (
        lambda data: (
            data["models"][0].update(calls=2**63 - 1)
            or data["models"][0]["counters"].update(ok=2**63 - 1 - data["models"][0]["errors"])
        ),
        r"latency must count the 9,223,372,036,854,775,807 calls that ended, got 10",
    ),
    "more timed than calls": (
        lambda data: (
            data["models"][0].update(calls=9)
            or data["models"][0]["counters"].update(ok=data["models"][0]["counters"]["ok"] - 1)
        ),
        "latency must count the 9 calls that ended, got 10",
    ),
    "a tool without its time": (
        lambda data: data["components"][1].pop("latency"),
        r"components\[1\]\.latency must count the 20 calls that ended, got 0",
    ),
    "cached": (_counters(cache_read=1001), r"cached must be at most input \(1,000\), got 1001"),
    "1h": (_counters(cache_write_1h=1), r"cache_write_1h must be at most cache_write \(0\), got 1"),
    "reasoning": (_counters(reasoning=401), r"reasoning must be at most output \(400\), got 401"),
    "estimated": (_counters(estimated=10**9), r"estimated must be at most total \(1,400\)"),
    "priced": (_counters(priced_calls=11), r"answered must be at most made \(10\), got 11"),
    "repriced": (_counters(repriced_calls=10**6), r"repriced_calls must be at most unpriced_calls"),
    "repriced tokens": (
        _counters(repriced_total=1),
        "repriced_total must be at most unpriced_total",
    ),
    "unpriced tokens": (_counters(unpriced_total=1401), "unpriced_total must be at most total"),
    "streamed": (_counters(streamed=11), r"streamed must be at most made \(10\), got 11"),
    "first tokens": (_counters(streamed=9), r"time_to_first_token must be at most streamed \(9\)"),
    "gaps": (_counters(token_events=9), r"inter_token_latency must be at most token_events"),
    "truncated": (_counters(truncated=11), "truncated must be at most made"),
    "recovered": (_counters(recovered=11), "recovered must be at most error"),
    "cost of errors": (_counters(cost_error=51), r"cost_unanswered must be at most cost \(50\)"),
    "retried": (_counters(retried_cost=51), "retried_cost must be at most cost"),
    "billed": (_counters(billed_calls=11), "billed_calls must be at most made"),
    "window": (
        _set(*_MODEL, "rates", 2, "requests", 11),
        r"rates must be at most what the counters",
    ),
    # values
    "negative": (_counters(input=-1), r"counters\.input must be a whole number from 0 .*, got -1"),
    "too large": (_counters(input=2**64), r"counters\.input must be a whole number"),
    "fraction": (
        _counters(input=1.5),  # type: ignore[arg-type]
        r"counters\.input must be .*, got 1\.5; write the text again",
    ),
    "text": (_set("in_flight", "1"), "in_flight must be a whole number from -9,.*, got '1'"),
    "dropped": (_set("dropped", {"other": -1}), r"dropped\.other must be a whole number from 0"),
    "peak": (_set("peak_in_flight", None), "peak_in_flight must be a whole number from 0"),
    "origin": (_set("origin", [1]), "origin must be two whole numbers or null"),
    "unknown counter": (_counters(words=1), r"counters that are known, got 'words'; upgrade"),
    "kind": (_set(*_MODEL, "kind", "tool"), r"models\[0\]\.kind must be one of model, got 'tool'"),
    "kind of component": (
        _set("components", 0, "kind", "robot"),
        "must be one of llm, chain, node",
    ),
    "name": (_set(*_MODEL, "model", None), r"models\[0\]\.model must be a text, got None"),
    "missing": (
        lambda data: data["models"][0].pop("counters"),
        r"'counters' of models\[0\] is missing",
    ),
    "no list": (_set("models", {}), "models must be a list"),
    "no object": (_set("models", [3]), r"models\[0\] must be an object, got 3"),
    "a histogram": (_set(*_MODEL, "latency", 3), r"models\[0\]\.latency must be an object, got 3"),
    # duplicates
    "a model twice": (
        lambda data: data["models"].append(data["models"][0]),
        r"models\[2\] must be another series than models\[0\], got .*; join snapshots as a \+ b",
    ),
    "a tool twice": (
        lambda data: data["components"].insert(0, data["components"][1]),
        r"components\[2\] must be another series than components\[0\]",
    ),
    "an anomaly twice": (
        lambda data: data["anomalies"].append(data["anomalies"][0]),
        r"anomalies\[1\] must be another anomaly than anomalies\[0\]",
    ),
    # windows and times
    "seven seconds": (
        _set(*_MODEL, "rates", 0, "window_s", 7),
        "rates must be windows of 60, 300, 900 s",
    ),
    "two windows": (lambda data: data["models"][0]["rates"].pop(), "rates must be windows of 60"),
    "windows of a tool": (
        lambda data: data["components"][1].update(rates=data["models"][0]["rates"]),
        r"components\[1\]\.rates must be empty",
    ),
    "covered": (
        _set(*_MODEL, "rates", 0, "covered_ns", 10**15),
        "covered_ns must be at most 60 s or",
    ),
    "taken first": (
        _set("taken_at_unix_nano", 1),
        "taken_at_unix_nano must be at least started_at_unix_nano",
    ),
    "never taken": (
        lambda data: data.update(taken_at_unix_nano=0, started_at_unix_nano=0),
        "started_at must be the time of started_at_unix_nano",
    ),
    "detected first": (
        _set("anomalies", 0, "detected_at_unix_nano", 0),
        r"anomalies\[0\]\.detected_at_unix_nano must be at least at_unix_nano",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_that_contradicts_itself_is_refused(written: dict[str, Any], name: str) -> None:
    """The message names the field, what it must be, what it is, and the remedy."""
    change, message = REFUSED[name]
    data = copy.deepcopy(written)
    change(data)
    with pytest.raises(SnapshotError, match=message) as caught:
        Snapshot.from_json(json.dumps(data))
    assert len(str(caught.value)) < 400


def test_calls_in_flight_may_be_counted_by_half(written: dict[str, Any]) -> None:
    """A part is ahead of its whole by no more than is in flight."""
    data = copy.deepcopy(written)
    data["in_flight"] = 2
    data["models"][0]["counters"]["truncated"] = 12
    Snapshot.from_dict(data)
    data["models"][0]["counters"]["truncated"] = 13
    with pytest.raises(SnapshotError, match="truncated must be at most made"):
        Snapshot.from_dict(data)
    data["models"][0]["counters"].update(truncated=0, reasoning=401)
    with pytest.raises(SnapshotError, match="reasoning must be at most output"):
        Snapshot.from_dict(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 3, "format": 3}', "field 'format' must be there once in its object"),
        ('{"format": NaN}', "every number must be finite, got 'NaN'"),
        ('{"models": []}', "field 'format' is missing"),
        ('{"format": 3}', "field 'models' is missing"),
        ('{"format": 3.0}', "snapshot of format 3.0"),
        (b"LMTR\xff", "not a JSON text"),
    ],
)
def test_a_text_that_is_no_snapshot_is_refused(text: str | bytes, message: str) -> None:
    """Fields that stand twice, numbers that are none, and what is missing are named."""
    with pytest.raises(SnapshotError, match=message):
        Snapshot.from_json(text)


def test_what_follows_from_the_figures_may_be_left_out(written: dict[str, Any]) -> None:
    """And lists may stand in any order; the snapshot is the same."""
    data = copy.deepcopy(written)
    for name in ("started_at", "taken_at", "langmeter"):
        del data[name]
    for series in (*data["models"], *data["components"]):
        for name in ("calls", "errors", "cost_usd"):
            series.pop(name, None)
        for name in _core.MEASURES:
            if name in series:
                series[name] = {"hdr": series[name]["hdr"]}
    data["models"].reverse()
    data["note"] = "added by hand"
    assert Snapshot.from_dict(data) == Snapshot.from_dict(written)
