"""State of a snapshot: what is not a sum."""

from __future__ import annotations

import gc
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Budget, Meter, Snapshot
from langmeter.errors import SnapshotError
from langmeter.runnables.providers import ProviderManager
from langmeter.snapshot import (
    AlertState,
    BudgetState,
    CircuitState,
    DecisionState,
    OriginState,
    State,
    StreamState,
)
from langmeter.snapshot.schema import json_schema
from langmeter.snapshot.state import MAX_PARTS, origin_state
from tests.support.laws import examples

#: Checks its schema once; `jsonschema.validate` does at each document.
VALIDATOR = jsonschema.validators.validator_for(json_schema())(json_schema())

_NAMES = st.text(max_size=8)
_MOMENTS = st.datetimes(timezones=st.just(UTC))
_AMOUNTS = st.integers(0, 2**63) | st.decimals(0, 10**6, places=12)
_SCOPES = st.dictionaries(_NAMES, st.lists(_NAMES, max_size=2).map(tuple), max_size=2).map(
    lambda scope: tuple(scope.items())
)
_PARTS = {
    "budgets": st.builds(
        BudgetState,
        *(_NAMES, st.sampled_from(["usd", "tokens"]), _NAMES),
        *(_AMOUNTS, _AMOUNTS, _AMOUNTS, st.none() | _MOMENTS, st.none() | _SCOPES),
    ),
    "circuits": st.builds(CircuitState, _NAMES, _NAMES, _NAMES, st.none() | _MOMENTS),
    "decisions": st.builds(DecisionState, _NAMES, _NAMES, _NAMES, st.integers(1, 9), _NAMES),
    "alerts": st.builds(
        AlertState,
        *(_NAMES, _NAMES, _NAMES, _NAMES, _MOMENTS),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    "streams": st.builds(
        StreamState, _NAMES, _NAMES, _MOMENTS, _MOMENTS, st.integers(0, 2**62), st.booleans()
    ),
}
_LISTS = {name: st.lists(part, max_size=2).map(tuple) for name, part in _PARTS.items()}
_ORIGINS = st.builds(
    OriginState, origin=st.sampled_from("abc"), taken_at_unix_nano=st.integers(0, 2), **_LISTS
)
_STATES = st.lists(_ORIGINS, max_size=4).map(
    lambda origins: sum((State((each,)) for each in origins), State())
)


@examples(50)
@given(_STATES, _STATES, _STATES)
def test_states_are_a_commutative_idempotent_monoid(a: State, b: State, c: State) -> None:
    """Order and grouping do not matter, the empty state is zero, and a state twice is itself."""
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + State() == a
    assert a + a == a


@examples(50)
@given(_STATES, _STATES)
def test_a_sum_has_each_origin_as_it_was_latest(a: State, b: State) -> None:
    """Origins are united; of one origin the later state wins, whole."""
    latest: dict[str, int] = {}
    for each in (*a.origins, *b.origins):
        latest[each.origin] = max(latest.get(each.origin, 0), each.taken_at_unix_nano)
    total = a + b
    assert {each.origin: each.taken_at_unix_nano for each in total.origins} == latest
    assert set(total.origins) <= {*a.origins, *b.origins}


@examples(50)
@given(_STATES)
def test_every_form_keeps_the_state(state: State) -> None:
    """JSON, bytes and pickles are read back equal, and an independent validator takes the JSON."""
    snapshot = Snapshot(state=state)
    text = snapshot.to_json()
    assert Snapshot.from_json(text) == snapshot
    assert Snapshot.from_bytes(snapshot.to_bytes()) == snapshot
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
    VALIDATOR.validate(json.loads(text))


def test_a_snapshot_without_a_state_is_written_as_before() -> None:
    """Its JSON has no field for it, and its bytes are those of the native snapshot."""
    assert "state" not in Snapshot().to_dict()
    assert Snapshot().to_bytes() == Snapshot()._native.to_bytes()


def _budgeted() -> Meter:
    return Meter(budgets=[Budget(calls=5, per="day", name="team")], prices=False)


def _model(*answers: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(answer) for answer in answers]))


def test_a_difference_has_no_state() -> None:
    """What happened between two moments is a sum; where budgets stand is not."""
    meter = _budgeted()
    before, after = meter.snapshot(), meter.snapshot()
    assert before.state
    assert not (after - before).state
    assert (before + after).state == after.state


