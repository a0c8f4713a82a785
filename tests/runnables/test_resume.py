"""`resume` around models of LangChain: what the caller sees, what is metered, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from functools import reduce
from operator import add
from typing import Any, ClassVar

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph

from langmeter import (
    Budget,
    BudgetExceeded,
    ConfigError,
    Meter,
    StreamDiverged,
    StreamTruncated,
    restart_of,
    resume,
)
from langmeter.testing.simulator import (
    MODELS,
    Choice,
    Reply,
    Simulator,
    Text,
    Thought,
    ToolUse,
)
from langmeter.testing.simulator.reply import Part
from langmeter.testing.simulator.server import Server

Script = list[Any]
BROKEN = ConnectionError("the line is dead")


class Scripted(BaseChatModel):
    """Streams the pieces of a script, one script a call; an exception among them is raised."""

    scripts: list[Script]
    calls: list[dict[str, Any]] = []  # noqa: RUF012 (pydantic copies it)
    closed: list[str] = []  # noqa: RUF012
    tools: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _next(self, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self.calls.append(kwargs)
        for piece in self.scripts.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            chunk = piece if isinstance(piece, AIMessageChunk) else AIMessageChunk(content=piece)
            yield ChatGenerationChunk(message=chunk)

    def _stream(self, *args: Any, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        try:
            for chunk in self._next(**kwargs):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except GeneratorExit:
            self.closed.append("sync")
            raise

    async def _astream(
        self, *args: Any, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            for chunk in self._next(**kwargs):
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
                await asyncio.sleep(0)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed.append("async")
            raise

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        text = "".join(chunk.text for chunk in self._next())
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self.bind(tools=tools, **kwargs)


class Recorder(BaseCallbackHandler):
    """Every start, end and event, as LangChain tells it."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.tags: list[list[str]] = []
        self.open: set[Any] = set()
        self.chains: dict[Any, str] = {}
        self.parents: list[str | None] = []
        self.metadata: list[dict[str, Any]] = []

    def on_chain_start(self, *args: Any, run_id: Any, name: str, **kwargs: Any) -> None:  # type: ignore[override]
        self.chains[run_id] = name
        self.open.add(run_id)

    def on_chain_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.open.remove(run_id)

    on_chain_error = on_chain_end

    def on_chat_model_start(  # type: ignore[override]
        self, *args: Any, run_id: Any, parent_run_id: Any, tags: list[str], metadata: Any, **kw: Any
    ) -> None:
        self.tags.append(tags)
        self.open.add(run_id)
        self.parents.append(self.chains.get(parent_run_id))
        self.metadata.append(metadata)

    def on_llm_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.open.remove(run_id)

    on_llm_error = on_llm_end

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))


def texts(chunks: list[Any]) -> list[str]:
    return [chunk.text for chunk in chunks if chunk.text]


