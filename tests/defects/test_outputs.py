"""Verdicts that are read from what the run of an attempt returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from langmeter import Meter
from langmeter.defects import DefectOptions, Fix, read_fix
from langmeter.errors import ConfigError
from langmeter.snapshot import DefectStats
from tests.support.models import chat_model

ANSWER = {"success": True, "confidence": 0.75, "fix_candidates": [{"fix_code": "x"}]}


def _marked(meter: Meter) -> Any:
    return {"callbacks": [meter], "metadata": {"defect_id": "D"}}


def _row(meter: Meter) -> DefectStats:
    [row] = meter.snapshot().defects.values()
    return row


def _invoke(model: Any, config: Any) -> None:
    model.invoke("q", config=config)


def _stream(model: Any, config: Any) -> None:
    assert list(model.stream("q", config=config))


def _graph(model: Any, config: Any) -> None:
    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("fix", node).add_edge(START, "fix").compile()
    graph.invoke({"messages": [("user", "q")]}, config=config)  # type: ignore[call-overload]


@pytest.mark.parametrize("call", [_invoke, _stream, _graph])
def test_the_answer_of_a_marked_model_or_graph_is_read(call: Callable[[Any, Any], None]) -> None:
    """As that of a chain: its verdict, its candidates and its stated confidence."""
    meter = Meter(defects=DefectOptions(outcome=read_fix))
    call(chat_model(content=json.dumps(ANSWER)), _marked(meter))
    row = _row(meter)
    assert (row.outcomes["fixed"], row.candidates, row.stated) == (1, 1, 1)
    assert not meter.snapshot().dropped


def test_an_answer_from_the_response_cache_is_not_a_sample() -> None:
    """Also where it is read from the message of a marked model."""
    meter = Meter(defects=DefectOptions(outcome=read_fix))
    model = chat_model(content=json.dumps(ANSWER), cache=InMemoryCache())
    for _ in range(3):
        model.invoke("q", config=_marked(meter))
    row = _row(meter)
    assert (row.candidates, row.cached_candidates, row.outcomes["fixed"]) == (3, 2, 3)
    assert (row.attempts, row.fixed, row.pass_at(1)) == (3, 1, 1)


def test_a_reader_is_called_once_for_each_attempt_with_what_its_caller_gets() -> None:
    """Not for the runs below it."""
    outputs: list[Any] = []
    meter = Meter(defects=DefectOptions(outcome=outputs.append))
    answer = chat_model().invoke("q", config=_marked(meter))
    (chat_model() | (lambda message: message.content)).invoke("q", config=_marked(meter))
    chat_model().invoke("q", config={"callbacks": [meter]})
    [message, text] = outputs
    assert (message.content, text) == (answer.content, "alpha beta gamma")


class _Fix(BaseModel):
    success: bool


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ({"messages": ["q", '{"success": true}']}, "fixed"),
        ({"messages": ["q"], "structured_response": _Fix(success=False)}, "failed"),
        ({"messages": [], "success": True}, "fixed"),
        ({"messages": []}, "unparsable"),
        ({"messages": "text"}, "unparsable"),
    ],
)
def test_of_the_state_of_a_graph_the_answer_is_read(state: Any, outcome: str) -> None:
    """An agent's structured response, else the last message."""
    assert read_fix(state) == Fix(outcome)


def test_a_recommended_candidate_beyond_the_sixteenth_is_the_recommended_one() -> None:
    """It takes the place of another."""
    answer = {"fix_candidates": [{"fix_code": "x"}] * 40, "recommended_fix_index": 30}
    meter = Meter()
    with meter.defects.attempt("D") as attempt:
        attempt.judge(read_fix(answer))
    attempt.candidate(30).succeeded()
    row = _row(meter)
    assert (row.candidates, row.fixed) == (16, 1)
    assert meter.snapshot().dropped == {"candidates_capped": 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"candidates": -1}, "candidates must be a whole number from 0 up, got -1"),
        ({"recommended": "0"}, "recommended must be a whole number from 0 up, got '0'"),
        ({"source": 3}, "source must be a text, got 3"),
        ({"reason": None}, "reason must be a text, got None"),
    ],
)
def test_a_fix_with_a_wrong_field_is_refused(wrong: Any, message: str) -> None:
    """Where it is made, not where it is counted."""
    with pytest.raises(ConfigError, match=message):
        Fix(**wrong)
