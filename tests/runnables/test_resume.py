"""`resume`: what starts again, what the caller sees, how it ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.errors import GraphInterrupt

from langmeter import Budget, BudgetExceeded, ConfigError, Meter, StreamDiverged, restart_of, resume
from tests.support.scripted import BOTH, BROKEN, Recorder, Scripted, collect, texts


async def ask(runnable: Runnable[Any, Any], how: str, *args: Any, **kwargs: Any) -> Any:
    """A whole answer, sync or async."""
    if how == "invoke":
        return runnable.invoke(*args, **kwargs)
    return await runnable.ainvoke(*args, **kwargs)


WHOLE = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


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
