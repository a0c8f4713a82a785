"""Foreign handlers of a composite where runs, loops and processes end, and LangChain's own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    StdOutCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.graph import END, START, StateGraph

from langmeter import CompositeCallback, TokenCountingCallback
from langmeter.callbacks import foreign
from tests.support.models import chat_model


def invoke(*composites: CompositeCallback) -> None:
    """Call a model once."""
    chat_model().invoke("hi", config={"callbacks": list(composites)})


class Ends(BaseCallbackHandler):
    """Keeps the runs that it saw start and end, and fails at ends while `failing`."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.starts: list[Any] = []
        self.ends: list[Any] = []

    def on_chat_model_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.starts.append(run_id)

    def on_llm_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.ends.append(run_id)
        if self.failing:
            raise ConnectionError("away")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that handlers are switched off and on by."""
    time = [0.0]
    monkeypatch.setattr(foreign, "monotonic", lambda: time[0])
    return time


def test_a_handler_of_which_one_hook_always_fails_is_switched_off() -> None:
    """Hooks that it inherits or that work do not make up for the one that fails."""

    class OnlyEnds(BaseCallbackHandler):
        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            raise ConnectionError("away")

    composite = CompositeCallback([TokenCountingCallback(), OnlyEnds(), Ends(failing=True)])
    for _ in range(20):
        invoke(composite)
    assert [(each.errors, each.off) for each in composite.statuses()[1:]] == [(10, True)] * 2


def test_a_hook_that_works_now_and_then_is_never_switched_off() -> None:
    """Its failures are counted all the same."""
    handler = Ends()
    composite = CompositeCallback([TokenCountingCallback(), handler])
    for place in range(60):
        handler.failing = place % 10 != 0
        invoke(composite)
    assert (composite.statuses()[1].errors, composite.statuses()[1].off) == (54, False)


def test_a_handler_that_is_tried_again_receives_whole_runs_only(now: list[float]) -> None:
    """A run that began while it was switched off does not end in it."""
    handler = Ends(failing=True)
    composite = CompositeCallback([TokenCountingCallback(), handler])
    for _ in range(10):
        invoke(composite)
    handler.failing = False
    handler.starts.clear()
    handler.ends.clear()

    def later(_: Any) -> None:
        now[0] += 61
        invoke(composite)

    chain = chat_model() | RunnableLambda(later)
    chain.invoke("hi", config={"callbacks": [composite]})
    assert len(handler.starts) == 1
    assert handler.starts == handler.ends
    assert not composite.statuses()[1].off


def test_a_handler_is_called_once_however_often_it_is_given() -> None:
    """After one removal it receives nothing."""
    handler = Ends()
    composite = CompositeCallback([TokenCountingCallback(), handler, handler])
    composite.add(handler)
    invoke(composite)
    assert len(handler.ends) == 1
    composite.remove(handler)
    invoke(composite)
    assert len(handler.ends) == 1


def test_hooks_are_native_again_when_the_last_foreign_handler_is_removed() -> None:
    """Such a composite is as fast as one that never had any, and counts on."""
    plain, composite = (CompositeCallback([TokenCountingCallback()]) for _ in range(2))
    handler = Ends()
    for _ in range(2):
        composite.add(handler)
        composite.remove(handler)
        assert {name: type(hook) for name, hook in vars(composite).items()} == {
            name: type(hook) for name, hook in vars(plain).items()
        }
    invoke(composite)
    assert composite.snapshot().totals.calls == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
def test_nothing_that_an_async_handler_raises_ends_the_loop_of_the_thread(
    error: type[BaseException],
) -> None:
    """It is counted, and the events behind it are awaited."""

    class Raising(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.ends = 0

        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise error

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            self.ends += 1

    raising, other = Raising(), Slow(0)
    composite = CompositeCallback([TokenCountingCallback(), raising, other])
    invoke(composite)
    assert composite.wait(5)
    assert (raising.ends, other.log) == (1, ["start", "end"])
    assert (composite.statuses()[1].errors, composite.statuses()[1].dropped) == (1, 0)


class Slow(AsyncCallbackHandler):
    """Takes a while for the start of a run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.log: list[str] = []

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(self.seconds)
        self.log.append("start")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.log.append("end")


def test_what_waits_in_a_loop_that_closes_is_awaited_by_the_thread() -> None:
    """`asyncio.run` cancels the event that is being awaited, which is counted; the rest is kept."""
    slow = Slow(60)
    composite = CompositeCallback([TokenCountingCallback(), slow])
    asyncio.run(chat_model().ainvoke("hi", config={"callbacks": [composite]}))
    assert composite.wait(5)
    assert slow.log == ["end"]
    assert (composite.statuses()[1].waiting, composite.statuses()[1].dropped) == (0, 1)


