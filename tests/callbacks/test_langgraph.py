"""LangGraph: nodes, agents, tools and chains told apart, their ends, and where their time went."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from langmeter import Meter, PerformanceCallback
from langmeter.snapshot import Snapshot
from langmeter.testing import ManualClock
from tests.support.models import USAGE
from tests.support.versions import needs_marked_agents


class State(TypedDict):
    """What the graphs here keep."""

    log: Annotated[list[Any], operator.add]


class Messages(TypedDict):
    """State of a graph around an agent."""

    messages: list[Any]


class Scripted(GenericFakeChatModel):
    """A chat model that accepts any tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def answers(tool_name: str = "search") -> Iterator[AIMessage]:
    """A tool call, then an answer."""
    meta = {"model_name": "fake-1"}
    call = {"name": tool_name, "args": {"q": "x"}, "id": "1", "type": "tool_call"}
    for said in (AIMessage("", tool_calls=[call]), AIMessage("done")):
        yield said.model_copy(update={"usage_metadata": USAGE, "response_metadata": meta})


def counts(snapshot: Snapshot) -> dict[tuple[str, str], dict[str, int]]:
    """Of each component the outcomes that are not 0."""
    return {
        key: {name: n for name, n in stats.outcomes.items() if n}
        for key, stats in snapshot.components.items()
    }


def agent_of(clock: ManualClock, **settings: Any) -> Any:
    """`create_agent(name="researcher")` with a tool that takes two seconds."""

    @tool
    def search(q: str) -> str:
        """Search."""
        clock.advance(2.0)
        return "found"

    return create_agent(Scripted(messages=answers()), [search], name="researcher", **settings)


AGENT = {
    ("agent", "researcher"): {"ok": 1},
    ("llm", "Scripted"): {"ok": 2},
    ("node", "model"): {"ok": 2},
    ("node", "tools"): {"ok": 1},
    ("tool", "search"): {"ok": 1},
}


@pytest.mark.parametrize("node", [None, "researcher", "step"])
@needs_marked_agents
def test_an_agent_is_one_and_its_steps_are_nodes(node: str | None) -> None:
    """Each run counts once, as one kind: alone, and as a node of a graph, also under its name."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    runnable, expected = agent_of(clock), dict(AGENT)
    if node:
        graph = StateGraph(Messages)
        graph.add_node(node, runnable)
        graph.add_edge(START, node)
        runnable = graph.compile(name="outer")
        expected |= {("node", node): {"ok": 1}, ("chain", "outer"): {"ok": 1}}
    runnable.invoke({"messages": [("user", "hi")]}, {"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert counts(snapshot) == expected
    assert snapshot.in_flight == 0
    assert (snapshot.pipeline_runs, snapshot.pipeline_seconds) == (1, 2.0)
    search = snapshot.components["tool", "search"]
    assert (search.self_seconds, search.critical_seconds) == (2.0, 2.0)
    others = [stats for key, stats in snapshot.components.items() if key != ("tool", "search")]
    assert sum(stats.self_seconds + stats.critical_seconds for stats in others) == 0
    assert snapshot.components["agent", "researcher"].latency.max == pytest.approx(2, rel=0.01)


def test_what_a_node_calls_is_no_node() -> None:
    """A step of a node that has the node's name is a chain."""
    meter = Meter()
    graph = StateGraph(State)
    same = RunnableLambda(lambda state: state).with_config(run_name="one")
    graph.add_node("one", same)
    graph.add_node("two", RunnableLambda(lambda state: state) | same.with_config(run_name="two"))
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.compile().invoke({"log": []}, {"callbacks": [meter]})
    components = meter.snapshot().components
    assert {key: components[key].calls for key in (("node", "one"), ("node", "two"))} == {
        ("node", "one"): 1,
        ("node", "two"): 1,
    }
    assert components["chain", "one"].calls == 1


