"""`snapshot.by`: figures by the keys of labels, crossed or not, by provider and by model."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import uuid
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langgraph.graph import START, StateGraph

from langmeter import Meter, MeterConfig, Snapshot, _core
from langmeter.errors import ConfigError
from langmeter.prices import PriceBook
from langmeter.snapshot import CallStats
from tests.support.laws import examples
from tests.support.models import chat_model

LLM = _core.KINDS.index("llm")
LABELS = ("tenant", ("tenant", "feature"))
CROSSED = "tenant\x1ffeature"


def fake(**settings: Any) -> FakeListChatModel:
    """Langchain's fake model, which says neither what it used nor who answered."""
    return FakeListChatModel(responses=["x"], **settings)


def calls(rows: Mapping[Any, CallStats]) -> dict[Any, int]:
    """Calls by row."""
    return {key: stats.calls for key, stats in rows.items()}


def call(meter: Meter, model: str = "gpt-4o", **metadata: Any) -> None:
    """One call that a model of OpenAI answers, inside a function."""
    inner = chat_model(metadata={"model_name": model, "model_provider": "openai"})
    inner.metadata = {"ls_provider": "openai", "ls_model_name": model}
    RunnableLambda(inner.invoke).invoke("hi", {"callbacks": [meter], "metadata": metadata})


def test_a_call_has_a_row_of_each_label_and_model() -> None:
    """By one key or crossed, alone or with provider and model, in the order of the names."""
    meter = Meter(labels=LABELS)
    call(meter, tenant="acme", feature="search")
    call(meter, tenant="acme", feature="chat")
    call(meter, "gpt-4o-mini", tenant="acme", feature="chat")
    call(meter, feature="chat")
    call(meter)
    snapshot = meter.snapshot()
    assert calls(snapshot.by("tenant")) == {"": 2, "acme": 3}
    assert calls(snapshot.by("tenant", "feature")) == {
        ("", ""): 1,
        ("", "chat"): 1,
        ("acme", "chat"): 2,
        ("acme", "search"): 1,
    }
    assert calls(snapshot.by("feature", "tenant"))["chat", "acme"] == 2
    assert calls(snapshot.by("tenant", "model")) == {
        ("", "gpt-4o"): 2,
        ("acme", "gpt-4o"): 2,
        ("acme", "gpt-4o-mini"): 1,
    }
    by_all = snapshot.by("model", "tenant", "provider", "feature")
    assert by_all["gpt-4o-mini", "acme", "openai", "chat"].tokens.total == 140
    assert calls(snapshot.by("provider")) == {"openai": 5}
    assert calls(snapshot.by("model")) == {"gpt-4o": 4, "gpt-4o-mini": 1}
    assert "tenant=acme model=gpt-4o: 2 calls" in repr(
        snapshot.by("tenant", "model")["acme", "gpt-4o"]
    )


def test_the_rows_of_a_label_add_up_to_the_totals(prices: PriceBook) -> None:
    """Calls, tokens, money, latencies and rates, also of failures and of late prices."""
    meter = Meter(prices=prices, labels=LABELS)
    for tenant in ("a", "b", None):
        call(meter, tenant=tenant, feature="f")
        with pytest.raises(RuntimeError):
            RunnableLambda(_failing).invoke("hi", {"callbacks": [meter]})
    call(meter, "own-1", tenant="late", feature="f")
    assert meter.snapshot().by("tenant")["late"].cost is None
    prices.set("openai", "own-1", input=1, output=1)
    snapshot = meter.snapshot()
    assert snapshot.by("tenant", "model")["late", "own-1"].cost == Decimal("0.00014")
    for names in (("tenant",), ("tenant", "model"), ("feature", "tenant", "provider", "model")):
        rows = snapshot.by(*names).values()
        totals = snapshot.totals
        assert sum(row.calls for row in rows) == totals.calls == 7
        assert sum(row.errors for row in rows) == totals.errors == 3
        assert sum(row.tokens.total for row in rows) == totals.tokens.total
        assert sum(row.cost or 0 for row in rows) == totals.cost
        assert sum(row.latency.count for row in rows) == totals.latency.count
        assert sum(row.rates[60].requests for row in rows) == pytest.approx(
            totals.rates[60].requests
        )
    assert snapshot.labels["tenant", "a"].calls == snapshot.by("tenant")["a"].calls
    assert meter.cost.label_costs["tenant", "a"] == snapshot.by("tenant")["a"].cost


class _Failing(FakeListChatModel):
    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise RuntimeError("no answer")


def _failing(text: str) -> Any:
    return _Failing(responses=[]).invoke(text)


