"""Bottlenecks of real runnables and graphs, under a clock that the steps themselves move."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from operator import or_
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
)
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from langmeter import Meter
from langmeter.analysis.bottlenecks import Bottleneck, bottlenecks
from langmeter.testing import ManualClock

#: How long two branches may take to meet, seconds; reached by no test that passes.
PATIENCE = 30


class EndOf(BaseCallbackHandler):
    """Says when the run of a name has ended; after the meter in a list of handlers."""

    run_inline = True

    def __init__(self, name: str) -> None:
        self.name, self.run, self.ended = name, None, threading.Event()

    def on_chain_start(self, *args: Any, run_id: Any, name: str = "", **kwargs: Any) -> None:
        if name == self.name:
            self.run = run_id

    def on_chain_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        if run_id == self.run:
            self.ended.set()


class Stage:
    """A meter whose clock is moved by hand, and steps that move it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.meter = Meter(clock=self.clock)
        self.config: Any = {"callbacks": [self.meter]}

    def takes(self, seconds: float) -> Callable[[Any], Any]:
        def step(value: Any) -> Any:
            self.clock.advance(seconds)
            return value

        return step

    def model(self, seconds: float) -> GenericFakeChatModel:
        """Answers three words after `seconds`; streamed, with as long after each of its chunks."""
        clock = self.clock

        class Slow(GenericFakeChatModel):
            def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
                for chunk in super()._stream(*args, **kwargs):
                    yield chunk
                    clock.advance(seconds)

        def answers() -> Iterator[AIMessage]:
            while True:
                clock.advance(seconds)
                yield AIMessage("alpha beta gamma")

        asked = {"ls_provider": "acme", "ls_model_name": "slow-1"}
        return Slow(messages=answers(), metadata=asked)

    def found(self) -> dict[str, Bottleneck]:
        """By name, what took time."""
        told = bottlenecks(self.meter.snapshot())
        return {one.name.split("/")[-1]: one for one in told if one.self_seconds}


def shares(found: dict[str, Bottleneck]) -> dict[str, float]:
    return {name: round(one.critical_seconds, 9) for name, one in found.items()}


def savings(found: dict[str, Bottleneck]) -> dict[str, float]:
    return {name: round(one.saved_per_run, 9) for name, one in found.items()}


def test_the_steps_of_a_sequence_share_its_time() -> None:
    """Of 1.75 s the model took 1 s, and twice as fast would spare half of it."""
    stage = Stage()
    before = RunnableLambda(stage.takes(0.25)).with_config(run_name="before")
    after = RunnableLambda(stage.takes(0.5)).with_config(run_name="after")
    chain: Runnable[Any, Any] = before | stage.model(1.0) | after
    chain.invoke("x", stage.config)
    chain.invoke("x", stage.config)
    found = stage.found()
    assert shares(found) == {"slow-1": 2.0, "after": 1.0, "before": 0.5}
    assert savings(found) == {"slow-1": 0.5, "after": 0.25, "before": 0.125}
    assert found["slow-1"].critical_share == pytest.approx(1 / 1.75)


def test_streamed_the_model_is_the_bottleneck_and_not_the_parser_that_waits_for_it() -> None:
    """The parser and what follows live on the stream: their runs last as long, and are not slow."""
    stage = Stage()
    last = RunnableLambda(stage.takes(0.5)).with_config(run_name="last")
    chain = stage.model(1.0) | StrOutputParser() | last
    assert "".join(chain.stream("x", stage.config)) == "alpha beta gamma"
    found = stage.found()
    # One before the first chunk and one after each of the five.
    assert shares(found)["slow-1"] == 6.0
    assert shares(found)["last"] == 0.5
    assert sum(shares(found).values()) == stage.meter.snapshot().pipeline_seconds == 6.5
    assert savings(found)["slow-1"] == 3.0


def test_a_step_that_hands_on_while_it_works_is_no_gap() -> None:
    """A generator ends after the step that it feeds has begun: its time is not the sequence's."""
    stage = Stage()

    def produce(values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            stage.clock.advance(1.0)
            yield value
            stage.clock.advance(0.25)

    def pass_on(values: Iterator[Any]) -> Iterator[Any]:
        yield from values
        stage.clock.advance(0.5)

    first = RunnableGenerator(produce).with_config(run_name="first")
    chain = first | RunnableGenerator(pass_on).with_config(run_name="second")
    assert list(chain.stream("x", stage.config)) == ["x"]
    assert shares(stage.found()) == {"first": 1.25, "second": 0.5}


def test_of_parallel_branches_the_longer_one_is_critical() -> None:
    """Twice as fast, it would save only what the other branch leaves: 0.25 of its 1 s."""
    stage = Stage()
    both, shorter = threading.Barrier(2), EndOf("shorter")

    def first(value: str) -> str:
        both.wait(PATIENCE)
        stage.clock.advance(0.75)
        return value

    def second(value: str) -> str:
        both.wait(PATIENCE)
        assert shorter.ended.wait(PATIENCE)
        stage.clock.advance(0.25)
        return value

    branches = {"shorter": RunnableLambda(first), "longer": RunnableLambda(second)}
    parallel = RunnableParallel(
        {name: b.with_config(run_name=name) for name, b in branches.items()}
    )
    parallel.invoke("x", {"callbacks": [stage.meter, shorter]})
    found = stage.found()
    assert shares(found) == {"longer": 1.0, "shorter": 0.0}
    assert savings(found) == {"longer": 0.25, "shorter": 0.0}
    assert (found["longer"].self_seconds, found["shorter"].self_seconds) == (1.0, 0.75)


class State(TypedDict, total=False):
    seen: Annotated[set[str], or_]


def test_the_parallel_branches_of_a_graph_join_before_the_next_step() -> None:
    """Nodes are components by their names; the one that waits for both begins after the longer."""
    stage = Stage()
    both, ended = threading.Barrier(2), EndOf("short")

    @tool
    def search(query: str) -> str:
        """Search."""
        stage.clock.advance(0.5)
        return query

    def short(state: State) -> State:
        both.wait(PATIENCE)
        stage.clock.advance(1.0)
        return {"seen": {"short"}}

    def long(state: State, config: RunnableConfig) -> State:
        both.wait(PATIENCE)
        assert ended.ended.wait(PATIENCE)
        search.invoke({"query": "x"}, config)
        return {"seen": {"long"}}

    def join(state: State) -> State:
        stage.clock.advance(0.25)
        return {"seen": {"join"}}

    graph = StateGraph(State)
    graph.add_node("short", short)
    graph.add_node("long", long)
    graph.add_node("join", join)
    graph.add_edge(START, "short")
    graph.add_edge(START, "long")
    graph.add_edge("short", "join")
    graph.add_edge("long", "join")
    graph.add_edge("join", END)
    result = graph.compile(name="agent").invoke(
        {"seen": set()}, {"callbacks": [stage.meter, ended]}
    )
    assert result["seen"] == {"short", "long", "join"}
    found = stage.found()
    assert shares(found) == {"long": 1.0, "search": 0.5, "join": 0.25, "short": 0.0}
    assert savings(found)["join"] == 0.125
    assert sum(shares(found).values()) == stage.meter.snapshot().pipeline_seconds