def test_a_snapshot_has_where_budgets_stand() -> None:
    """Used and limit are those of the budget, in its unit."""
    meter = _budgeted()
    _model("one", "two").invoke("question", {"callbacks": [meter]})
    (budget,) = meter.snapshot().state.budgets
    assert (budget.name, budget.unit, budget.per) == ("team", "calls", "day")
    assert (budget.used, budget.reserved, budget.limit) == (1, 0, 5)
    assert budget.resets is not None
    assert budget.resets > datetime.now(UTC)
    assert (budget.share, budget.scope) == (0.2, ())
    scope = {"provider": "openai", "model": ["gpt-4o*", "o3"]}
    (budget,) = Meter(budgets=[Budget(calls=5, scope=scope)], prices=False).snapshot().state.budgets
    assert budget.scope == (("provider", ("openai",)), ("model", ("gpt-4o*", "o3")))


def test_a_state_without_scopes_is_read() -> None:
    """An older langmeter wrote none: what such a budget covers is not known."""
    data = _budgeted().snapshot().to_dict()
    assert data["state"][0]["budgets"][0].pop("scope") == {}
    jsonschema.validate(data, json_schema())
    (budget,) = Snapshot.from_dict(data).state.budgets
    assert budget.scope is None


def test_a_snapshot_has_circuits_and_decisions_of_managers() -> None:
    """Those of a manager stand there for as long as it lives; no text of a prompt is among them."""
    meter = Meter(prices=False)
    manager = ProviderManager({"a": _model("x"), "b": _model("y")}, meter=meter)
    manager.invoke("the secret question")
    snapshot = meter.snapshot()
    assert [(each.provider, each.state) for each in snapshot.state.circuits] == [
        ("a", "ready"),
        ("b", "ready"),
    ]
    (decision,) = snapshot.state.decisions
    assert (decision.policy, decision.provider, decision.why) == ("priority", "a", "policy")
    assert "secret" not in snapshot.to_json()
    del manager
    gc.collect()
    assert not meter.snapshot().state


def test_a_snapshot_has_streams_in_flight() -> None:
    """A stream that has sent something is there until it ends."""
    meter = Meter(prices=False)
    stream = _model("some words to send").stream("question", {"callbacks": [meter]})
    next(stream)
    (state,) = meter.snapshot().state.streams
    assert (state.token_events, state.stalled) == (1, False)
    assert state.started <= state.last_token <= datetime.now(UTC)
    list(stream)
    assert not meter.snapshot().state.streams


def test_a_function_that_fails_costs_its_part_alone() -> None:
    """The failure is counted, and the other parts are there."""
    meter = _budgeted()
    owner = Meter(prices=False)

    def fail(_: Meter) -> list[AlertState]:
        raise RuntimeError("broken")

    meter._services.states.add(owner, fail)
    snapshot = meter.snapshot()
    assert len(snapshot.state.budgets) == 1
    assert meter.snapshot().dropped["hook_errors"] >= 1


def test_an_origin_has_a_bounded_state() -> None:
    """Of more parts of a kind the last hundred are there."""
    parts = [DecisionState("priority", str(n), "policy", 1, "") for n in range(MAX_PARTS + 5)]
    state = origin_state((1, 0), 7, parts)
    assert [each.provider for each in state.decisions[:1]] == ["5"]
    assert len(state.decisions) == MAX_PARTS


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("used", "a lot"), ("used", "NaN"), ("resets", "2026-01-01"), ("name", 7)),
        *(("limit", 0.5), ("scope", []), ("scope", {"model": "gpt-4o"}), ("scope", {"model": [1]})),
    ],
)
def test_a_wrong_state_is_refused_with_its_place(place: str, value: object) -> None:
    """The error names the field."""
    part = BudgetState("team", "usd", "day", Decimal(1), Decimal(0), Decimal(5), None)
    data = Snapshot(state=State((origin_state((1, 0), 7, [part]),))).to_dict()
    data["state"][0]["budgets"][0][place] = value
    with pytest.raises(SnapshotError, match=rf"state\[0\]\.budgets\[0\]\.{place} must be"):
        Snapshot.from_dict(data)


def test_damaged_bytes_are_refused() -> None:
    """A byte that was changed or cut off in the state is found."""
    data = _budgeted().snapshot().to_bytes()
    for wrong in (data[:20] + b"?" + data[21:], data[:9], data[:30]):
        with pytest.raises(ValueError, match="not a langmeter snapshot"):
            Snapshot.from_bytes(wrong)
