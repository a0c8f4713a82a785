"""Snapshots: figures, laws of the sum and forms."""

from __future__ import annotations

import copy
import dataclasses
import decimal
import json
import math
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot
from langmeter.errors import SnapshotError
from langmeter.snapshot import Tokens
from tests.support.figures import metered, record
from tests.support.laws import examples


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