def test_a_label_that_was_not_declared_is_refused() -> None:
    """Also before the first call, and in a difference without any; the error names the others."""
    meter = Meter(labels=LABELS)
    empty = meter.snapshot()
    call(meter, tenant="acme", feature="search")
    full = meter.snapshot()
    for snapshot in (empty, full, full - empty, full - full, full + empty, full + Snapshot()):
        assert calls(snapshot.by("tenant")) in ({}, {"acme": 1})
        for names in (("feature",), ("tenant", "region"), ("feature", "model")):
            with pytest.raises(ValueError, match=r"\(feature, tenant\), \(tenant\)"):
                snapshot.by(*names)
    with pytest.raises(ValueError, match=r"none is declared.*Meter\(labels=\['tenant'\]\)"):
        Meter().snapshot().by("tenant")
    for wrong in ((), ("tenant", "tenant")):
        with pytest.raises(ValueError, match="by must be one name or several, each once"):
            full.by(*wrong)


class State(TypedDict):
    """What the graph passes on."""

    text: str


def graph(*, is_async: bool = False) -> Any:
    """A real graph of one node, which asks a model."""
    model = fake()

    def node(state: State) -> State:
        return {"text": str(model.invoke(state["text"]).content)}

    async def anode(state: State, config: RunnableConfig) -> State:
        return {"text": str((await model.ainvoke(state["text"], config)).content)}

    builder = StateGraph(State)
    builder.add_node("ask", anode if is_async else node)
    builder.add_edge(START, "ask")
    return builder.compile()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_value_may_stand_under_configurable(is_async: bool) -> None:
    """In the config of a real graph, as text or number; objects of the graph do not count."""
    meter = Meter(labels=("tenant", ("tenant", "seats"), "__pregel_task_id"))
    config: RunnableConfig = {
        "callbacks": [meter],
        "configurable": {"tenant": "acme", "seats": 3, "thread_id": "1"},
    }
    runnable = graph(is_async=is_async)
    if is_async:
        asyncio.run(runnable.ainvoke({"text": "hi"}, config))
    else:
        runnable.invoke({"text": "hi"}, config)
        bound = runnable.with_config(configurable={"tenant": "bolt", "seats": object()})
        bound.invoke({"text": "hi"}, {"callbacks": [meter]})
    snapshot = meter.snapshot()
    expected = {("acme", "3"): 1} if is_async else {("acme", "3"): 1, ("bolt", ""): 1}
    assert calls(snapshot.by("tenant", "seats")) == expected
    assert not snapshot.dropped


