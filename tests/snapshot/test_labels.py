"""Figures by labels: values of a call's metadata."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import (
    Budget,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    Snapshot,
    TokenCountingCallback,
    track_embeddings,
)
from langmeter.prices import PriceBook
from langmeter.testing import ManualClock
from tests.support.models import chat_model


class Unprintable:
    """A value that no text can be made of."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Broken(FakeListChatModel):
    """A chat model that fails."""

    responses: list[str] = []  # noqa: RUF012

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ValueError("no answer")


def meters(prices: PriceBook, **settings: Any) -> Iterator[Meter]:
    """Where a start goes native, and where a budget sends it through Python."""
    yield Meter(prices=prices, **settings)
    yield Meter(prices=prices, budgets=[Budget(tokens=10**9)], **settings)


def invoke(meter: Any, model: Any = None, **metadata: Any) -> None:
    """One call with this metadata."""
    (model or chat_model()).invoke("hi", config={"callbacks": [meter], "metadata": metadata})


def test_figures_of_a_label_are_those_of_its_calls(prices: PriceBook) -> None:
    """Calls, outcomes, tokens and money by value, over all models; "" is without a value."""
    for meter in meters(prices, labels=("team", "customer")):
        invoke(meter, team="a", customer="x", other="y")
        invoke(meter, team="a")
        invoke(meter, team="b", customer="x")
        invoke(meter, model=chat_model(metadata={"model_name": "fake-2"}), team="b")
        with pytest.raises(ValueError, match="no answer"):
            invoke(meter, model=Broken(), team="b")
        invoke(meter)
        labels = meter.snapshot().labels
        assert {key: (stats.calls, stats.errors) for key, stats in labels.items()} == {
            ("team", "a"): (2, 0),
            ("team", "b"): (3, 1),
            ("customer", "x"): (2, 0),
            ("team", ""): (1, 0),
            ("customer", ""): (4, 1),
        }
        a, b = labels["team", "a"], labels["team", "b"]
        assert (a.key, a.value, a.tokens.total, a.tokens.cache_read) == ("team", "a", 280, 60)
        assert (b.priced_calls, b.unpriced_calls, b.unpriced_tokens) == (1, 1, 140)
        assert a.latency.count == 2
        assert b.success_rate == pytest.approx(2 / 3)
        each = meter.snapshot().totals.cost / 4  # type: ignore[operator]
        assert meter.cost.label_costs == {
            ("team", "a"): 2 * each,
            ("team", "b"): each,
            ("customer", "x"): 2 * each,
            ("team", ""): each,
            ("customer", ""): 2 * each,
        }
        assert "team=a: 2 calls, 0 errors, 280 tokens" in repr(a)
        assert a.rates[60].requests > 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, "7"),
        (True, "True"),
        (1.5, "1.5"),
        ("", ""),
        (["a"], "['a']"),
        ("\ud800", "\ufffd\ufffd\ufffd"),
        ("a\0b", "a\0b"),
        ("日本", "日本"),
    ],
)
def test_any_value_is_a_label(prices: PriceBook, value: Any, shown: str) -> None:
    """A value that is not a text counts by its text."""
    for meter in meters(prices, labels=("team",)):
        invoke(meter, team=value)
        assert list(meter.snapshot().labels) == [("team", shown)]
        assert not meter.snapshot().dropped


@pytest.mark.parametrize("value", [10**5000, Unprintable()], ids=["huge", "unprintable"])
def test_a_value_without_a_text_loses_no_call(prices: PriceBook, value: Any) -> None:
    """The failure is counted, and the call is one without a value of this label."""
    for meter in meters(prices, labels=("bad", "team")):
        invoke(meter, bad=value, team="a")
        snapshot = meter.snapshot()
        assert (snapshot.totals.calls, snapshot.in_flight) == (1, 0)
        assert sorted(snapshot.labels) == [("bad", ""), ("team", "a")]
        assert {stats.tokens.total for stats in snapshot.labels.values()} == {140}
        assert snapshot.dropped == {"hook_errors": 1}


def test_a_call_without_a_value_has_a_row_of_its_own(prices: PriceBook) -> None:
    """None, a key that is absent and metadata that are not a dict are the value ""."""
    for meter in meters(prices, labels=("team",)):
        invoke(meter, team=None)
        metadata: Any
        for metadata in (None, {}, [("team", "a")], "team"):
            run = uuid.uuid4()
            meter.on_chat_model_start({}, [[]], run_id=run, metadata=metadata)
            meter.on_llm_error(ValueError(), run_id=run)
        assert {key: stats.calls for key, stats in meter.snapshot().labels.items()} == {
            ("team", ""): 5
        }
        assert meter.snapshot().totals.calls == 5
        assert meter.snapshot().dropped.get("hook_errors", 0) == 0


def test_every_kind_of_call_has_its_row(prices: PriceBook) -> None:
    """Embeddings, batches, text models and decision models are in a row of each label too."""
    for meter in meters(prices, labels=("team",)):
        track_embeddings(DeterministicFakeEmbedding(size=2), meter).embed_query("x")
        chat_model().batch(["a", "b"], config={"callbacks": [meter]})
        chat_model().generate([[], []], callbacks=[meter], metadata={"team": "a"})
        run = uuid.uuid4()
        meter.on_llm_start({}, ["x"], run_id=run)
        meter.on_llm_error(ValueError(), run_id=run)
        run = uuid.uuid4()
        meter.on_chain_start({}, {}, run_id=run, run_type="llm")
        meter.on_chain_error(ValueError(), run_id=run)
        labels = {key: stats.calls for key, stats in meter.snapshot().labels.items()}
        assert labels == {("team", ""): 5, ("team", "a"): 2}
        assert sum(labels.values()) == meter.snapshot().totals.calls


