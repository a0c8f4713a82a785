"""Figures beside tokens and time: failures, retries, anomalies, queues; in forms, in reports."""

from __future__ import annotations

import io
import math
import pickle
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, GenerationChunk, LLMResult

from langmeter import PerformanceCallback, Snapshot, _core
from langmeter.errors import SnapshotError
from langmeter.report import terminal
from langmeter.snapshot import FORMAT
from langmeter.testing import ManualClock
from langmeter.usage import read
from tests.support.models import chat_model

OUTCOME = {name: code for code, name in enumerate(_core.OUTCOMES)}
KIND = {name: code for code, name in enumerate(_core.KINDS)}
SECOND = 1_000_000_000
CHANGE = (60 * SECOND, 90 * SECOND, "p", "m", "latency", 8 * 10**11, 12 * 10**11, 40, 20)


class Books:
    """A recorder whose calls a test decides in every part."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.recorder = _core.Recorder(max_series=64, max_runs=64, clock=self.clock)

    def run(
        self,
        kind: str = "llm",
        name: str = "Chat",
        *,
        model: str = "m",
        outcome: str = "ok",
        parent: uuid.UUID | None = None,
        seconds: float = 1.0,
        tokens: int = 0,
        labels: Any = None,
        retried: bool = False,
        **end: Any,
    ) -> uuid.UUID:
        """One run from start to end."""
        run = uuid.uuid4()
        names = ("p", model) if kind == "llm" else ("", "")
        self.recorder.run_started(
            run, parent, KIND[kind], name, *names, labels=labels, retried=retried
        )
        for _ in range(tokens):
            self.clock.advance(0.1)
            self.recorder.token(run)
        self.clock.advance(seconds)
        if kind == "llm" and outcome == "ok":
            end.setdefault("usage", (100, 11, 111, *[0] * 16))
        self.recorder.run_ended(run, KIND[kind], OUTCOME[outcome], *names, **end)
        return run

    def snapshot(self, anomalies: Any = None) -> Snapshot:
        """What it has counted."""
        return Snapshot(self.recorder.snapshot(anomalies))


def full() -> Books:
    """Something of everything that a snapshot can hold."""
    books = Books()
    root = uuid.uuid4()
    books.recorder.run_started(root, None, KIND["chain"], "pipe")
    books.run(outcome="error", error="RateLimitError 429", parent=root, cost=5)
    labels = [("team", "a")]
    books.run(parent=root, retried=True, cost=70, labels=labels, queue=SECOND // 2)
    books.run("node", "work", parent=root)
    books.run("agent", "bob", parent=root, outcome="error", error="KeyError")
    books.recorder.run_ended(root, KIND["chain"], OUTCOME["ok"])
    books.run(model="n", outcome="cancelled", error="GeneratorExit", cost=9)
    books.run(model="n", tokens=11, truncated=True, billed=10**12)
    books.run(model="n", outcome="cache_hit", usage=(100, 11, 111, *[0] * 16))
    books.run(model="o", usage=(5, 5, 10, *[0] * 15, 10))
    books.recorder.stalled("p", "n")
    books.recorder.in_hook("on_llm_end", 12_345)
    books.recorder.run_started(uuid.uuid4(), None, KIND["llm"], "Chat", "p", "m")
    books.recorder.dropped("usage_refused", 2)
    return books


def test_figures_are_as_recorded() -> None:
    """Each by the name that users know."""
    s = full().snapshot([CHANGE])
    m, n = s.models["p", "m"], s.models["p", "n"]
    assert s.failures == {
        ("p/m", "RateLimitError 429"): 1,
        ("agent bob", "KeyError"): 1,
        ("p/n", "GeneratorExit"): 1,
    }
    assert (m.recovered, m.retried_calls, m.retried_cost) == (1, 1, Decimal("70E-12"))
    assert (m.cost, m.cost_of("error")) == (Decimal("75E-12"), Decimal("5E-12"))
    assert (n.cost_of("cancelled"), n.billed, n.billed_calls) == (Decimal("9E-12"), 1, 1)
    assert (n.truncated, n.stalls, n.tokens.saved) == (1, 1, 111)
    assert s.unpriced == {("p", "n"): 111, ("p", "o"): 10}
    assert m.queue_time.quantile(0.5) == pytest.approx(0.5, rel=0.01)
    assert n.stream_duration.max == pytest.approx(1.0, rel=0.01)
    assert n.longest_gap.max == pytest.approx(0.1, rel=0.001)
    assert n.time_per_output_token.max == pytest.approx(0.1, rel=0.01)
    assert n.output_tokens_per_second() == pytest.approx(10, rel=0.01)
    assert math.isnan(m.output_tokens_per_second())
    assert n.self_time == n.latency
    assert (s.in_flight, m.in_flight, s.peak_in_flight) == (1, 1, 1)
    assert list(s.overhead) == ["on_llm_end"]
    assert s.overhead["on_llm_end"].timed == 1
    assert s.pipeline_runs == 5
    (change,) = s.anomalies
    assert change.at == datetime.fromtimestamp(60, UTC)
    assert (change.before, change.after, change.calls_after) == (0.8, 1.2, 20)
    assert {kind for kind, _ in s.components} == {"llm", "chain", "node", "agent"}
    with pytest.raises(ValueError, match="outcome = 'ok': must be 'error' or 'cancelled'"):
        m.cost_of("ok")
    with pytest.raises(ValueError, match=r"q = 2: must be in \[0, 1\]"):
        m.output_tokens_per_second(2)
    assert s.models["p", "o"].cost_of("error") is s.models["p", "o"].retried_cost is None


def test_every_form_holds_all_of_it() -> None:
    """Bytes, dict, JSON and pickle, alone and merged."""
    books = full()
    alone = books.snapshot([CHANGE])
    for s in (alone, alone + full().snapshot(), alone - Snapshot()):
        assert Snapshot.from_bytes(s.to_bytes()) == s
        assert Snapshot.from_dict(s.to_dict()) == s
        assert Snapshot.from_json(s.to_json()) == s
        assert pickle.loads(pickle.dumps(s)) == s
        assert Snapshot.from_json(s.to_json()).anomalies == s.anomalies


def test_sums_and_differences_hold_all_of_it() -> None:
    """`a + b` is b + a in every part; `b - a` is what came between, anomalies too."""
    books = full()
    a = books.snapshot([CHANGE])
    books.run(outcome="error", error="RateLimitError 429", labels=[("team", "b")])
    books.run("node", "late", seconds=3.0)
    later = (200 * SECOND, *CHANGE[1:])
    b = books.snapshot([CHANGE, later])
    assert a + b == b + a
    assert (a + b).failures["p/m", "RateLimitError 429"] == 3
    assert len((a + b).anomalies) == 2
    between = b - a
    assert between.failures == {("p/m", "RateLimitError 429"): 1}
    assert list(between.labels) == [("team", "b")]
    assert [change.at.timestamp() for change in between.anomalies] == [200]
    assert between.pipeline_runs == 2
    assert between.components["node", "late"].self_seconds == 3.0
    assert between.models["p", "m"].recovered == 0
    assert (a + between).failures == b.failures
    assert (a + between).totals.outcomes == b.totals.outcomes


@pytest.mark.parametrize(
    ("version", "told"), [(1, "read it with langmeter 0.0.9"), (FORMAT + 1, "upgrade")]
)
def test_other_formats_are_refused_with_what_to_do(version: int, told: str) -> None:
    """An older one is read by the version that wrote it, a newer one by a newer langmeter."""
    data = {**Snapshot().to_dict(), "format": version, "langmeter": "0.0.9"}
    with pytest.raises(SnapshotError, match=told):
        Snapshot.from_dict(data)
    binary = bytearray(full().snapshot().to_bytes())
    binary[4] = version
    with pytest.raises(ValueError, match=f"format {version} is (newer|of an older)"):
        Snapshot.from_bytes(bytes(binary))


def test_the_report_says_what_people_ask() -> None:
    """Labels, failures, and in a line each what was wasted, made again, cut or dropped."""
    text = str(full().snapshot([CHANGE]))
    blocks = text.split("\n\n")
    assert [block.split()[0] for block in blocks] == [
        "model",
        "label",
        "component",
        "failure",
        "changed:",
    ]
    assert "team=a      1       0  100   11  $0.00000000007000  1.00 s  1.00 s  1.00 s" in text
    assert "p/m: RateLimitError 429      1" in blocks[3]
    assert blocks[4].splitlines() == [
        "changed: latency of p/m, 800 ms to 1.20 s, at 1970-01-01 00:01:00 UTC",
        "unpriced: 2 calls of 2 models; ask `langmeter prices MODEL`, or set own prices in a "
        "PriceBook",
        "spent on failed and cancelled calls: error $0.000000000005000, "
        "cancelled $0.000000000009000",
        "billed, as providers say: $1.000 for 1 call",
        "estimated: 10 of 232 tokens; no provider told them",
        "saved by the response cache: 111 tokens",
        "in flight: 1, at most 1",
        "other outcomes: cache_hit 1, cancelled 1",
        "retried: 1 call for $0.00000000007000",
        "recovered by a retry or a fallback: 1 call",
        "truncated at the limit of their length: 1 answer",
        "stalls of streams: 1",
        "dropped: usage_refused 2",
    ]
    assert max(map(len, text.splitlines())) <= 120
    assert terminal.report(full().snapshot()).endswith("dropped: usage_refused 2")


def test_a_report_of_nothing_odd_has_no_notes() -> None:
    """Two tables, and no more."""
    books = Books()
    books.run(cost=1)
    assert [block.split()[0] for block in str(books.snapshot()).split("\n\n")] == [
        "model",
        "component",
    ]


def test_a_report_stays_short() -> None:
    """Ten labels, failures and changes, the most frequent or the latest, and how many more."""
    books = Books()
    for n in range(14):
        for _ in range(n + 1):
            books.run(outcome="error", error=f"E{n:02}\x1b", labels=[("k", f"v{n:02}\n")])
    changes = [(n * SECOND, *CHANGE[1:4], "tokens_per_call", *CHANGE[5:]) for n in range(14)]
    text = str(books.snapshot(changes))
    assert all(line.isprintable() for line in text.split("\n"))
    assert "k=v13\\n" in text
    assert "k=v03\\n" not in text
    assert "p/m: E13\\x1b     14" in text
    assert "E03" not in text
    assert text.count("… and 4 more") == 2
    assert text.count("changed: tokens_per_call of p/m, 0.8 to 1.2") == 10
    assert "00:00:13" in text
    assert "00:00:03 UTC" not in text


@pytest.mark.parametrize(
    ("metric", "shown"),
    [
        ("latency", "800 ms to 1.20 s"),
        ("error_rate", "80.0% to 120.0%"),
        ("tokens_per_call", "0.8 to 1.2"),
        ("cost_per_call", "$0.8000 to $1.200"),
    ],
)
def test_a_change_is_told_in_the_unit_of_its_figure(metric: str, shown: str) -> None:
    """Seconds, a share, a number or dollars."""
    snapshot = Books().snapshot([(*CHANGE[:4], metric, *CHANGE[5:])])
    assert f"changed: {metric} of p/m, {shown}, at" in str(snapshot)


def test_the_live_table_is_of_models_alone() -> None:
    """It redraws every second: the rest is for the end."""
    from rich.console import Console

    console = Console(width=140, file=io.StringIO())
    console.print(terminal.table(full().snapshot()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "p/m" in text
    assert "team=a" not in text


def test_views_of_time() -> None:
    """Percentiles of one model, throughput over any window, by the second and by the minute."""
    clock = ManualClock()
    performance = PerformanceCallback(clock=clock)
    for model, seconds in (("a", 1.0), ("a", 1.0), ("b", 10.0)):
        run = uuid.uuid4()
        metadata = {"ls_provider": "p", "ls_model_name": model}
        performance.on_chat_model_start({}, [[]], run_id=run, metadata=metadata)
        clock.advance(seconds)
        if model == "a":
            performance.on_llm_end(chat_model().generate([[AIMessage("x")]]), run_id=run)
        else:
            performance.on_llm_error(ValueError(), run_id=run)
    assert performance.percentile(50) == pytest.approx(1.0, rel=0.01)
    assert performance.percentile(50, model="b") == pytest.approx(10.0, rel=0.01)
    assert performance.percentile(100, model="p/fake-1") == pytest.approx(1.0, rel=0.01)
    assert math.isnan(performance.percentile(50, model="c"))
    for window in (60, 300, 900):
        rate = performance.throughput_over(window)
        assert rate.window == window
        assert rate.requests == pytest.approx(3 / 12)
        assert rate.tokens == pytest.approx(280 / 12)
        assert rate.per_minute.requests == pytest.approx(15)
        assert rate.per_minute.tokens == pytest.approx(1400)
        assert (rate.per_minute.window, rate.per_minute.covered) == (window, rate.covered)
    assert performance.throughput == pytest.approx(3 / 12)
    assert performance.errors_per_second == pytest.approx(1 / 12)
    assert (performance.in_flight, performance.peak_in_flight) == (0, 1)
    with pytest.raises(ValueError, match="seconds = 61: must be one of the windows 60, 300, 900"):
        performance.throughput_over(61)


def test_amazon_and_text_models_tell_of_truncation_too() -> None:
    """`stopReason` of Bedrock's Converse; beside the text where there is no message."""
    message = AIMessage("x", response_metadata={"stopReason": "max_tokens"})
    assert read(LLMResult(generations=[[ChatGeneration(message=message)]])).truncated
    text = GenerationChunk(text="x", generation_info={"finish_reason": "length"})
    assert read(LLMResult(generations=[[text]])).truncated
    assert not read(None).truncated
    assert read(object()).queue is None
