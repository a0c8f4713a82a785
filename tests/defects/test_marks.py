"""Attempts that metadata marks, in chains, graphs and batches."""

from __future__ import annotations

import asyncio
import operator
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph

from langmeter import Meter, PriceBook
from langmeter.testing import ManualClock
from tests.support.repairs import PRICES, SMALL, failing, model, only, outcomes


class State(TypedDict):
    """What the graph keeps."""

    log: Annotated[list[Any], operator.add]


@tool
def search(query: str) -> str:
    """Search."""
    return query


def graph(llm: Runnable[Any, Any]) -> Any:
    """Two nodes that ask the model, one of which calls a tool."""

    def ask(state: State) -> dict[str, Any]:
        return {"log": [llm.invoke("q").content]}

    def look(state: State) -> dict[str, Any]:
        return {"log": [search.invoke({"query": "q"}), llm.invoke("q").content]}

    built = StateGraph(State)
    built.add_node("ask", ask)
    built.add_node("look", look)
    built.add_edge(START, "ask")
    built.add_edge("ask", "look")
    return built.compile()


@pytest.mark.parametrize("shape", ["model", "chain", "graph", "fallbacks"])
@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
async def test_metadata_marks_one_attempt_however_deep_the_calls_are(
    meter: Meter, shape: str, way: str
) -> None:
    """The outermost run that has `defect_id` is the attempt; below it LangChain hands it down."""
    llm = model()
    pipeline, calls, failed = {
        "model": (llm, 1, 0),
        "chain": (RunnableLambda(lambda q: q) | llm | (lambda m: m.content), 1, 0),
        "graph": (graph(llm), 2, 0),
        "fallbacks": ((failing(ValueError("down")) | llm).with_fallbacks([llm]), 1, 0),
    }[shape]
    given: Any = {"log": []} if shape == "graph" else "q"
    config: Any = {
        "callbacks": [meter],
        "metadata": {"defect_id": "D1", "type": "LEAK", "severity": "low", "number": 2},
    }
    if way == "invoke":
        pipeline.invoke(given, config=config)
    elif way == "stream":
        list(pipeline.stream(given, config=config))
    elif way == "ainvoke":
        await pipeline.ainvoke(given, config=config)
    else:
        async for _ in pipeline.astream(given, config=config):
            pass
    snapshot = meter.snapshot()
    assert list(snapshot.defects) == [("LEAK", "openai", "small", "low")]
    row = only(snapshot)
    assert (row.attempts, row.calls.calls, row.calls.errors) == (1, calls, failed)
    assert row.tool_calls == (1 if shape == "graph" else 0)
    # The second attempt at a defect that was first tried elsewhere.
    assert (row.defects, row.outcomes["unverified"]) == (0, 1)


def test_marks_of_a_batch_are_an_attempt_each(meter: Meter) -> None:
    """A batch whose inputs have one defect's metadata makes an attempt of each input."""
    chain = RunnableLambda(lambda q: q) | model()
    chain.batch(["a", "b", "c"], config={"callbacks": [meter], "metadata": {"defect_id": "D"}})
    row = only(meter.snapshot())
    assert (row.attempts, row.calls.calls, row.defects) == (3, 3, 1)


def test_other_keys_alone_mark_nothing_and_keys_can_be_renamed() -> None:
    """Without `defect_id` a `severity` in the metadata is some other program's."""
    from langmeter.defects import DefectOptions

    options = DefectOptions(keys={"defect_id": "bug", "type": "checker"})
    meter = Meter(prices=PriceBook(PRICES), defects=options)
    llm = model()
    for metadata in (
        {"type": "X", "severity": "high"},
        {"defect_id": "D"},
        {"bug": "D", "checker": "LEAK", "severity": 3},
    ):
        llm.invoke("q", config={"callbacks": [meter], "metadata": metadata})
    assert list(meter.snapshot().defects) == [("LEAK", "openai", "small", "3")]


def test_a_mark_in_a_block_of_the_same_defect_is_the_block_and_of_another_one_its_own(
    meter: Meter,
) -> None:
    """`defect_id` in the metadata and a block around it are one attempt if the ids agree."""
    llm = model()
    with meter.defects.attempt("D1", type="block"):
        for defect in ("D1", "D2"):
            metadata = {"defect_id": defect, "type": "mark"}
            llm.invoke("q", config={"callbacks": [meter], "metadata": metadata})
    calls = {key[0]: row.calls.calls for key, row in meter.snapshot().defects.items()}
    assert calls == {"block": 1, "mark": 1}


def test_a_parser_in_a_marked_chain_makes_it_unparsable(meter: Meter) -> None:
    """The answer came, so the call costs; it is a failure of the model."""
    chain = model(content="sorry, I cannot") | JsonOutputParser()
    with pytest.raises(OutputParserException):
        chain.invoke("q", config={"callbacks": [meter], "metadata": {"defect_id": "D"}})
    row = only(meter.snapshot())
    assert (outcomes(row), row.closed, row.cost, row.wasted) == (
        {"unparsable": 1},
        1,
        SMALL,
        SMALL,
    )
    assert (row.funnel["answered"], row.funnel["parsed"]) == (1, 0)


async def test_a_marked_run_that_a_timeout_cancels_is_closed_when_it_is_reaped() -> None:
    """LangChain sends no end of it; its calls count as they ended."""
    clock = ManualClock()
    meter = Meter(prices=PriceBook(PRICES), clock=clock, max_run_age=60)

    async def hang(message: Any) -> Any:
        await asyncio.Event().wait()

    chain = model() | RunnableLambda(hang)
    config: Any = {"callbacks": [meter], "metadata": {"defect_id": "D", "type": "T"}}
    task = asyncio.create_task(chain.ainvoke("q", config=config))
    while not meter.snapshot().totals.calls:
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    clock.advance(61)
    row = only(meter.snapshot())
    assert (outcomes(row), row.cost) == ({"infrastructure": 1}, SMALL)