def test_the_table_shows_the_row_without_a_value_as_none(prices: PriceBook) -> None:
    """The value "" is printed as "(none)"."""
    meter = Meter(prices=prices, labels=("team",))
    invoke(meter)
    assert "team=(none)" in str(meter.snapshot())


def test_a_long_value_is_cut_and_counted(prices: PriceBook) -> None:
    """At 256 bytes, between two characters."""
    for meter in meters(prices, labels=("team",)):
        invoke(meter, team="é" * 1000)
        assert list(meter.snapshot().labels) == [("team", "é" * 128)]
        assert meter.snapshot().dropped == {"labels_cut": 1}


def test_more_values_than_series_are_other(prices: PriceBook) -> None:
    """The calls are all counted, those beyond the cap as `other`."""
    meter = Meter(prices=prices, labels=("request",), max_series=20)
    for n in range(50):
        invoke(meter, request=n)
    snapshot = meter.snapshot()
    assert sum(stats.calls for stats in snapshot.labels.values()) == 50
    # 15 rows, of which the first call took one under the model that it asked for.
    assert snapshot.labels["request", "other"].calls == 36 <= snapshot.dropped["series_capped"]
    assert snapshot.totals.calls == 50
    assert len(snapshot.labels) <= 20


def test_a_cache_hit_costs_a_label_nothing(prices: PriceBook) -> None:
    """As it costs its model nothing."""
    meter = Meter(prices=prices, labels=("team",))
    model = chat_model(cache=InMemoryCache())
    for _ in range(2):
        invoke(meter, model=model, team="a")
    stats = meter.snapshot().labels["team", "a"]
    assert (stats.calls, stats.outcomes["cache_hit"], stats.latency.count) == (2, 1, 1)
    assert (stats.tokens.total, stats.tokens.saved) == (140, 140)


def test_a_composite_has_the_labels_of_its_parts(prices: PriceBook) -> None:
    """Each key once; more than three together are refused."""
    tokens = TokenCountingCallback(labels=("team",))
    cost = CostTrackingCallback(prices, labels=["team", "customer"])
    both = CompositeCallback([tokens, cost])
    invoke(both, team="a", customer="x")
    assert set(both.snapshot().labels) == {("team", "a"), ("customer", "x")}
    assert set(cost.label_costs) == {("team", "a"), ("customer", "x")}
    parts = [TokenCountingCallback(labels=(name,)) for name in "abcd"]
    with pytest.raises(ValueError, match=r"up to 3 keys"):
        CompositeCallback(parts)


@pytest.mark.parametrize("labels", [("a", "b", "c", "d"), ("",), (7,)])
def test_bad_keys_are_refused(labels: Any) -> None:
    """With the value and an example."""
    with pytest.raises(ValueError, match=r'up to 3 keys.*e\.g\. labels = \["team", \["team",'):
        Meter(labels=labels)


def test_one_key_may_be_a_string() -> None:
    """It is a name, not a list of letters."""
    meter = Meter(labels="team")
    invoke(meter, team="a")
    assert list(meter.snapshot().labels) == [("team", "a")]


def test_labels_add_subtract_and_travel(prices: PriceBook) -> None:
    """As every other figure, in every form."""
    meter = Meter(prices=prices, labels=("team",))
    invoke(meter, team="a")
    before = meter.snapshot()
    invoke(meter, team="a")
    invoke(meter, team="b")
    after = meter.snapshot()
    between = after - before
    assert {key: stats.calls for key, stats in between.labels.items()} == {
        ("team", "a"): 1,
        ("team", "b"): 1,
    }
    assert (before + between).labels["team", "a"].tokens == after.labels["team", "a"].tokens
    both = Snapshot.from_json(after.to_json()) + before
    assert both.labels["team", "a"].calls == 3
    assert both.labels["team", "a"].cost == 3 * before.totals.cost  # type: ignore[operator]
    assert before.labels["team", "a"].cost == Decimal("0.0005700")


@pytest.mark.parametrize("late", [False, True])
def test_an_end_without_a_start_counts_without_a_value(prices: PriceBook, late: bool) -> None:
    """Rows of a label add up to the totals, also of calls whose start is not known any more."""
    clock = ManualClock()
    meter = Meter(prices=prices, labels=("team", "customer"), max_run_age=60.0, clock=clock)
    invoke(meter, team="a")
    run = uuid.uuid4()
    if late:
        asked: Any = {"ls_provider": "openai", "ls_model_name": "gpt-4o", "team": "a"}
        meter.on_chat_model_start({}, [[]], run_id=run, metadata=asked)
        clock.advance(61.0)
        meter.snapshot()
    message = AIMessage(
        "x",
        usage_metadata={"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
        response_metadata={"model_name": "gpt-4o", "model_provider": "openai"},
    )
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    meter.on_llm_end(result, run_id=run)
    meter.on_llm_end(result, run_id=run)
    snapshot = meter.snapshot()
    assert snapshot.dropped["late_end" if late else "end_without_start"] == 1
    assert snapshot.labels["team", ""].tokens.total == 10
    for key in ("team", "customer"):
        rows = [stats for (label, _), stats in snapshot.labels.items() if label == key]
        assert sum(stats.calls for stats in rows) == snapshot.totals.calls
        assert sum(stats.tokens.total for stats in rows) == snapshot.totals.tokens.total
        assert sum(stats.cost or 0 for stats in rows) == snapshot.totals.cost
    assert "(none)" in str(snapshot)
