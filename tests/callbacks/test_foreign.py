"""Foreign handlers in a composite: isolated, in order, switched off and on, added and removed."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from langmeter import CompositeCallback, TokenCountingCallback
from langmeter.callbacks import foreign
from tests.support.models import chat_model


class Seen(BaseCallbackHandler):
    """Writes down its name at each start and end, and fails where it is told to."""

    def __init__(self, name: str, log: list[str], failing: bool = False) -> None:
        self.name, self.log, self.failing = name, log, failing

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self._note("start")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self._note("end")

    def _note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if self.failing:
            raise RuntimeError("of a handler")


class Later(AsyncCallbackHandler):
    """Writes down what it has awaited, after a pause that differs from event to event."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.failing = False

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0.02)
        self.log.append("start")
        if self.failing:
            raise RuntimeError("of an async handler")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.log.append("end")


def invoke(composite: CompositeCallback) -> str:
    """Call a model once."""
    return str(chat_model().invoke("hi", config={"callbacks": [composite]}).content)


def test_handlers_are_called_in_the_given_order() -> None:
    """Ours are recorded where the first of them stands; the others before and behind it."""
    log: list[str] = []

    class Recorded(Seen):
        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            log.append(f"{self.name} {tokens.total_tokens}")

    tokens = TokenCountingCallback()
    composite = CompositeCallback([Recorded("a", log), tokens, Recorded("b", log)])
    invoke(composite)
    assert log == ["a start", "b start", "a 0", "b 140"]
    assert [type(each).__name__ for each in composite.handlers] == [
        "Recorded",
        "TokenCountingCallback",
        "Recorded",
    ]


def test_what_one_handler_raises_reaches_neither_another_nor_the_chain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted for that handler, and its first failure in a row is logged."""
    log: list[str] = []
    tokens = TokenCountingCallback()
    composite = CompositeCallback([Seen("bad", log, failing=True), tokens, Seen("good", log)])
    assert invoke(composite) == "alpha beta gamma"
    assert log == ["bad start", "good start", "bad end", "good end"]
    assert tokens.total_tokens == 140
    bad, own, good = composite.statuses()
    assert (bad.errors, bad.last_error, good.errors, own.errors) == (2, "RuntimeError", 0, 0)
    assert [r.getMessage() for r in caplog.records] == [
        "Seen.on_chat_model_start failed; further failures are only counted"
    ]


def test_raise_error_is_the_handlers_own() -> None:
    """A guard stops the chain, is never switched off, and others stay isolated."""
    log: list[str] = []
    guard = Seen("guard", [], failing=True)
    guard.raise_error = True
    composite = CompositeCallback([TokenCountingCallback(), guard, Seen("behind", log)])
    for _ in range(foreign.MAX_FAILURES + 5):
        with pytest.raises(RuntimeError, match="of a handler"):
            invoke(composite)
    assert composite.statuses()[1].errors == foreign.MAX_FAILURES + 5
    assert not composite.statuses()[1].off
    assert log == []


def test_ctrl_c_in_a_handler_passes() -> None:
    """It is meant for the program."""

    class Interrupting(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invoke(CompositeCallback([TokenCountingCallback(), Interrupting()]))


def test_ten_failures_in_a_row_switch_a_handler_off_and_it_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a minute one event is tried; a failure doubles the pause, a success ends it."""
    now = [0.0]
    monkeypatch.setattr(foreign, "monotonic", lambda: now[0])
    log: list[str] = []
    bad = Seen("bad", log, failing=True)
    composite = CompositeCallback([TokenCountingCallback(), bad])
    for _ in range(10):
        invoke(composite)
    status = composite.statuses()[1]
    assert (len(log), status.errors, status.off, status.skipped) == (10, 10, True, 10)
    assert "RuntimeError" in composite.report()
    now[0] = 61
    invoke(composite)
    assert (len(log), composite.statuses()[1].off) == (11, True)
    now[0] = 61 + 119
    invoke(composite)
    assert len(log) == 11
    now[0] = 61 + 121
    bad.failing = False
    invoke(composite)
    assert (len(log), composite.statuses()[1].off) == (13, False)
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in messages if "switched" in text] == [
        "Seen failed 10 times in a row, last with RuntimeError; it is switched off for 60 s",
        "Seen failed 11 times in a row, last with RuntimeError; it is switched off for 120 s",
        "Seen works again and is switched on",
    ]


def test_an_async_handler_is_awaited_in_order_from_sync_code() -> None:
    """By a loop in a thread: the chain does not wait for it."""
    log: list[str] = []
    composite = CompositeCallback([TokenCountingCallback(), Later(log)])
    for _ in range(3):
        invoke(composite)
    assert composite.wait(5)
    assert sorted(log) == ["end"] * 3 + ["start"] * 3
    assert composite.statuses()[1].waiting == 0


async def test_an_async_handler_is_awaited_in_the_loop_of_the_event() -> None:
    """Each run in order, though its first event takes longer than its last."""
    log: list[tuple[object, str, object]] = []

    class ByRun(Later):
        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0.01)
            log.append((kwargs["run_id"], "start", asyncio.get_running_loop()))

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            log.append((kwargs["run_id"], "end", asyncio.get_running_loop()))

    composite = CompositeCallback([TokenCountingCallback(), ByRun([])])
    config: Any = {"callbacks": [composite]}
    await asyncio.gather(*(chat_model().ainvoke("hi", config=config) for _ in range(20)))
    assert await composite.wait_async(5)
    assert {loop for _, _, loop in log} == {asyncio.get_running_loop()}
    for run in {run for run, _, _ in log}:
        assert [what for each, what, _ in log if each == run] == ["start", "end"]


