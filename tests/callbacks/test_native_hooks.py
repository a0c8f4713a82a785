"""The hooks that are native: what LangChain may call them with, and what they make of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import uuid
from typing import Any
from weakref import ref

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import handle_event
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.outputs import LLMResult

from langmeter import (
    Budget,
    CompositeCallback,
    Meter,
    PerformanceCallback,
    TokenCountingCallback,
    _core,
)
from langmeter._base.failures import error_label, is_server_response
from langmeter.callbacks.composite import HOOKS
from tests.support.models import chat_model


@pytest.mark.parametrize("hook", sorted(HOOKS))
@pytest.mark.parametrize("cls", [TokenCountingCallback, PerformanceCallback, Meter])
def test_hooks_take_what_langchain_passes(
    cls: type[Any], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every parameter of LangChain's hook, by its own kind, and keywords that do not exist yet."""
    handler = cls()
    theirs = inspect.signature(getattr(BaseCallbackHandler, hook)).parameters
    args: list[Any] = []
    kwargs: dict[str, Any] = {"unheard_of": 1}
    for name, parameter in theirs.items():
        if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            args.append(None)
        else:
            kwargs[name] = uuid.uuid4() if name == "run_id" else None
    handle_event([handler], hook, None, *args, **kwargs)
    assert not [record for record in caplog.records if "TypeError" in record.getMessage()]


def test_hooks_take_every_argument_by_name() -> None:
    """Also the first ones, which LangChain passes by place, and names that are not interned."""
    meter, run_id = Meter(), uuid.uuid4()
    client = {"ls_provider": "acme", "ls_model_name": "m"}
    start: dict[str, Any] = {
        "serialized": None,
        "messages": [[]],
        "run_id": run_id,
        "metadata": client,
    }
    meter.on_chat_model_start(**{"".join(name): value for name, value in start.items()})
    meter.on_llm_new_token(token="a", run_id=run_id)
    meter.on_llm_end(response=LLMResult(generations=[]), run_id=run_id)
    model = meter.snapshot().models["acme", "m"]
    assert (model.calls, model.token_events) == (1, 1)
    assert not meter.snapshot().dropped


@pytest.mark.parametrize("hook", sorted(set(_core.HOOKS) - {"on_llm_new_token", "on_stream_event"}))
def test_a_hook_without_its_run_says_so(hook: str) -> None:
    """By a TypeError that names the argument; nothing is counted."""
    meter = Meter()
    with pytest.raises(TypeError, match="run_id"):
        getattr(meter, hook)(None, None)
    assert meter.snapshot().totals.calls == 0


@pytest.mark.parametrize("cls", [TokenCountingCallback, PerformanceCallback, Meter])
def test_inspect_takes_native_hooks_for_functions(cls: type[Any]) -> None:
    """A hook is not a coroutine function: LangChain checks that at each async event."""
    handler = cls()
    for name, native in _core.HOOKS.items():
        hook = getattr(handler, name)
        assert type(hook) is native
        assert inspect.isfunction(hook)
        assert not inspect.iscoroutinefunction(hook)
        assert not asyncio.iscoroutinefunction(hook)
        assert hook.__name__ == getattr(cls, name).__name__ == name


def test_a_handler_is_freed_by_its_reference_count() -> None:
    """Its hooks hold what it records into, and not the handler."""
    gc.disable()
    try:
        for handler in (Meter(), CompositeCallback([TokenCountingCallback(), Foreign()])):
            chat_model().invoke("hi", config={"callbacks": [handler]})
        freed = ref(handler)
        del handler
        assert freed() is None
    finally:
        gc.enable()


class Foreign(BaseCallbackHandler):
    """A handler of others."""


class Overriding(Meter):
    """A subclass that adds to three hooks, by every way to reach the one below."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")
        super().on_chat_model_start(*args, **kwargs)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append("token")
        Meter.on_llm_new_token(self, token, **kwargs)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("end")
        super().on_llm_end(*args, **kwargs)


async def test_a_subclass_may_override_hooks() -> None:
    """What it defines is called, and reaches the recorder by `super()` or by the class."""
    handler = Overriding()
    for _ in chat_model().stream("hi", config={"callbacks": [handler]}):
        pass
    async for _ in chat_model().astream("hi", config={"callbacks": [handler]}):
        pass
    assert handler.seen.count("start") == handler.seen.count("end") == 2
    totals = handler.snapshot().totals
    assert totals.calls == totals.outcomes["ok"] == 2
    assert totals.token_events == handler.seen.count("token") == 10


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
    assert error_label(error) == cause
    assert is_server_response(error) is refused


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
