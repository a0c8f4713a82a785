"""Snapshots: figures, laws of the sum, forms, and how they read."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import io
import json
import math
import pickle
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot, _core
from langmeter._base.text import format_count, format_duration, format_rate, format_usd
from langmeter.errors import SnapshotError
from langmeter.report import terminal
from langmeter.snapshot import Tokens
from langmeter.testing import ManualClock
from tests.support.laws import examples

LLM, CHAIN = _core.KINDS.index("llm"), _core.KINDS.index("chain")
USAGE = (100, 40, 140, 30, 5, 2, 12, 1, 1, 3, 4, 5, 6, 7, 8, 9, 2, 10, 0)


def record(
    recorder: _core.Recorder,
    clock: ManualClock,
    *,
    seconds: float = 1.0,
    outcome: str = "ok",
    model: str = "m",
    cost: int | None = None,
    tokens: int = 0,
) -> None:
    """One call of a model, streamed where it has tokens."""
    run = uuid.uuid4()
    recorder.run_started(run, None, LLM, "Chat", "p", model)
    for _ in range(tokens):
        clock.advance(0.1)
        recorder.token(run)
    clock.advance(seconds)
    code = _core.OUTCOMES.index(outcome)
    recorder.run_ended(run, LLM, code, "p", model, USAGE if outcome == "ok" else None, cost)


def metered(**settings: Any) -> tuple[_core.Recorder, ManualClock]:
    """An empty recorder and the clock it goes by."""
    clock = ManualClock()
    return _core.Recorder(clock=clock, **settings), clock


@pytest.fixture
def snapshot() -> Snapshot:
    """Two models, a chain, an error, a cancelled call, one in flight."""
    recorder, clock = metered()
    for cost in (1, 2, None):
        record(recorder, clock, cost=cost, tokens=3)
    record(recorder, clock, outcome="error", seconds=3.0)
    record(recorder, clock, outcome="cancelled", model="n")
    recorder.count(CHAIN, "chain", 0, 2_000_000_000)
    recorder.run_started(uuid.uuid4(), None, LLM, "Chat", "p", "m")
    recorder.dropped("hook_errors", 2)
    return Snapshot(recorder.snapshot())


def test_the_empty_snapshot_is_zero() -> None:
    """It is equal to another one, changes no sum, and answers every question."""
    zero = Snapshot()
    assert zero == Snapshot() == zero + zero
    assert hash(zero) == hash(Snapshot())
    assert (zero.models, zero.components, zero.dropped, zero.in_flight) == ({}, {}, {}, 0)
    assert zero.totals.calls == 0
    assert zero.totals.cost is None
    assert math.isnan(zero.totals.latency.mean)
    assert math.isnan(zero.totals.success_rate)
    assert zero.started_at is zero.taken_at is None
    assert str(zero) == "no model calls metered"


def test_figures_of_a_model(snapshot: Snapshot) -> None:
    """Calls, outcomes, tokens and money are as recorded."""
    stats = snapshot.models["p", "m"]
    assert (stats.provider, stats.model) == ("p", "m")
    assert (stats.calls, stats.errors, stats.success_rate) == (4, 1, 0.75)
    assert stats.outcomes == {
        "ok": 3,
        "error": 1,
        "cancelled": 0,
        "abandoned": 0,
        "interrupted": 0,
        "cache_hit": 0,
    }
    figures = (300, 120, 420, 90, 15, 6, 36, 3, 3, 9, 12, 15, 18, 21, 24, 27, 0, 0)
    assert stats.tokens == Tokens(*figures)
    assert stats.tokens + stats.tokens == Tokens(*(2 * n for n in figures))
    assert (stats.web_searches, stats.file_searches) == (6, 30)
    assert (stats.cost, stats.priced_calls, stats.unpriced_calls) == (Decimal("3E-12"), 2, 1)
    assert (stats.streamed, stats.token_events) == (3, 9)
    assert snapshot.models["p", "n"].cost is None
    assert snapshot.in_flight == 1
    assert snapshot.dropped == {"hook_errors": 2}
    assert "p/m: 4 calls, 1 error, 420 tokens" in repr(stats)


def test_distributions_of_a_model(snapshot: Snapshot) -> None:
    """In seconds; first token and gaps are of streamed calls alone."""
    stats = snapshot.models["p", "m"]
    assert stats.latency.count == 4
    assert stats.latency.quantile(0.5) == pytest.approx(1.3, rel=0.001)
    assert stats.latency.max == pytest.approx(3.0, rel=0.001)
    assert stats.latency.mean == pytest.approx((3 * 1.3 + 3) / 4, rel=0.001)
    assert stats.time_to_first_token.count == 3
    assert stats.time_to_first_token.mean == pytest.approx(0.1, rel=0.001)
    assert stats.inter_token_latency.count == 6


def test_totals_are_the_sum_over_models(snapshot: Snapshot) -> None:
    """Counters add, histograms merge, and components are not counted again."""
    totals = snapshot.totals
    assert (totals.calls, totals.errors, totals.tokens.total) == (5, 1, 420)
    assert totals.latency.count == 5
    assert totals.latency.max == snapshot.models["p", "m"].latency.max
    assert totals.inter_token_latency.count == 6
    assert totals.rates == snapshot.rates
    key = ("llm", "Chat")
    assert snapshot.components[key].calls == 5
    assert snapshot.components["chain", "chain"].latency.mean == pytest.approx(2.0, rel=0.001)
    assert (snapshot.components[key].kind, snapshot.components[key].name) == key


def test_rates_are_per_second_of_what_was_lived_through() -> None:
    """60 calls in 60 seconds are one a second, over every window that has seen no more."""
    recorder, clock = metered()
    for _ in range(60):
        record(recorder, clock, seconds=1.0)
    rates = Snapshot(recorder.snapshot()).rates
    assert list(rates) == [60, 300, 900]
    for window in (300, 900):
        assert rates[window].covered == pytest.approx(60)
        assert rates[window].requests == pytest.approx(1.0)
    assert rates[60].requests == pytest.approx(1.0, rel=0.1)
    assert rates[300].tokens == pytest.approx(140.0)
    assert rates[300].errors == 0.0
    clock.advance(100.0)
    assert Snapshot(recorder.snapshot()).rates[60].requests == 0.0


def test_rates_of_the_first_second_are_of_a_whole_one() -> None:
    """One call in a millisecond is one a second, not a thousand; what was covered stays true."""
    recorder, clock = metered()
    record(recorder, clock, seconds=0.001)
    rate = Snapshot(recorder.snapshot()).rates[60]
    assert rate.requests == 1.0
    assert rate.tokens == 140.0
    assert rate.covered == pytest.approx(0.001)


def test_quantiles_agree_with_numpy() -> None:
    """Within the 0.1 % of three significant digits, on a heavy tail."""
    recorder, clock = metered()
    seconds = np.random.default_rng(7).lognormal(-1.0, 1.0, 500)
    for value in seconds:
        record(recorder, clock, seconds=float(value))
    latency = Snapshot(recorder.snapshot()).totals.latency
    for q in (0.0, 0.5, 0.9, 0.99, 1.0):
        expected = float(np.quantile(seconds, q, method="inverted_cdf"))
        assert latency.quantile(q) == pytest.approx(expected, rel=0.002)


def test_hdr_is_read_by_the_reference_port(snapshot: Snapshot) -> None:
    """`to_hdr()` decodes in the PyPI package hdrhistogram to the same counts, in microseconds."""
    latency = snapshot.models["p", "m"].latency
    theirs = HdrHistogram.decode(latency.to_hdr())
    assert theirs.total_count == latency.count
    assert theirs.get_value_at_percentile(100) / 1e6 == pytest.approx(latency.max, rel=0.001)


def test_money_does_not_depend_on_the_decimal_context(snapshot: Snapshot) -> None:
    """A host that works with three digits still sees exact money."""
    recorder, clock = metered()
    record(recorder, clock, cost=123_456_789_123_456_789)
    with decimal.localcontext() as context:
        context.prec = 3
        cost = Snapshot(recorder.snapshot()).totals.cost
    assert str(cost) == "123456.789123456789"


EVENTS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        seconds=st.sampled_from([0.001, 0.5, 2.0]),
        outcome=st.sampled_from(["ok", "error", "cancelled"]),
        model=st.sampled_from(["m", "n"]),
        cost=st.sampled_from([None, 5]),
        tokens=st.integers(0, 3),
    ),
    max_size=6,
)


@examples(25)
@given(EVENTS, EVENTS)
def test_laws_of_the_sum(first: list[dict[str, Any]], then: list[dict[str, Any]]) -> None:
    """Commutative, zero is neutral, and what was between is the difference."""
    recorder, clock = metered()
    for event in first:
        record(recorder, clock, **event)
    a = Snapshot(recorder.snapshot())
    for event in then:
        record(recorder, clock, **event)
    b = Snapshot(recorder.snapshot())
    assert a + b == b + a
    assert (b + Snapshot()).models.keys() == b.models.keys()
    between = b - a
    assert between.totals.calls == len(then)
    assert between.totals.latency.count == len(then)
    assert (a + between).totals.tokens == b.totals.tokens
    assert (a + between).totals.latency.to_hdr() == b.totals.latency.to_hdr()


def test_what_cannot_be_added_is_a_type_error(snapshot: Snapshot) -> None:
    """A number is not a snapshot, and no snapshot is equal to one."""
    for operation in ("__add__", "__sub__", "__eq__"):
        assert getattr(snapshot, operation)(3) is NotImplemented
    assert Tokens().__add__(3) is NotImplemented  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"."):
        _ = Snapshot() - snapshot


def test_a_snapshot_never_changes(snapshot: Snapshot) -> None:
    """Neither its attributes nor its mappings can be set."""
    with pytest.raises(AttributeError, match=r"immutable"):
        snapshot.models = {}
    with pytest.raises(AttributeError, match=r"immutable"):
        del snapshot._native
    for mapping in (snapshot.models, snapshot.components, snapshot.dropped, snapshot.rates):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.totals.tokens.input = 3  # type: ignore[misc]
    for stats in (snapshot.totals, snapshot.components["chain", "chain"]):
        with pytest.raises(AttributeError, match=r"Stats is immutable; cannot set 'provider'"):
            stats.provider = "q"
        with pytest.raises(AttributeError, match=r"cannot delete '_counters'"):
            del stats._counters


def test_every_form_is_lossless(snapshot: Snapshot) -> None:
    """Bytes, dict, JSON and pickle give back an equal snapshot, merged ones too."""
    for s in (snapshot, snapshot + snapshot, Snapshot()):
        assert Snapshot.from_bytes(s.to_bytes()) == s
        assert Snapshot.from_dict(s.to_dict()) == s
        assert Snapshot.from_json(s.to_json()) == s
        assert Snapshot.from_json(s.to_json(indent=2).encode()) == s
        assert pickle.loads(pickle.dumps(s)) == s
        assert hash(Snapshot.from_json(s.to_json())) == hash(s)
        assert copy.copy(s) is copy.deepcopy(s) is s


def test_two_digits_are_lossless_too() -> None:
    """A distribution of another precision, and empty ones beside it."""
    recorder, clock = metered(significant_digits=2)
    record(recorder, clock, seconds=1.2345)
    s = Snapshot(recorder.snapshot())
    assert Snapshot.from_json(s.to_json()) == s
    assert s.totals.latency == s.models["p", "m"].latency


def test_the_json_is_for_people(snapshot: Snapshot) -> None:
    """Names, seconds and dollars stand in it; nothing is NaN."""
    data = json.loads(snapshot.to_json())
    (model,) = [m for m in data["models"] if m["model"] == "m"]
    assert (model["provider"], model["calls"], model["errors"]) == ("p", 4, 1)
    assert model["cost_usd"] == "0.000000000003"
    assert model["counters"]["input"] == 300
    assert model["latency"]["p50"] == pytest.approx(1.3, rel=0.001)
    assert data["in_flight"] == 1
    assert data["taken_at"].endswith("+00:00")
    assert {c["name"] for c in data["components"]} == {"Chat", "chain"}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": 1, "models": [{"counters": 3}]}',
        '{"format": true}',
        "",
        "[]",
        "{}",
        "null",
        "3",
        '{"format": 1}',
        '{"format": 1, "models": [3]}',
        "{",
    ],
)
def test_foreign_json_is_refused(text: str) -> None:
    """With an error that says what it is not."""
    with pytest.raises(SnapshotError, match=r"not a langmeter snapshot|format"):
        Snapshot.from_json(text)


def test_damaged_forms_are_refused(snapshot: Snapshot) -> None:
    """A newer format, an unknown counter, a broken histogram, cut bytes."""
    data = snapshot.to_dict()
    with pytest.raises(SnapshotError, match=r"format 5.*upgrade"):
        Snapshot.from_dict({**data, "format": 5})
    broken = copy.deepcopy(data)
    broken["models"][0]["counters"]["input_words"] = 3
    with pytest.raises(SnapshotError, match="input_words"):
        Snapshot.from_dict(broken)
    broken = copy.deepcopy(data)
    broken["models"][0]["latency"] = {"hdr": "AAAA"}
    with pytest.raises(SnapshotError):
        Snapshot.from_dict(broken)
    for foreign in (3, None):
        with pytest.raises(SnapshotError, match=r"not a langmeter snapshot"):
            Snapshot.from_json(foreign)  # type: ignore[arg-type]
    with pytest.raises(SnapshotError, match=r"dropped must be an object, got \[\]; write"):
        Snapshot.from_dict({**data, "dropped": []})

    class Hostile(dict[str, Any]):
        def get(self, *args: Any) -> Any:
            raise KeyError("no")

    with pytest.raises(SnapshotError, match="KeyError") as caught:
        Snapshot.from_dict(Hostile())
    assert isinstance(caught.value.__cause__, KeyError)
    broken = copy.deepcopy(data)
    broken["models"][0]["counters"]["input"] = True
    for booleans in (broken, {**data, "in_flight": True}, {**data, "dropped": {"other": True}}):
        with pytest.raises(SnapshotError, match=r"must be a whole number from .*, got True; "):
            Snapshot.from_dict(booleans)
    with pytest.raises(ValueError, match=r"."):
        Snapshot.from_bytes(snapshot.to_bytes()[:-3])
    with pytest.raises(ValueError, match=r"."):
        Snapshot.from_bytes(b"")


def test_str_is_the_table(snapshot: Snapshot) -> None:
    """Models, their total, components, what is in flight and what was dropped; 120 columns."""
    text = str(snapshot)
    header = text.splitlines()[0].split()
    assert " ".join(header) == "model calls errors in out cost p50 p95 p99 TTFT p50 per s"
    assert "p/m        4       1  300  120" in text
    assert "total      5       1" in text
    assert "chain chain" in text
    assert "in flight: 1" in text
    assert "neither ok nor error: cancelled 1" in text
    assert "dropped: hook_errors 2" in text
    assert max(map(len, text.splitlines())) <= 120
    assert repr(snapshot.totals) == "<ModelStats total: 5 calls, 1 error, 420 tokens>"
    assert repr(snapshot) == "<Snapshot of 2 models: 5 calls, 1 error, 420 tokens, 1 in flight>"


def test_long_names_are_cut_in_the_middle() -> None:
    """The table stays narrow whatever a model is called."""
    recorder, clock = metered()
    record(recorder, clock, model="x" * 60 + "-end")
    text = str(Snapshot(recorder.snapshot()))
    assert "…" in text
    assert "-end" in text
    assert max(map(len, text.splitlines())) <= 120


def test_money_that_is_not_all_of_it_says_so(snapshot: Snapshot) -> None:
    """`≥` where calls had no price, how many there were, and what to do."""
    text = str(snapshot)
    assert text.count("≥ $0.000000000003000") == 2  # the model and the total
    note = "unpriced: 1 call of 1 model; ask `langmeter prices MODEL`, or set own prices"
    assert note in text
    recorder, clock = metered()
    record(recorder, clock, cost=1)
    text = str(Snapshot(recorder.snapshot()))
    assert "≥" not in text
    assert "unpriced" not in text


def test_names_cannot_write_to_the_terminal() -> None:
    """Neither a new line nor an escape sequence gets through, in tables and in reprs."""
    recorder, clock = metered()
    record(recorder, clock, model="a\nb\x1b[2J\u202e")
    recorder.count(CHAIN, "c\rd", 0, 1)
    s = Snapshot(recorder.snapshot())
    for text in (str(s), *map(repr, (*s.models.values(), *s.components.values()))):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "p/a\\nb\\x1b[2J\\u202e" in str(s)
    assert "chain c\\rd" in str(s)


def test_forty_rows_are_enough() -> None:
    """Of models and of components; the totals are of all, and what is left out is counted."""
    recorder, clock = metered()
    for number in range(43):
        record(recorder, clock, model=f"m{number}")
        recorder.count(CHAIN, f"c{number}", 0, 1)
    models, components = str(Snapshot(recorder.snapshot())).split("\n\n")[:2]
    assert len(models.splitlines()) == 2 + 40 + 2
    assert models.splitlines()[-2] == "… and 3 more"
    assert models.splitlines()[-1].split()[:2] == ["total", "43"]
    assert len(components.splitlines()) == 2 + 40 + 1
    assert components.splitlines()[-1] == "… and 4 more"


def test_what_was_told_twice_is_not_lost() -> None:
    """Duplicates are ignored, and shown as that."""
    recorder, _ = metered()
    recorder.dropped("duplicate_end", 3)
    assert str(Snapshot(recorder.snapshot())).endswith("\n\nignored: duplicate_end 3")
    recorder.dropped("stray_tokens")
    assert "dropped: stray_tokens 1\nignored: " in str(Snapshot(recorder.snapshot()))


def test_the_report_says_what_it_covers(snapshot: Snapshot) -> None:
    """The date, how long, and the table."""
    report = terminal.report(snapshot)
    assert report.startswith("langmeter: ")
    assert " UTC, " in report.splitlines()[0]
    assert str(snapshot) in report
    assert terminal.report(Snapshot()) == "langmeter: nothing metered"
    assert terminal.report(Snapshot(metered()[0].snapshot())) == "langmeter: nothing metered"


def test_the_live_table_shows_the_same_cells(snapshot: Snapshot) -> None:
    """As rich draws it; a model whose name looks like markup is shown as it is."""
    from rich.console import Console

    recorder, clock = metered()
    record(recorder, clock, model="[bold]m")
    console = Console(width=140, file=io.StringIO())
    console.print(terminal.table(snapshot + Snapshot(recorder.snapshot())))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "p/[bold]m" in text
    assert "1 in flight" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (math.nan, "-"),
        (0.0, "0.00 µs"),
        (0.000_000_5, "0.50 µs"),
        (0.000_812, "812 µs"),
        (0.000_999_9, "1.00 ms"),
        (0.034_5, "34.5 ms"),
        (0.9996, "1.00 s"),
        (1.2, "1.20 s"),
        (99.9, "99.9 s"),
        (303.2, "5 m 03 s"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    """Three digits in the unit that shows them."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "-"),
        (Decimal(0), "$0"),
        (Decimal("0.000012345"), "$0.00001234"),
        (Decimal("0.5"), "$0.5000"),
        (Decimal("12.3456"), "$12.35"),
        (Decimal("12345.678"), "$12,345.68"),
    ],
)
def test_money_in_words(usd: Decimal | None, text: str) -> None:
    """Four digits that count."""
    assert format_usd(usd) == text


def test_counts_and_rates_in_words() -> None:
    """Separators, millions, and no more digits than are meant."""
    assert [format_count(n) for n in (0, 12_345, 34_567_890)] == ["0", "12,345", "34.6 M"]
    assert [format_rate(r) for r in (0.0, 0.125, 1234.5)] == ["0", "0.12", "1,234"]