def test_a_task_that_is_cancelled_before_its_first_step_loses_nothing() -> None:
    """Its run goes on in the loop of the thread."""
    slow = Slow(0)
    composite = CompositeCallback([TokenCountingCallback(), slow])

    async def call() -> None:
        invoke(composite)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(call())
    assert composite.wait(5)
    assert slow.log == ["start", "end"]
    assert composite.statuses()[1].dropped == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_with_tasks_in_it_does_not_hold_up_its_handler() -> None:
    """`loop.close()` cancels no task: the event that had begun is lost and counted."""
    slow = Slow(60)
    composite = CompositeCallback([TokenCountingCallback(), slow])
    loop = asyncio.new_event_loop()

    async def call() -> None:
        invoke(composite)

    loop.run_until_complete(call())
    loop.close()
    assert composite.wait(5)
    assert slow.log == ["end"]
    assert composite.statuses()[1].dropped == 1


@pytest.mark.process
def test_the_end_of_a_program_waits_for_async_handlers() -> None:
    """The end of its last call is not lost with the daemon thread."""
    program = """
import asyncio
from langchain_core.callbacks import AsyncCallbackHandler
from langmeter import CompositeCallback, TokenCountingCallback
from tests.support.models import chat_model
class Printing(AsyncCallbackHandler):
    async def on_llm_end(self, *args, **kwargs):
        await asyncio.sleep(0.05)
        print("end", flush=True)
both = CompositeCallback([TokenCountingCallback(), Printing()])
chat_model().invoke("hi", config={"callbacks": [both]})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "end\n"


class State(TypedDict):
    """Text that a graph passes on."""

    text: str


def graph() -> Any:
    """A graph of one node that calls a model."""
    builder = StateGraph(State)
    builder.add_node("ask", lambda state: {"text": chat_model().invoke(state["text"]).content})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile()


@pytest.mark.parametrize("way", ["invoke", "batch", "stream", "ainvoke", "graph", "agraph"])
def test_handlers_of_langchain_see_in_a_composite_what_they_see_beside_it(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage, trees of runs and printed lines are the same; the composite counts the same tokens."""

    def run(callbacks: list[Any]) -> None:
        config: Any = {"callbacks": callbacks}
        chain = RunnableLambda(lambda text: text) | chat_model()
        if way == "invoke":
            chain.invoke("hi", config)
        elif way == "batch":
            chain.batch(["a", "b", "c"], config | {"max_concurrency": 1})
        elif way == "stream":
            list(chain.stream("hi", config))
        elif way == "ainvoke":
            asyncio.run(chain.ainvoke("hi", config))
        elif way == "graph":
            graph().invoke({"text": "hi"}, config)
        else:
            asyncio.run(graph().ainvoke({"text": "hi"}, config))

    def handlers() -> tuple[UsageMetadataCallbackHandler, RunCollectorCallbackHandler, Any]:
        return (
            UsageMetadataCallbackHandler(),
            RunCollectorCallbackHandler(),
            StdOutCallbackHandler(),
        )

    def tree(runs: list[Any]) -> list[Any]:
        return [(each.name, each.run_type, each.error, tree(each.child_runs)) for each in runs]

    alone = handlers()
    run(list(alone))
    printed = capsys.readouterr().out
    joined = handlers()
    composite = CompositeCallback([joined[0], TokenCountingCallback(), *joined[1:]])
    run([composite])
    assert capsys.readouterr().out == printed
    assert joined[0].usage_metadata == alone[0].usage_metadata
    assert tree(joined[1].traced_runs) == tree(alone[1].traced_runs)
    assert joined[1].traced_runs
    for usage in joined[0].usage_metadata.values():  # none where the model streams
        assert composite.snapshot().totals.tokens.total == usage["total_tokens"]
    assert not any(each.errors for each in composite.statuses())


async def test_an_iterator_over_tokens_works_as_an_async_handler() -> None:
    """Tokens come through the queue of the run in their order, and its end last."""

    class TokenQueue(AsyncCallbackHandler):
        """Bound to the loop of its queue, as LangChain's `AsyncIteratorCallbackHandler`."""

        def __init__(self) -> None:
            self.tokens: asyncio.Queue[str | None] = asyncio.Queue()

        async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            await self.tokens.put(token)

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            await self.tokens.put(None)

    queue = TokenQueue()
    composite = CompositeCallback([TokenCountingCallback(), queue])

    async def call() -> None:
        async for _ in chat_model().astream("hi", config={"callbacks": [composite]}):
            pass

    task = asyncio.create_task(call())
    tokens: list[str] = []
    while (token := await asyncio.wait_for(queue.tokens.get(), 5)) is not None:
        tokens.append(token)
    await task
    assert "".join(tokens) == "alpha beta gamma"
