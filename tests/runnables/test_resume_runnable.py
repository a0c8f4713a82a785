"""A resumed model is a runnable: chains, tools, events, graphs, settings."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, MessagesState, StateGraph

from langmeter import ConfigError, restart_of, resume
from tests.support.scripted import BOTH, BROKEN, Recorder, Scripted, collect, texts


@BOTH
async def test_it_is_a_runnable_like_any_other(how: str) -> None:
    """Pipes, `bind`, `with_config`, tags, metadata and names reach the model."""
    seen = Recorder()
    model = Scripted(scripts=[["Hel", BROKEN], ["Hello"]])
    bound = resume(model).bind(stop=["x"], kept=1).with_config(run_name="mine", tags=["t"])
    chain = ChatPromptTemplate.from_template("{q}") | bound | StrOutputParser()
    config: Any = {"callbacks": [seen], "metadata": {"user": "u"}}
    out = await collect(chain, how, {"q": "hi"}, config=config)
    assert "".join(out) == "Hello"
    assert [call["kept"] for call in model.calls] == [1, 1]
    assert seen.tags == [["t"], ["retry:attempt:2", "t"]]
    assert {metadata["user"] for metadata in seen.metadata} == {"u"}
    assert seen.parents == ["mine", "mine"]


def test_it_names_itself_and_shows_what_it_wraps() -> None:
    """Types and schemas are the model's; its run is "resume"."""
    model = Scripted(scripts=[["a"]])
    chain = resume(model)
    assert (chain.InputType, chain.OutputType) == (model.InputType, model.OutputType)
    assert chain.get_input_schema().model_json_schema()  # type: ignore[union-attr]
    assert chain.config_specs == model.config_specs
    assert repr(chain) == f"resume({model!r})"
    seen = Recorder()
    list(chain.stream("hi", config={"callbacks": [seen]}))
    assert seen.parents == ["resume"]


def test_tools_are_bound_to_the_model_inside() -> None:
    """`bind_tools` gives the resumed model with tools."""
    model = Scripted(scripts=[["a", BROKEN], ["ab"]])
    chain = resume(model, max_restarts=1).bind_tools([{"name": "f"}], tool_choice="any")
    assert texts(list(chain.stream("hi"))) == ["a", "b"]
    assert model.calls[1] == {"tools": [{"name": "f"}], "tool_choice": "any", "stop": None}


@BOTH
async def test_streams_of_text_are_joined_too(how: str) -> None:
    """Text models, and a chain that ends in a parser of text; its marker is an empty str."""
    assert await collect(resume(FakeStreamingListLLM(responses=["ab"])), how, "x") == ["a", "b"]
    model = Scripted(scripts=[["Hello", BROKEN], ["Hello", " you"]])
    out = await collect(resume(model | StrOutputParser()), how, "hi")
    assert "".join(out) == "Hello you"
    model = Scripted(scripts=[["Hello", BROKEN], ["Bye"]])
    out = await collect(resume(model | StrOutputParser()), how, "hi")
    (mark,) = (place for place, chunk in enumerate(out) if restart_of(chunk))
    assert ("".join(out[:mark]), "".join(out[mark:])) == ("Hello", "Bye")


@BOTH
async def test_other_streams_are_refused_at_once(how: str) -> None:
    """A parser that streams dicts: resume belongs before it, and says so. Nothing starts again."""
    model = Scripted(scripts=[['{"a": 1}', "x"]])
    chain = resume(model | JsonOutputParser(), restart_on=(Exception,))
    with pytest.raises(TypeError, match="not of dict; put it around the model"):
        await collect(chain, how, "hi")
    assert len(model.calls) == 1


async def test_plain_iterators_will_do() -> None:
    """A runnable of one's own need not stream through generators."""

    class Own(Runnable[Any, Any]):
        def invoke(self, *args: Any, **kwargs: Any) -> Any: ...

        def stream(self, *args: Any, **kwargs: Any) -> Any:
            return iter(["a", "b"])

        def astream(self, *args: Any, **kwargs: Any) -> Any:
            class Chunks:
                left: ClassVar = ["a", "b"]

                def __aiter__(self) -> Any:
                    return self

                async def __anext__(self) -> str:
                    if not self.left:
                        raise StopAsyncIteration
                    return self.left.pop(0)

            return Chunks()

    assert list(resume(Own()).stream("x")) == ["a", "b"]
    assert [chunk async for chunk in resume(Own()).astream("x")] == ["a", "b"]


async def test_events_of_version_2_show_what_is_handed_on() -> None:
    """`on_chain_stream` of "resume" has the answer once; the model's own events have each try."""
    model = Scripted(scripts=[["Hel", BROKEN], ["H", "ello"]])
    events = [event async for event in resume(model).astream_events("hi", version="v2")]

    def said(kind: str, name: str) -> str:
        found = (e["data"]["chunk"].text for e in events if (e["event"], e["name"]) == (kind, name))
        return "".join(found)

    assert said("on_chain_stream", "resume") == "Hello"
    assert said("on_chat_model_stream", "Scripted") == "HelHello"
    assert [event["event"] for event in events if event["name"] == "langmeter_restart"] == [
        "on_custom_event"
    ]


async def test_events_of_version_3_are_refused() -> None:
    """They would come from the model itself, past the joining: LangChain's own refusal says so."""
    chain = resume(Scripted(scripts=[["a"]]))
    with pytest.raises(NotImplementedError, match="Got: Resumed"):
        chain.stream_events("hi", version="v3")
    with pytest.raises(NotImplementedError, match="Got: Resumed"):
        await chain.astream_events("hi", version="v3")


async def test_a_graph_streams_through_it() -> None:
    """A LangGraph node whose model breaks inside an `invoke` gives its answer all the same."""
    model = resume(Scripted(scripts=[["Hel", BROKEN], ["Hello"]]))

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    stream = graph.compile().astream(
        {"messages": [("user", "hi")]}, stream_mode=["messages", "values"]
    )
    *_, (mode, last) = [each async for each in stream]
    assert mode == "values"
    assert last["messages"][-1].content == "Hello"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_restarts": -1}, r"max_restarts must be a whole number from 0 up, got -1"),
        ({"max_restarts": True}, r"max_restarts must be .* got True"),
        ({"max_restarts": 1.5}, r"max_restarts must be .* got 1.5"),
        ({"on_restart": "ignore"}, r'on_restart = \'ignore\': must be "signal" or "raise"'),
        ({"restart_on": "APIError"}, r"restart_on = 'APIError': must be a tuple of exception"),
        ({"restart_on": ("x",)}, r"restart_on = \('x',\): must be"),
        ({"wait": -1}, r"wait must be seconds from 0 up, got -1"),
        ({"wait": float("inf")}, r"wait must be seconds from 0 up, got inf"),
        ({"wait": "1"}, r"wait must be seconds from 0 up, got '1'"),
    ],
)
def test_bad_settings_are_named(settings: Any, says: str) -> None:
    """At once, with the value and what it may be."""
    with pytest.raises(ConfigError, match=says):
        resume(Scripted(scripts=[]), **settings)


def test_only_runnables_are_wrapped() -> None:
    """A function is told how it becomes one."""
    with pytest.raises(TypeError, match=r"Runnable, got .*; a function becomes one by"):
        resume(print)  # type: ignore[arg-type]