def test_failures_of_async_handlers_are_counted_and_they_fall_back_as_langchain_does() -> None:
    """A handler without `on_chat_model_start` receives `on_llm_start`."""
    log: list[str] = []

    class Texts(AsyncCallbackHandler):
        async def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
            log.append(prompts[0])

    bad = Later(log)
    bad.failing = True
    composite = CompositeCallback([bad, Texts()])
    assert invoke(composite) == "alpha beta gamma"
    assert composite.wait(5)
    assert "Human: hi" in log
    assert [status.errors for status in composite.statuses()] == [1, 0]


def test_that_raise_error_of_an_async_handler_cannot_apply_is_said_when_it_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With what to do in its place; a sync one is silent."""
    later, sync = Later([]), Seen("a", [])
    later.raise_error = sync.raise_error = True
    CompositeCallback([TokenCountingCallback(), later, sync])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "raise_error of Later cannot apply in a composite" in record.getMessage()


def test_more_events_than_a_queue_holds_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing grows behind a handler that hangs."""
    monkeypatch.setattr("langmeter.callbacks.awaiting.MAX_WAITING", 4)
    release = threading.Event()

    class Hanging(AsyncCallbackHandler):
        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            await asyncio.to_thread(release.wait, 10)

    composite = CompositeCallback([TokenCountingCallback(), Hanging()])
    for _ in range(6):
        invoke(composite)
    assert not composite.wait(0.05)
    status = composite.statuses()[1]
    assert (status.waiting, status.dropped) == (4, 8)
    release.set()
    assert composite.wait(5)


def test_a_handler_that_is_added_receives_whole_runs_only() -> None:
    """Not the end of a run whose start it has not received; a removed one receives nothing."""
    log: list[str] = []
    composite = CompositeCallback([TokenCountingCallback()])
    late, model = Seen("late", log), chat_model()

    def add(_: Any) -> str:
        composite.add(late)
        return "x"

    class Adding(Seen):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            if not log:
                composite.add(late)

    adding = Adding("adding", [])
    composite.add(adding)
    model.invoke("hi", config={"callbacks": [composite]})
    assert log == []
    composite.remove(adding)
    model.invoke("hi", config={"callbacks": [composite]})
    assert log == ["late start", "late end"]
    composite.remove(late)
    model.invoke("hi", config={"callbacks": [composite]})
    assert log == ["late start", "late end"]
    assert composite.handlers == (composite.handlers[0],)
    with pytest.raises(ValueError, match="not among the foreign handlers"):
        composite.remove(late)
    with pytest.raises(ValueError, match="cannot join a composite that counts already"):
        composite.add(TokenCountingCallback())
    with pytest.raises(TypeError, match="must be a BaseCallbackHandler"):
        composite.add("x")  # type: ignore[arg-type]


def test_handlers_come_and_go_beside_calls_of_many_threads() -> None:
    """Every call is counted, and each handler has as many ends as starts."""
    tokens = TokenCountingCallback()
    composite = CompositeCallback([tokens])
    stop = threading.Event()
    logs: list[list[str]] = []

    def change() -> None:
        while not stop.is_set():
            log: list[str] = []
            handler = Seen("x", log)
            composite.add(handler)
            logs.append(log)
            composite.remove(handler)

    changer = threading.Thread(target=change)
    changer.start()
    chain: Any = RunnableLambda(lambda _: invoke(composite))
    chain.batch(list(range(200)), config={"max_concurrency": 8})
    stop.set()
    changer.join()
    assert composite.snapshot().totals.calls == 200
    assert all(log.count("x end") <= log.count("x start") for log in logs)


class Streams(BaseChatModel):
    """Says which of its ways was called."""

    @property
    def _llm_type(self) -> str:
        return "streams"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content="whole"))])

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content="streamed"))


class Tracing(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """A handler that makes LangChain stream wherever it stands alone."""

    def tap_output_aiter(self, run_id: Any, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return output

    def tap_output_iter(self, run_id: Any, output: Iterator[Any]) -> Iterator[Any]:
        return output


def test_a_composite_never_turns_invoke_into_streaming() -> None:
    """Not even around a handler that would."""
    tracing = Tracing()
    assert Streams().invoke("hi", config={"callbacks": [tracing]}).content == "streamed"
    composite = CompositeCallback([TokenCountingCallback(), tracing])
    assert Streams().invoke("hi", config={"callbacks": [composite]}).content == "whole"


def test_one_report_for_all() -> None:
    """The tables of the snapshot, and a row for each handler."""
    composite = CompositeCallback([TokenCountingCallback(), Seen("bad", [], failing=True)])
    invoke(composite)
    model, handlers = composite.report().split("\n\n")[0], composite.report().split("\n\n")[-1]
    assert "fake-1" in model
    assert [line.split() for line in handlers.splitlines() if not line.startswith("-")] == [
        ["handler", "errors", "last", "state", "skipped", "dropped"],
        ["TokenCountingCallback", "0", "-", "on", "0", "0"],
        ["Seen", "2", "RuntimeError", "on", "0", "0"],
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_async_handlers_work_in_a_forked_child() -> None:
    """It starts a loop of its own: its parent's thread is not there."""
    log: list[str] = []
    composite = CompositeCallback([TokenCountingCallback(), Later(log)])
    invoke(composite)
    assert composite.wait(5)
    child = os.fork()
    if child == 0:
        log.clear()
        invoke(composite)
        os._exit(0 if composite.wait(5) and sorted(log) == ["end", "start"] else 1)
    assert os.waitpid(child, 0)[1] == 0