async def collect(runnable: Runnable[Any, Any], how: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The chunks of a stream, sync or async."""
    if how == "stream":
        return list(runnable.stream(*args, **kwargs))
    return [chunk async for chunk in runnable.astream(*args, **kwargs)]


async def ask(runnable: Runnable[Any, Any], how: str, *args: Any, **kwargs: Any) -> Any:
    """A whole answer, sync or async."""
    if how == "invoke":
        return runnable.invoke(*args, **kwargs)
    return await runnable.ainvoke(*args, **kwargs)


BOTH = pytest.mark.parametrize("how", ["stream", "astream"])
WHOLE = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


# What the caller sees


@BOTH
async def test_a_broken_stream_goes_on_where_it_was(how: str) -> None:
    """The caller sees the answer once; the events report the restarts."""
    seen = Recorder()
    model = Scripted(scripts=[["Hel", "lo", BROKEN], ["He", BROKEN], ["H", "ello wo", "rld"]])
    out = await collect(resume(model), how, "hi", config={"callbacks": [seen]})
    assert texts(out) == ["Hel", "lo", " wo", "rld"]
    assert len({chunk.id for chunk in out}) == 1
    assert out[-1].chunk_position == "last"
    assert seen.events == [
        ("langmeter_restart", {"attempt": 2, "error": "ConnectionError"}),
        ("langmeter_restart", {"attempt": 3, "error": "ConnectionError"}),
    ]
    assert seen.open == set()


@BOTH
async def test_another_answer_is_signalled(how: str) -> None:
    """By a marker, then whole; and by an event."""
    seen = Recorder()
    model = Scripted(scripts=[["Hello", BROKEN], ["Good", " day"]])
    out = await collect(resume(model), how, "hi", config={"callbacks": [seen]})
    assert [chunk.content for chunk in out] == ["Hello", "", "Good", " day", ""]
    assert restart_of(out[1]) == (2, 5)
    assert seen.events[1] == ("langmeter_diverged", {"attempt": 2, "discarded_characters": 5})


@BOTH
async def test_another_answer_is_raised_where_asked(how: str) -> None:
    """`StreamDiverged` names the error that broke the first, and the stream is closed."""
    model = Scripted(scripts=[["Hello", BROKEN], ["Good", " day"]])
    chain = resume(model, on_restart="raise", restart_on=(Exception,))
    with pytest.raises(StreamDiverged) as caught:
        await collect(chain, how, "hi")
    assert caught.value.discarded_characters == 5
    assert caught.value.__cause__ is BROKEN
    assert len(model.calls) == 2
    assert model.closed == ["sync" if how == "stream" else "async"]


@BOTH
async def test_the_last_error_tells_of_the_earlier_ones(how: str) -> None:
    """Once the restarts are used up it is raised as it is, with notes and a cause."""
    errors = [ConnectionError("one"), TimeoutError("two"), httpx.ReadError("three")]
    model = Scripted(scripts=[["Hel", error] for error in errors])
    seen = Recorder()
    with pytest.raises(httpx.ReadError, match="three") as caught:
        await collect(resume(model), how, "hi", config={"callbacks": [seen]})
    assert caught.value.__notes__ == [
        "resume: attempt 1 broke: ConnectionError: one",
        "resume: attempt 2 broke: TimeoutError: two",
    ]
    assert caught.value.__cause__ is errors[1]
    assert seen.open == set()


@BOTH
async def test_nothing_starts_again_before_the_first_chunk(how: str) -> None:
    """That is the client's business and `with_retry`'s, unless asked for."""
    scripts: list[list[Any]] = [[BROKEN], ["a"]]
    with pytest.raises(ConnectionError):
        await collect(resume(Scripted(scripts=[*scripts])), how, "hi")
    out = await collect(resume(Scripted(scripts=[*scripts]), retry_start=True), how, "hi")
    assert texts(out) == ["a"]


@BOTH
async def test_no_restarts_is_a_choice(how: str) -> None:
    """`max_restarts=0` lets every error through, untouched."""
    error = ConnectionError("x")
    with pytest.raises(ConnectionError) as caught:
        await collect(resume(Scripted(scripts=[["a", error]]), max_restarts=0), how, "hi")
    assert not hasattr(caught.value, "__notes__")


class RemoteAPIError(Exception):
    """As a client names it: known by the name of a base class."""

    def __init__(self, status_code: int | None = None, code: Any = None) -> None:
        self.status_code, self.code = status_code, code


RemoteAPIError.__name__ = "APIError"


@pytest.mark.parametrize(
    ("error", "restarts"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncio.IncompleteReadError(b"", 1), True),
        (httpx.RemoteProtocolError("peer closed"), True),
        (httpx.ReadTimeout("slow"), True),
        (RemoteAPIError(), True),
        (RemoteAPIError(200), True),
        (RemoteAPIError(503), True),
        (RemoteAPIError(429), True),
        (RemoteAPIError(code=500), True),
        (RemoteAPIError(code="server_error"), True),
        (RemoteAPIError(400), False),
        (RemoteAPIError(code=404), False),
        (ValueError("a bug"), False),
        (OSError("disk full"), False),
        (GraphInterrupt(), False),
        (BudgetExceeded("b", {}, "usd", 1, 1, 0, None), False),
    ],
    ids=repr,
)
def test_only_broken_streams_start_again(error: Exception, restarts: bool) -> None:
    """Errors of connections and of services in trouble; no bugs, refusals or control flow."""
    model = Scripted(scripts=[["a", error], ["ab"]])
    stream = resume(model).stream("hi")
    if restarts:
        assert texts(list(stream)) == ["a", "b"]
    else:
        with pytest.raises(type(error)):
            list(stream)


@pytest.mark.parametrize(
    "restart_on", [ValueError, (KeyError, ValueError), lambda error: "bug" in str(error)]
)
def test_what_starts_again_can_be_chosen(restart_on: Any) -> None:
    """By classes or by a function, in place of the default."""
    chain = resume(Scripted(scripts=[["a", ValueError("bug")], ["ab"]]), restart_on=restart_on)
    assert texts(list(chain.stream("hi"))) == ["a", "b"]
    chain = resume(Scripted(scripts=[["a", BROKEN], ["ab"]]), restart_on=restart_on)
    with pytest.raises(ConnectionError):
        list(chain.stream("hi"))


@pytest.mark.parametrize("error", [GraphInterrupt(), BudgetExceeded("b", {}, "usd", 1, 1, 0, None)])
def test_control_flow_never_starts_again(error: Exception) -> None:
    """Not even where every exception is asked for."""
    chain = resume(Scripted(scripts=[["a", error], ["ab"]]), restart_on=(Exception,))
    with pytest.raises(type(error)):
        list(chain.stream("hi"))


def test_what_a_consumer_throws_in_is_no_broken_stream() -> None:
    """An exception thrown into the generator comes out again, and the model's stream is closed."""
    model = Scripted(scripts=[["a", "b"], ["a", "b"]])
    stream: Any = resume(model).stream("hi")
    next(stream)
    with pytest.raises(ConnectionError):
        stream.throw(ConnectionError("mine"))
    assert (len(model.calls), model.closed) == (1, ["sync"])


@BOTH
async def test_it_waits_before_a_restart(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many seconds as asked, or as a function of the coming attempt says."""
    waited: list[float] = []
    here, pause, async_pause = threading.get_ident(), time.sleep, asyncio.sleep

    def is_ours(seconds: float) -> bool:
        # Servers of other tests sleep in threads of their own.
        ours = threading.get_ident() == here
        if ours and seconds:
            waited.append(seconds)
        return ours

    async def sleep(seconds: float) -> None:
        await async_pause(0 if is_ours(seconds) else seconds)

    monkeypatch.setattr("time.sleep", lambda seconds: is_ours(seconds) or pause(seconds))
    monkeypatch.setattr("asyncio.sleep", sleep)
    scripts: list[list[Any]] = [["a", BROKEN], ["a", BROKEN], ["ab"]]
    await collect(resume(Scripted(scripts=[*scripts]), wait=0.5), how, "hi")
    await collect(resume(Scripted(scripts=[*scripts]), wait=lambda n: 2.0**n), how, "hi")
    assert waited == [0.5, 0.5, 4.0, 8.0]
    chain = resume(Scripted(scripts=[*scripts]), wait=lambda n: -1.0)
    with pytest.raises(ConfigError, match=r"wait must be seconds from 0 up, got -1.0"):
        await collect(chain, how, "hi")


# Whole answers


@WHOLE
async def test_an_answer_that_broke_inside_is_asked_for_again(how: str) -> None:
    """A model that streams when invoked, as in most graphs; nothing needs to be compared."""
    model = Scripted(scripts=[["Hel", BROKEN], ["Hi"]])
    seen = Recorder()
    answer = await ask(resume(model), how, "hi", config={"callbacks": [seen]}, stream=True)
    assert answer.content == "Hi"
    assert seen.events == [("langmeter_restart", {"attempt": 2, "error": "ConnectionError"})]
    assert [tag for tags in seen.tags for tag in tags] == ["retry:attempt:2"]
    assert seen.open == set()


@WHOLE
async def test_an_answer_that_never_began_is_not_asked_for_again(how: str) -> None:
    """As with streams; unless asked for, then with the pause asked for."""
    with pytest.raises(ConnectionError):
        await ask(resume(Scripted(scripts=[[BROKEN], ["a"]])), how, "hi")
    chain = resume(Scripted(scripts=[[BROKEN], ["a"]]), retry_start=True, wait=1e-9)
    assert (await ask(chain, how, "hi")).content == "a"


async def test_batches_are_resumed_one_by_one() -> None:
    """`batch` and `abatch` are so many calls."""
    chain = resume(Scripted(scripts=[["a", BROKEN], ["b"], ["c"]]))
    answers = chain.batch(["x", "y"], config={"max_concurrency": 1}, stream=True)
    assert [answer.content for answer in answers] == ["b", "c"]
    chain = resume(Scripted(scripts=[["a", BROKEN], ["b"]]))
    assert [answer.content for answer in await chain.abatch(["x"], stream=True)] == ["b"]


# As a runnable


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


# How it is metered


@BOTH
async def test_it_is_metered_as_one_call_with_its_attempts(how: str) -> None:
    """One run "resume"; under it each attempt is a model call, the later ones tagged as retries."""
    meter, seen = Meter(), Recorder()
    model = Scripted(scripts=[["Hel", BROKEN], ["He", BROKEN], ["Hello"]])
    await collect(resume(model), how, "hi", config={"callbacks": [meter, seen]})
    snapshot = meter.snapshot()
    outcomes = {name: n for name, n in snapshot.totals.outcomes.items() if n}
    assert outcomes == {"error": 2, "ok": 1}
    assert snapshot.components["chain", "resume"].outcomes["ok"] == 1
    assert snapshot.totals.streamed == 3
    assert snapshot.in_flight == 0
    assert seen.tags == [[], ["retry:attempt:2"], ["retry:attempt:3"]]
    assert seen.parents == ["resume"] * 3


@BOTH
async def test_a_budget_that_refuses_the_restart_ends_it(how: str) -> None:
    """`BudgetExceeded` passes, and names the break before it."""
    second = {"tag": "retry:attempt:2"}
    meter = Meter(budgets=[Budget(tokens=1, scope=second, action="block")])
    model = Scripted(scripts=[["Hel", BROKEN], ["Hello"]])
    with pytest.raises(BudgetExceeded) as caught:
        await collect(resume(model), how, "hi", config={"callbacks": [meter]})
    assert caught.value.__cause__ is BROKEN
    assert caught.value.__notes__ == ["resume: attempt 1 broke: ConnectionError: the line is dead"]
    assert len(model.calls) == 1


# How it is given up


def test_leaving_a_stream_closes_the_models() -> None:
    """`close()` reaches the model, whose call is metered as cancelled; nothing starts again."""
    meter = Meter()
    model = Scripted(scripts=[["Hel", BROKEN], ["H", "ell", "o"]])
    stream: Any = resume(model).stream("hi", config={"callbacks": [meter]})
    assert [next(stream).text, next(stream).text] == ["Hel", "l"]
    stream.close()
    assert (len(model.calls), model.closed) == (2, ["sync"])
    assert meter.snapshot().totals.outcomes["cancelled"] == 1
    assert meter.snapshot().in_flight == 0


async def test_leaving_an_async_stream_closes_the_models() -> None:
    """`aclose()` does, before it returns."""
    meter = Meter()
    model = Scripted(scripts=[["Hel", BROKEN], ["H", "ell", "o"]])
    stream: Any = resume(model).astream("hi", config={"callbacks": [meter]})
    assert [(await anext(stream)).text, (await anext(stream)).text] == ["Hel", "l"]
    await stream.aclose()
    assert (len(model.calls), model.closed) == (2, ["async"])
    assert meter.snapshot().totals.outcomes["cancelled"] == 1
    assert meter.snapshot().in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("where", ["stream", "wait"])
async def test_cancelling_ends_it(where: str) -> None:
    """In the middle of a stream or of a pause: the error passes, no task is left behind."""
    begun = asyncio.Event()

    class Slow(Scripted):
        async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                if where == "stream":
                    begun.set()
                    await asyncio.Event().wait()

    def pause(attempt: int) -> float:
        begun.set()
        return 3600.0

    model = Slow(scripts=[["a", BROKEN], ["ab"]])
    meter = Meter()
    chain = resume(model, wait=pause, restart_on=lambda error: True)
    task = asyncio.create_task(collect(chain, "astream", "hi", config={"callbacks": [meter]}))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(model.calls) == 1
    assert meter.snapshot().in_flight == 0
    assert meter.snapshot().components["chain", "resume"].outcomes["cancelled"] == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


@BOTH
async def test_nothing_outlives_the_stream(how: str) -> None:
    """Not the chunks, and not the errors' frames: no cycle waits for the garbage collector."""

    class Piece(AIMessageChunk):
        pass

    first = Piece(content="Hel")
    gone = weakref.ref(first)
    model = Scripted(scripts=[[first, ConnectionError("x")], ["Hello"]])
    del first
    gc.collect()
    gc.disable()
    try:
        assert "".join(texts(await collect(resume(model), how, "hi"))) == "Hello"
        assert gone() is None
    finally:
        gc.enable()


# Real clients

HELLO = Text(("Hel", "lo"))


def reply(*parts: Part, id: str = "r-2", cut: int | None = None, **more: Any) -> Reply:
    """A reply of 14 tokens; with `cut` it breaks after as many pieces."""
    faults: dict[str, Any] = {} if cut is None else {"fault": "broken", "cut": cut}
    return Reply((Choice(parts),), **{"input": 5, "output": 9, "id": id, **faults, **more})


def chat_openai(service: Server | Simulator, **settings: Any) -> ChatOpenAI:
    keys: Any = {"api_key": "x", "stream_usage": True, "max_retries": 0, **settings}
    return ChatOpenAI(model="gpt-4o-mini", base_url=service.url, **keys)


@BOTH
async def test_chat_openai_goes_on(how: str, service: Server) -> None:
    """Text in other chunks, a tool call under another id: the message is whole, its usage too."""
    service.script(
        reply(Text(("Let me", " look.")), ToolUse("call-1", "w", ('{"ci',)), id="r-1", cut=3),
        reply(Text(("Let me look.",)), ToolUse("call-2", "w", ("", '{"city": ', '"Oslo"}'))),
    )
    meter = Meter()
    out = await collect(resume(chat_openai(service)), how, "hi", config={"callbacks": [meter]})
    total = reduce(add, out)
    assert total.text == "Let me look."
    assert [(each["name"], each["args"], each["id"]) for each in total.tool_calls] == [
        ("w", {"city": "Oslo"}, "call-1")
    ]
    assert total.id == "r-1" or total.id.startswith("lc_run")
    assert total.usage_metadata["total_tokens"] == 14
    assert total.response_metadata["finish_reason"] == "tool_calls"
    assert total.response_metadata["model_name"] == MODELS["gpt-4o-mini"]
    assert meter.snapshot().totals.outcomes["ok"] == 1
    assert meter.snapshot().totals.outcomes["error"] == 1
    tokens = meter.snapshot().totals.tokens
    assert (tokens.total - tokens.estimated, tokens.estimated > 0) == (14, True)


@BOTH
@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_an_error_in_the_middle_of_a_stream_starts_again(
    api: str, how: str, service: Server
) -> None:
    """Providers send one as an event, with the status 200 of the response."""
    service.script(reply(HELLO, cut=1, fault="error_event"), reply(HELLO))
    model = chat_openai(service) if api == "openai" else chat_anthropic(service)
    assert texts(await collect(resume(model), how, "hi")) == ["Hel", "lo"]


@BOTH
async def test_a_stream_that_just_ends_starts_again_where_asked(how: str, service: Server) -> None:
    """A proxy that closes politely: without `require_finish` the answer counts as whole."""
    cut, full = reply(HELLO, cut=1, fault="truncated"), reply(HELLO)
    service.script(cut, cut, full, cut)
    model = chat_openai(service)
    assert texts(await collect(resume(model), how, "hi")) == ["Hel"]
    out = await collect(resume(model, require_finish=True), how, "hi")
    assert texts(out) == ["Hel", "lo"]
    assert [chunk.chunk_position for chunk in out if chunk.chunk_position] == ["last"]
    with pytest.raises(StreamTruncated):
        await collect(resume(model, require_finish=True, max_restarts=0), how, "hi")


def chat_anthropic(service: Server, **settings: Any) -> Any:
    # Its client takes 3 s of CPU to import, and `make quick` needs none.
    from langchain_anthropic import ChatAnthropic

    made: Any = ChatAnthropic
    return made(
        model="claude-in-a-test",
        base_url=service.root,
        api_key="x",
        max_retries=0,
        max_tokens=1024,
        **settings,
    )


@BOTH
async def test_chat_anthropic_goes_on(how: str, service: Server) -> None:
    """Thinking, its signature, text and tool input, each cut up otherwise the second time."""
    first = reply(
        Thought(("Let", " me"), "s1"),
        Text(("I loo", "k")),
        ToolUse("t-1", "w", ('{"ci', "")),
        cut=5,
    )
    second = reply(
        Thought(("Let me",), "s2"),
        Text(("I", " look")),
        ToolUse("t-2", "w", ('{"city": "Os', 'lo"}')),
        input=8,
        cache_read=3,
    )
    service.script(first, second)
    model = chat_anthropic(service, thinking={"type": "enabled", "budget_tokens": 1024})
    out = await collect(resume(model), how, "hi")
    straight = reduce(add, model.stream("hi"))
    total = reduce(add, out)

    def plain(message: Any) -> Any:
        made_up = {"id", "signature"}
        return [{k: v for k, v in block.items() if k not in made_up} for block in message.content]

    assert plain(total) == plain(straight)
    assert [block.get("signature") for block in total.content] == ["s1", None, None]
    assert [(each["args"], each["id"]) for each in total.tool_calls] == [({"city": "Oslo"}, "t-1")]
    assert total.usage_metadata == straight.usage_metadata
    assert total.response_metadata == straight.response_metadata
    assert [chunk for chunk in out if restart_of(chunk)] == []


@pytest.mark.process
@BOTH
async def test_the_simulators_broken_streams_are_whole(how: str) -> None:
    """Most streams break somewhere: each caller sees one whole answer, its books every attempt."""
    sizes: Any = {"output_tokens": (12.0, 0.0), "rate_limited": 0.0, "server_error": 0.0}
    meter = Meter()
    restarts = 0
    with Simulator(3, speed=float("inf"), broken=0.6, **sizes) as service:
        chain = resume(chat_openai(service), max_restarts=50)
        for number in range(8):
            seen = Recorder()
            out = await collect(chain, how, f"{number}", config={"callbacks": [meter, seen]})
            total = reduce(add, out)
            assert len(total.text.split()) == 12
            assert total.usage_metadata["output_tokens"] == 12
            assert seen.open == set()
            restarts += len(seen.events)
    books = service.truth()
    assert restarts == books.sent("broken").calls > 0
    outcomes = meter.snapshot().totals.outcomes
    assert (outcomes["ok"], outcomes["error"]) == (8, restarts)
    assert books.sent("ok").calls == 8


def test_with_retry_does_not_do_this() -> None:
    """LangChain's own leaves streams alone; around an `invoke` the two agree on the tags."""
    with pytest.raises(ConnectionError):
        list(Scripted(scripts=[["a", BROKEN], ["ab"]]).with_retry().stream("hi"))
    tags = []
    for wrap in (lambda m: m.with_retry(wait_exponential_jitter=False), resume):
        seen = Recorder()
        model = Scripted(scripts=[["a", BROKEN], ["ab"]])
        wrap(model).invoke("hi", config={"callbacks": [seen]}, stream=True)
        tags.append(seen.tags)
    assert tags[0] == tags[1] == [[], ["retry:attempt:2"]]


def test_a_lambda_that_gives_back_a_model_is_a_stream_too() -> None:
    """What LangChain streams through, `resume` does."""
    model = Scripted(scripts=[["a", BROKEN], ["ab"]])
    assert texts(list(resume(RunnableLambda(lambda _: model)).stream("hi"))) == ["a", "b"]