class Heard(BaseCallbackHandler):
    """Keeps the metadata that LangChain hands to a handler."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    def on_chat_model_start(self, *args: Any, metadata: Any = None, **kwargs: Any) -> None:
        self.metadata = metadata


def test_langchain_hands_configurable_to_no_handler() -> None:
    """So a bare model and a batch of a chain have no value: set it in metadata or in a tag."""
    heard, meter = Heard(), Meter(labels=("tenant",))
    config: RunnableConfig = {"callbacks": [heard, meter], "configurable": {"tenant": "acme"}}
    chain = RunnableLambda(lambda text: text) | fake()
    fake().invoke("hi", config)
    if "tenant" in heard.metadata:
        pytest.skip("this langchain-core copies configurable into the metadata")
    chain.batch(["a", "b"], config)
    assert calls(meter.snapshot().by("tenant")) == {"": 3}
    chain.invoke("hi", config)
    assert calls(meter.snapshot().by("tenant")) == {"": 3, "acme": 1}


def test_a_tag_may_say_a_value() -> None:
    """As `key:value`, of the model or of a call; what follows the first colon is the value."""
    meter = Meter(labels=LABELS)
    chain: Runnable[Any, Any] = RunnableLambda(lambda text: text) | fake(tags=["feature:search"])
    chain.invoke("hi", {"callbacks": [meter], "tags": ["tenant:eu:acme", "tenantless", "feature"]})
    fake().invoke("hi", {"callbacks": [meter], "tags": ["tenant=acme", "Tenant:acme", "tenant:"]})
    assert calls(meter.snapshot().by("tenant", "feature")) == {
        ("eu:acme", "search"): 1,
        ("", ""): 1,
    }


def test_metadata_come_before_configurable_and_tags() -> None:
    """A value of None is none, and the next source is asked; an empty text is a value."""
    meter = Meter(labels=("tenant",))
    sources: Any = {"metadata": {"tenant": "m"}, "configurable": {"tenant": "c"}}
    for metadata in ("m", None, ""):
        for configurable in ("c", None):
            sources = {"configurable": {"tenant": configurable}, "tags": ["tenant:t"]}
            config: Any = {"callbacks": [meter], "metadata": {"tenant": metadata}, **sources}
            RunnableLambda(fake().invoke).invoke("hi", config)
    assert calls(meter.snapshot().by("tenant")) == {"": 2, "c": 1, "m": 2, "t": 1}


def test_values_are_bounded_and_keep_their_places() -> None:
    """Crossed ones are cut at 80 bytes each; the character that joins them becomes a space."""
    meter = Meter(labels=LABELS)
    call(meter, tenant="é" * 100, feature="a\x1fb")
    snapshot = meter.snapshot()
    assert list(snapshot.by("tenant")) == ["é" * 100]
    assert list(snapshot.by("tenant", "feature")) == [("é" * 40, "a b")]
    assert snapshot.dropped == {"labels_cut": 1}


def test_a_label_of_many_values_leaves_the_others_whole() -> None:
    """Each label has its share of the series; the rest is `other`, and is counted."""
    meter = Meter(labels=("request", ("tenant", "request"), "tenant"), max_series=40)
    for number in range(50):
        call(meter, tenant="acme", request=number)
    snapshot = meter.snapshot()
    assert calls(snapshot.by("tenant")) == {"acme": 50}
    assert calls(snapshot.by("tenant", "model")) == {("acme", "gpt-4o"): 50}
    for names, other in ((("request",), "other"), (("tenant", "request"), ("other", "other"))):
        rows = calls(snapshot.by(*names))
        assert (len(rows), rows[other], sum(rows.values())) == (11, 40, 50)
        assert calls(snapshot.by(*names, "model")).keys() == {
            (*((row,) if isinstance(row, str) else row), "gpt-4o") for row in rows
        }
    assert snapshot.dropped["series_capped"] == 80
    assert snapshot.totals.calls == 50


def test_the_report_shows_crossed_labels() -> None:
    """Beside those of one key, the busiest first."""
    meter = Meter(labels=LABELS)
    call(meter, tenant="acme")
    call(meter, tenant="acme", feature="search")
    text = str(meter.snapshot())
    rows = [line.split("  ")[0] for line in text.splitlines() if line.startswith("tenant=")]
    assert rows == ["tenant=acme", "tenant=acme feature=(none)", "tenant=acme feature=search"]
    assert "tenant=acme feature=search" in meter.snapshot()._repr_html_()


# --- laws and forms ------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["acme", "bolt", ""]),
        st.sampled_from(["chat", "search", ""]),
        st.sampled_from(["m", "n"]),
        st.sampled_from(range(len(_core.OUTCOMES))),
        st.none() | st.integers(0, 10**12),
    ),
    max_size=8,
)


def happen(recorder: _core.Recorder, events: list[Any]) -> None:
    """Let a recorder hear of these calls."""
    for tenant, feature, model, outcome, cost in events:
        run = uuid.uuid4()
        labels = [("tenant", tenant), (CROSSED, f"{tenant}\x1f{feature}")]
        recorder.run_started(run, None, LLM, "c", "p", "m", labels=labels)
        usage = (10, 5, 15, *[0] * 16)
        recorder.run_ended(run, LLM, outcome, "p", model, usage, cost)


def taken(recorder: _core.Recorder) -> Snapshot:
    """Return a snapshot as a meter takes it, with the labels that were declared."""
    return Snapshot(recorder.snapshot([], ["tenant", CROSSED]))


def figures(snapshot: Snapshot) -> dict[str, Any]:
    """Calls, tokens and money of every row, without the time they took."""
    rows = {}
    for names in (("tenant",), ("tenant", "feature", "model")):
        for key, stats in snapshot.by(*names).items():
            rows[f"{names} {key}"] = (stats.outcomes, stats.tokens, stats.cost, stats.latency.count)
    return rows


@examples(60)
@given(EVENTS, EVENTS, EVENTS)
def test_rows_of_labels_merge_subtract_and_travel(one: Any, two: Any, three: Any) -> None:
    """A sum has the rows of all, a difference undoes it, and every form is read back."""
    first, second = _core.Recorder(max_series=64), _core.Recorder(max_series=64)
    happen(first, one)
    a = taken(first)
    happen(first, two)
    b = taken(first)
    happen(second, three)
    c = taken(second)
    zero = Snapshot()
    assert a + c == c + a
    assert (a + b) + c == a + (b + c)
    assert a + zero == zero + a == a
    assert figures((b - a) + a) == figures(b)
    assert figures((b + c) - c) == figures(b)
    whole = _core.Recorder(max_series=64)
    happen(whole, [*one, *two, *three])
    assert figures(b + c) == figures(taken(whole))
    for snapshot in (a, b - a, b + c):
        assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot
        assert Snapshot.from_json(snapshot.to_json()) == snapshot
        assert pickle.loads(pickle.dumps(snapshot)) == snapshot
        assert len(snapshot._native.labels) == 2


def test_the_text_of_a_snapshot_names_keys_values_and_models() -> None:
    """Lists where keys are crossed; a snapshot without labels has the form that it always had."""
    meter = Meter(labels=LABELS)
    call(meter, tenant="acme", feature="search")
    data = json.loads(meter.snapshot().to_json())
    assert (data["format"], data["labels"]) == (4, ["tenant", ["tenant", "feature"]])
    rows = [series for series in data["others"] if series["kind"] == "label"]
    names = [{k: row[k] for k in ("key", "value", "provider", "model")} for row in rows]
    model = {"provider": "openai", "model": "gpt-4o"}
    assert names == [
        {"key": "tenant", "value": "acme", **model},
        {"key": ["tenant", "feature"], "value": ["acme", "search"], **model},
    ]
    plain = Meter().snapshot()
    assert (plain.to_dict()["format"], "labels" in plain.to_dict()) == (3, False)
    assert plain.to_bytes()[4:6] == b"\x03\x00"
    rows[1]["value"] = ["acme"]
    with pytest.raises(ValueError, match="value must be 2 texts, one for each key"):
        Snapshot.from_dict(data)


#: A snapshot of format 3, as the langmeter wrote it that recorded labels without a model: two calls
#: of the team "red" and one without a team.
OLD = (
    "c-r&v4GCgqVEtg<#@MiX{((oUza0!`XqfW)4s*kWHJ|wy7#SE?7+9P$5=$5inHh)%4SNnw<3=LxEjZ1}3}*5&GcF9rYZ5D4"
    "enDzpVkTR9L5Z$OKGa${eqD5hqRhlt%fNu&N@g3dT4p(ZhBZuZW(zx<2@C@cmXg%OTn0l%unsO(esn|F8L=A<wwjTE)r?%"
    "MFsngKsMR1Q5J0SEE=o-?WCCjv;gUl)hmQ%5?Mwu0XA<Fp*$!etZ3i)d003hlRLK"
)


def test_an_older_snapshot_is_read_and_added() -> None:
    """Its rows have no model; those of a sum are beside each other."""
    old = Snapshot.from_bytes(zlib.decompress(base64.b85decode(OLD)))
    assert calls(old.labels) == {("team", ""): 1, ("team", "red"): 2}
    assert calls(old.by("team", "model")) == {("", ""): 1, ("red", ""): 2}
    assert Snapshot.from_json(old.to_json()) == old
    meter = Meter(labels=("team",))
    call(meter, team="red")
    both = old + meter.snapshot()
    assert calls(both.by("team")) == {"": 1, "red": 3}
    assert calls(both.by("team", "model")) == {("", ""): 1, ("red", ""): 2, ("red", "gpt-4o"): 1}
    assert calls((both - old).by("team")) == {"red": 1}


# --- declared -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["a", "b"], "c"], (("a", "b"), "c")),
        ((("a",),), ("a",)),
        (("a", "a", ("a", "b"), ["b", "a"]), ("a", ("a", "b"))),
        ((key for key in "ab"), ("a", "b")),
    ],
)
def test_a_label_is_a_key_or_several(labels: Any, expected: Any) -> None:
    """Each once, whatever the order of its keys."""
    assert MeterConfig(labels=labels).labels == expected


@pytest.mark.parametrize(
    "labels",
    [
        [()],
        [("a", "a")],
        [("a", "b", "c", "d")],
        [("a", 1)],
        [{"a": 1}],
        ["a\x1fb"],
        ["a" * 81],
        [["a", ["b"]]],
    ],
)
def test_what_is_no_label_is_refused(labels: Any) -> None:
    """With the rule and an example."""
    with pytest.raises(ConfigError, match=r"labels must be up to 3 keys .* to cross, got .*e\.g\."):
        MeterConfig(labels=labels)


@pytest.mark.parametrize("key", ["provider", "model"])
def test_provider_and_model_are_no_keys(key: str) -> None:
    """They are recorded with every label."""
    labels: Any = [("team", key)]
    with pytest.raises(ConfigError, match=rf'got \'{key}\'; by\("team", "{key}"\) has it'):
        MeterConfig(labels=labels)