def test_tasks_of_a_send_are_nodes() -> None:
    """Each of them one call of its node."""
    meter = Meter()
    graph = StateGraph(State)
    graph.add_node("work", lambda state: {"log": [state["log"]]})
    graph.add_conditional_edges(START, lambda _: [Send("work", {"log": [n]}) for n in range(5)])
    graph.compile().invoke({"log": []}, {"callbacks": [meter]})
    assert meter.snapshot().components["node", "work"].outcomes["ok"] == 5


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_parallel_branches_count_their_own_time() -> None:
    """A takes 1 s, b beside it 3 s, c after both 2 s: 5 s in all, and a delayed nothing."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    both = threading.Barrier(2)

    def a(state: State) -> State:
        both.wait(60)
        clock.advance(1.0)
        return {"log": ["a"]}

    def b(state: State) -> State:
        both.wait(60)
        wait_for(lambda: ("node", "a") in meter.snapshot().components)
        clock.advance(2.0)
        return {"log": ["b"]}

    def c(state: State) -> State:
        clock.advance(2.0)
        return {"log": ["c"]}

    graph = StateGraph(State)
    for node in (a, b, c):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    graph.add_edge(["a", "b"], "c")
    graph.compile().invoke({"log": []}, {"callbacks": [meter]})
    snapshot = meter.snapshot()
    figures = {
        name: (stats.self_seconds, stats.critical_seconds, stats.saved_if_twice_seconds)
        for (_, name), stats in snapshot.components.items()
    }
    assert figures == {
        "a": (1.0, 0.0, 0.0),
        "b": (3.0, 3.0, 1.5),
        "c": (2.0, 2.0, 1.0),
        "LangGraph": (0.0, 0.0, 0.0),
    }
    assert snapshot.pipeline_seconds == 5.0


def test_an_interrupt_is_no_failure_and_its_resume_a_run() -> None:
    """The node is interrupted, then ok; the graph is ok twice; nothing failed."""
    clock = ManualClock()
    meter = Meter(clock=clock)

    def ask(state: State) -> State:
        clock.advance(1.0)
        return {"log": [interrupt("well?")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"callbacks": [meter], "configurable": {"thread_id": "1"}}
    compiled.invoke({"log": []}, config)
    assert compiled.invoke(Command(resume="yes"), config) == {"log": ["yes"]}
    snapshot = meter.snapshot()
    assert counts(snapshot) == {
        ("node", "ask"): {"ok": 1, "interrupted": 1},
        ("chain", "LangGraph"): {"ok": 2},
    }
    assert snapshot.failures == {}
    assert snapshot.pipeline_runs == 2
    assert snapshot.components["node", "ask"].self_seconds == 2.0


async def test_an_interrupt_of_an_async_graph() -> None:
    """An interrupt of an async graph counts as that of a sync one."""
    meter = Meter()

    async def ask(state: State) -> State:
        return {"log": [interrupt("well?")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    config: Any = {"callbacks": [meter], "configurable": {"thread_id": "1"}}
    await graph.compile(checkpointer=InMemorySaver()).ainvoke({"log": []}, config)
    assert counts(meter.snapshot())["node", "ask"] == {"interrupted": 1}
    assert meter.snapshot().failures == {}


def test_a_node_that_fails_is_told_by_its_cause() -> None:
    """The node and the graph around it, by the exception's class."""
    meter = PerformanceCallback()

    def fails(state: State) -> State:
        raise LookupError("nothing")

    graph = StateGraph(State)
    graph.add_node("fails", fails)
    graph.add_edge(START, "fails")
    with pytest.raises(LookupError):
        graph.compile().invoke({"log": []}, {"callbacks": [meter]})
    assert meter.snapshot().failures == {
        ("node fails", "LookupError"): 1,
        ("chain LangGraph", "LookupError"): 1,
    }


@pytest.mark.parametrize("handled_by", ["tool", "middleware"])
@needs_marked_agents
def test_a_handled_tool_error_is_an_error_of_the_tool(handled_by: str) -> None:
    """Whoever handles it: nothing around it failed."""

    @tool
    def search(q: str) -> str:
        """Search."""
        raise ToolException("no")

    @wrap_tool_call
    def handle(request: Any, handler: Any) -> Any:
        try:
            return handler(request)
        except ToolException as error:
            return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")

    search.handle_tool_error = handled_by == "tool"
    middleware = [handle] if handled_by == "middleware" else []
    meter = Meter()
    agent = create_agent(
        Scripted(messages=answers()), [search], name="researcher", middleware=middleware
    )
    agent.invoke({"messages": [("user", "hi")]}, {"callbacks": [meter]})  # type: ignore[call-overload]
    assert counts(meter.snapshot()) == {**AGENT, ("tool", "search"): {"error": 1}}
