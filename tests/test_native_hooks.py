"""The hooks that are native: what LangChain may call them with, and what they make of it."""

from __future__ import annotations

import inspect
import uuid
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, ToolMessage

from conftest import chat_model
from langmeter import Budget, Meter, PerformanceCallback, TokenCountingCallback
from langmeter._base.failures import cause_of, refused_by_server
from langmeter.callbacks.composite import HOOKS

OUR_OWN = {"on_stream_event", "on_agent_action", "on_agent_finish", "on_text", "on_retry"}


@pytest.mark.parametrize("hook", sorted(set(HOOKS) - OUR_OWN))
@pytest.mark.parametrize("cls", [TokenCountingCallback, PerformanceCallback, Meter])
def test_signatures_are_langchains(cls: type, hook: str) -> None:
    """Every parameter of LangChain's hook is there, by its name, and none of ours is required."""
    theirs = inspect.signature(getattr(BaseCallbackHandler, hook)).parameters
    ours = inspect.signature(getattr(cls, hook)).parameters
    for name, parameter in theirs.items():
        if name == "self" or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        if hook == "on_custom_event" and cls is Meter:  # hands on what comes by keyword
            continue
        assert name in ours
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            assert ours[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            assert list(theirs).index(name) == list(ours).index(name)
    assert any(p.kind is inspect.Parameter.VAR_KEYWORD for p in ours.values())
    required = {n for n, p in ours.items() if p.default is inspect.Parameter.empty}
    assert required - {"self", "kwargs"} <= set(theirs)


ODD: dict[str, list[Any]] = {
    "serialized": [None, {}, [], "x", {"name": 7}, {"id": []}, {"id": "path"}, {"id": [None]}],
    "tags": [None, [], ("seq:step:2",), [7, None], "tag", ["\ud800"], {"a"}],
    "metadata": [
        None,
        {},
        [],
        "x",
        {7: object()},
        {"ls_model_name": 7, "ls_provider": ["p"]},
        {"ls_model_name": "\ud800", "ls_provider": "\udfff"},
        {"langgraph_node": 7, "lc_agent_name": object()},
        {"team": 10**5000},
    ],
    "name": [None, "", 7, ["x"], object(), "\ud800", "n" * 10_000],
    "parent_run_id": [None, uuid.uuid4()],
    "unheard_of": [None, 7],
}


def started(meter: Any, what: str, **given: Any) -> uuid.UUID:
    run = uuid.uuid4()
    starts = {
        "llm": (meter.on_llm_start, ["hi"], meter.on_llm_error),
        "chat_model": (meter.on_chat_model_start, [[HumanMessage("hi")]], meter.on_llm_error),
        "chain": (meter.on_chain_start, {}, meter.on_chain_error),
        "tool": (meter.on_tool_start, "x", meter.on_tool_error),
        "retriever": (meter.on_retriever_start, "q", meter.on_retriever_error),
    }
    start, inputs, error = starts[what]
    start(given.pop("serialized", None), inputs, run_id=run, **given)
    error(ValueError("x"), run_id=run, unheard_of=1)
    return run


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("parameter", sorted(ODD))
@pytest.mark.parametrize("what", ["llm", "chat_model", "chain", "tool", "retriever"])
def test_odd_inputs_lose_no_run(what: str, parameter: str, limited: bool) -> None:
    """Whatever comes, the run begins, ends and is counted; nothing is raised."""
    meter = Meter(labels=("team",), budgets=[Budget(tokens=10**9)] if limited else [])
    for value in ODD[parameter]:
        before = meter.snapshot()
        started(meter, what, **{parameter: value})
        after = meter.snapshot() - before
        assert sum(stats.errors for stats in after.components.values()) == 1, repr(value)[:80]
        assert meter.snapshot().in_flight == 0
        assert "end_without_start" not in after.dropped
    odd_label = parameter == "metadata" and what in ("llm", "chat_model")
    assert meter.snapshot().dropped.get("hook_errors", 0) == int(odd_label)


def test_names_in_a_response_may_be_no_text() -> None:
    """Half a surrogate pair in a model's name is replaced, and the call ends."""
    meter = Meter()
    model = chat_model(metadata={"model_name": "m\ud800", "model_provider": "p"})
    model.invoke("hi", config={"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert [name for _, name in snapshot.models] == ["m\ufffd\ufffd\ufffd"]
    assert (snapshot.in_flight, dict(snapshot.dropped)) == (0, {})
    assert meter.snapshot().from_json(snapshot.to_json()) == snapshot


def test_a_tool_message_that_says_error_is_one() -> None:
    """By its status, of a message alone; every other output is a success."""
    meter = Meter()
    outputs = [
        ToolMessage("x", tool_call_id="1", status="error"),
        "error",
        None,
        {"status": "error"},
    ]
    for output in outputs:
        run = uuid.uuid4()
        meter.on_tool_start({"name": "t"}, "x", run_id=run)
        meter.on_tool_end(output, run_id=run)
    assert meter.snapshot().components["tool", "t"].outcomes["error"] == 1
    assert meter.snapshot().components["tool", "t"].outcomes["ok"] == 3


class Response:
    """What a client's exception carries."""

    status_code = 503


class HostileError(Exception):
    """An exception whose attributes raise."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def error_with(**attributes: Any) -> Exception:
    """A ValueError with these."""
    error = ValueError("x")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    ("error", "cause", "refused"),
    [
        (ValueError(), "ValueError", False),
        (error_with(status_code=429), "ValueError 429", True),
        (error_with(response=Response()), "ValueError 503", True),
        (error_with(code=404), "ValueError 404", False),
        (error_with(code=7), "ValueError", False),
        (error_with(code="quota"), "ValueError", False),
        (error_with(status_code="429"), "ValueError", True),
        (
            error_with(response={"ResponseMetadata": {"HTTPStatusCode": 400}}),
            "ValueError 400",
            True,
        ),
        (error_with(body={}), "ValueError", True),
        (HostileError(), "HostileError", False),
    ],
    ids=range(10),
)
def test_causes_of_failures(error: Exception, cause: str, refused: bool) -> None:
    """Class and HTTP status, where OpenAI's, Google's and Amazon's clients put it."""
    assert cause_of(error) == cause
    assert refused_by_server(error) is refused


def test_a_hostile_exception_ends_its_runs() -> None:
    """One whose attributes raise is an error like any other."""
    meter = Meter()
    for what in ("chat_model", "chain", "tool", "retriever"):
        run = uuid.uuid4()
        getattr(meter, f"on_{what}_start")(None, [[]], run_id=run)
        end = {"chat_model": "llm"}.get(what, what)
        getattr(meter, f"on_{end}_error")(HostileError(), run_id=run)
    snapshot = meter.snapshot()
    assert {how for _, how in snapshot.failures} == {"HostileError"}
    assert sum(snapshot.failures.values()) == 4
    assert (snapshot.in_flight, dict(snapshot.dropped)) == (0, {})
