"""How runs of real clients end, over loopback: outcomes, failures, what partial answers cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from langmeter import Meter, Snapshot
from langmeter.prices import PriceBook
from langmeter.testing import ManualClock
from langmeter.testing.simulator import Choice, Reply, Text, Thought
from langmeter.testing.simulator.server import Server

pytestmark = pytest.mark.clients

WORDS = ("one", " two", " three", " four", " five")
THOUGHTS = ("hm", " well")
USAGE = (1000, 5)
#: Provider → the requested name and the dated one of the reply.
NAMES = {
    "openai": ("gpt-4o", "gpt-4o-2024-08-06"),
    "anthropic": ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
}


THOUGHT = Thought(THOUGHTS)
TEXT = Text(WORDS)
#: Five words.
REPLY = Reply((Choice((TEXT,)),), input=USAGE[0], output=USAGE[1])
#: The same, after some reasoning.
REASONS = replace(REPLY, choices=(Choice((THOUGHT, TEXT)),))


def cut(after: int) -> Reply:
    """A stream whose connection breaks after as many words."""
    return replace(REPLY, fault="broken", cut=after)


def hang(after: int) -> Reply:
    """A stream that falls silent after as many words; after none, before the response begins."""
    return replace(REPLY, fault="stall", cut=after)


def refuse(status: int) -> Reply:
    """An error."""
    return Reply(status=status)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Round prices for both."""
    card = {"input": 1, "output": 10}
    names = (f"{provider}/{name}" for provider, names in NAMES.items() for name in names)
    return PriceBook(dict.fromkeys(names, card)).warm(wait=True)


def chat(service: Server, **kwargs: Any) -> Any:
    """Chat Completions."""
    base: dict[str, Any] = {"model": "gpt-4o", "api_key": "x", "max_retries": 0}
    base |= {"base_url": service.url, "stream_usage": True}
    return ChatOpenAI(**{**base, **kwargs})


def responses(service: Server, **kwargs: Any) -> Any:
    """The Responses API."""
    return chat(service, use_responses_api=True, **kwargs)


def claude(service: Server, **kwargs: Any) -> Any:
    """Anthropic's Messages."""
    base: dict[str, Any] = {"model": "claude-haiku-4-5", "api_key": "x", "max_retries": 0}
    return ChatAnthropic(**{**base, "base_url": service.root, **kwargs})


CLIENTS = pytest.mark.parametrize(
    "client", [chat, responses, claude], ids=["chat", "responses", "anthropic"]
)


def config(meter: Meter) -> dict[str, Any]:
    """Metered, with a label."""
    return {"callbacks": [meter], "metadata": {"team": "a"}}


def metered(book: PriceBook, **settings: Any) -> Meter:
    """With prices and a label."""
    return Meter(prices=book, labels=("team",), **settings)


def check(meter: Meter, **outcomes: int) -> Snapshot:
    """These outcomes and no others, of the calls, the label and the windows; nothing in flight."""
    snapshot = meter.snapshot()
    assert {name: n for name, n in snapshot.totals.outcomes.items() if n} == outcomes
    label = snapshot.labels["team", "a"]
    assert label.outcomes == snapshot.totals.outcomes
    assert label.tokens == snapshot.totals.tokens
    assert label.cost == snapshot.totals.cost
    assert (snapshot.in_flight, snapshot.dropped.get("hook_errors", 0)) == (0, 0)
    assert all(stats.in_flight == 0 for stats in snapshot.models.values())
    return snapshot


@CLIENTS
def test_invoke_and_stream_are_told_whole(client: Any, service: Server, book: PriceBook) -> None:
    """Both have the usage that the service sent, and its price; nothing is estimated."""
    service.script(REPLY)
    meter = metered(book)
    client(service).invoke("hi", config(meter))
    list(client(service).stream("hi", config(meter)))
    snapshot = check(meter, ok=2)
    totals = snapshot.totals
    assert (totals.tokens.input, totals.tokens.output) == (2 * USAGE[0], 2 * USAGE[1])
    assert (totals.tokens.estimated, totals.unpriced_calls) == (0, 0)
    assert totals.cost == 2 * Decimal("0.00105")
    assert (totals.streamed, totals.token_events) == (1, len(WORDS))
    assert snapshot.failures == {}
    assert snapshot.peak_in_flight == 1


@CLIENTS
@pytest.mark.parametrize("reasons", [False, True])
def test_both_ways_to_stream_give_the_same_figures(
    client: Any, reasons: bool, service: Server, book: PriceBook
) -> None:
    """`stream` and `stream_events(version="v3")`: token events, first token, gaps."""
    service.script(REASONS if reasons else REPLY)
    model = client(service)
    if reasons and client is chat:
        pytest.skip("Chat Completions show no reasoning")
    figures = []
    for version in ("v1", "v3"):
        meter = metered(book)
        if version == "v1":
            list(model.stream("hi", config(meter)))
        else:
            list(model.stream_events("hi", config(meter), version="v3"))
        totals = check(meter, ok=1).totals
        figures.append(
            (
                totals.streamed,
                totals.token_events,
                totals.tokens,
                totals.cost,
                totals.time_to_first_token.count,
                totals.time_to_first_visible_token.count,
                totals.inter_token_latency.count,
                totals.longest_gap.count,
                totals.stream_duration.count,
                totals.time_per_output_token.count,
            )
        )
    assert figures[0] == figures[1]
    assert figures[0][1] == len(WORDS) + reasons * len(THOUGHTS)
    assert figures[0][4:] == (1, 1, figures[0][1] - 1, 1, 1, 1)


@CLIENTS
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_refusal_has_its_class_and_status(
    client: Any, status: int, service: Server, book: PriceBook
) -> None:
    """It costs nothing, is in flight no more, and is told by model."""
    service.script(refuse(status))
    meter = metered(book)
    model = client(service)
    with pytest.raises(Exception, match=str(status)):
        model.invoke("hi", config(meter))
    with pytest.raises(Exception, match=str(status)) as caught:
        list(model.stream("hi", config(meter)))
    snapshot = check(meter, error=2)
    provider = "anthropic" if client is claude else "openai"
    asked = "claude-haiku-4-5" if client is claude else "gpt-4o"
    cause = f"{type(caught.value).__name__} {status}"
    assert snapshot.failures == {(f"{provider}/{asked}", cause): 2}
    assert snapshot.totals.tokens.total == 0
    assert not snapshot.totals.cost


@CLIENTS
def test_a_broken_stream_is_estimated_and_priced(
    client: Any, service: Server, book: PriceBook
) -> None:
    """What came is spent: its tokens are estimated and cost, under `error`."""
    service.script(cut(3))
    meter = metered(book)
    stream = client(service).stream("hi there, how are you", config(meter))
    got: list[Any] = []
    with pytest.raises(Exception, match=r".") as caught:
        got.extend(stream)
    assert "".join(chunk.text for chunk in got) == "one two three"
    snapshot = check(meter, error=1)
    totals = snapshot.totals
    ((_, how),) = snapshot.failures
    assert how == type(caught.value).__name__
    assert totals.token_events == 3
    assert 3 <= totals.tokens.output <= 12
    assert 0 < totals.tokens.estimated <= totals.tokens.total
    assert totals.cost_of("error") == totals.cost
    assert totals.cost is not None
    assert totals.cost > 0
    assert totals.cost_of("cancelled") == 0


@CLIENTS
def test_leaving_a_stream_is_cancelled_and_costs(
    client: Any, service: Server, book: PriceBook
) -> None:
    """`break`: what had come is estimated, and cost."""
    service.script(hang(2))
    meter = metered(book)
    for _ in range(2):
        stream = client(service).stream("hi", config(meter))
        for chunk in stream:
            if "two" in chunk.text:
                break
        stream.close()
    snapshot = check(meter, cancelled=2)
    totals = snapshot.totals
    assert totals.token_events == 4
    assert totals.tokens.estimated > 0
    assert totals.cost_of("cancelled") == totals.cost
    assert {how for _, how in snapshot.failures} == {"GeneratorExit"}


@CLIENTS
async def test_a_cancelled_astream(client: Any, service: Server, book: PriceBook) -> None:
    """The task's CancelledError, with what had come by then."""
    service.script(hang(2))
    meter = metered(book)
    begun = asyncio.Event()

    async def read() -> None:
        async for chunk in client(service).astream("hi", config(meter)):
            if "two" in chunk.text:
                begun.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(begun.wait(), 60)
    assert meter.performance.in_flight == meter.performance.peak_in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    snapshot = check(meter, cancelled=1)
    assert snapshot.totals.token_events == 2
    assert snapshot.totals.tokens.estimated > 0
    assert {how for _, how in snapshot.failures} == {"CancelledError"}


@CLIENTS
@pytest.mark.parametrize("chained", [False, True])
async def test_an_ainvoke_that_times_out(
    client: Any,
    chained: bool,
    service: Server,
    book: PriceBook,
) -> None:
    """No hook fires: abandoned at the end of the chain around it, else by age."""
    service.script(hang(0))
    clock = ManualClock()
    meter = metered(book) if chained else metered(book, clock=clock)
    model = client(service)
    runnable = RunnableLambda(lambda x: x) | model if chained else model
    task = asyncio.create_task(runnable.ainvoke("hi", config(meter)))
    while not meter.snapshot().in_flight:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if not chained:
        assert meter.snapshot().in_flight == 1
        clock.advance(3601)
    snapshot = check(meter, abandoned=1)
    assert snapshot.dropped == {"runs_orphaned" if chained else "runs_aged": 1}
    assert snapshot.totals.cost is None
    assert snapshot.totals.peak_in_flight == 1


@CLIENTS
def test_of_a_retry_each_attempt_is_a_call(client: Any, service: Server, book: PriceBook) -> None:
    """A failed one that is made good is recovered; what was made again is counted apart."""
    service.script(refuse(429), cut(2), REPLY)
    meter = metered(book)
    model = client(service, streaming=True).with_retry(
        wait_exponential_jitter=False, stop_after_attempt=3
    )
    assert model.invoke("hi", config(meter)).text == "".join(WORDS)
    totals = check(meter, error=2, ok=1).totals
    assert totals.recovered == 1
    assert totals.retried_calls == 2
    assert totals.retried_cost is not None
    assert totals.cost is not None
    assert Decimal("0.00105") <= totals.retried_cost <= totals.cost
    assert totals.cost_of("error") == totals.cost - Decimal("0.00105")


def test_a_fallback_recovers_a_failure(service: Server, book: PriceBook) -> None:
    """An error of the first model, an ok of the second, which made it good.

    In a chain: LangChain calls each model of a fallback as a child of the fallback's caller, and so
    without a parent where that is at the top: `RunnableWithFallbacks.invoke` passes its config on.
    """
    service.script(refuse(500), REPLY)
    meter = metered(book)
    model = RunnableLambda(lambda x: x) | chat(service).with_fallbacks([claude(service)])
    assert model.invoke("hi", config(meter)).text == "".join(WORDS)
    snapshot = check(meter, error=1, ok=1)
    assert snapshot.models["openai", "gpt-4o"].recovered == 1
    assert snapshot.models["anthropic", "claude-haiku-4-5-20251001"].recovered == 0
    assert snapshot.totals.retried_calls == 0
    ((who, how),) = snapshot.failures
    assert who == "openai/gpt-4o"
    assert how.endswith(" 500")


def test_a_failure_that_stays_one_is_not_recovered(service: Server, book: PriceBook) -> None:
    """Every attempt fails; calls without a parent have nothing to do with each other."""
    service.script(refuse(500))
    meter = metered(book)
    with pytest.raises(Exception, match="500"):
        chat(service).with_retry(wait_exponential_jitter=False, stop_after_attempt=2).invoke(
            "hi", config(meter)
        )
    service.script(REPLY)
    chat(service).invoke("hi", config(meter))
    assert check(meter, error=2, ok=1).totals.recovered == 0


@CLIENTS
def test_a_cache_hit_is_saved(client: Any, service: Server, book: PriceBook) -> None:
    """No spend, no latency, and its tokens among those saved."""
    service.script(REPLY)
    meter = metered(book)
    model = client(service, cache=InMemoryCache())
    for _ in range(3):
        model.invoke("hi", config(meter))
    totals = check(meter, ok=1, cache_hit=2).totals
    assert (totals.tokens.total, totals.tokens.saved) == (sum(USAGE), 2 * sum(USAGE))
    assert (totals.cost, totals.latency.count) == (Decimal("0.00105"), 1)


@CLIENTS
def test_another_handler_that_stops_a_call(client: Any, service: Server, book: PriceBook) -> None:
    """It raises in its start hook, after ours: the run ends with its chain, abandoned."""

    class Stops(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise PermissionError("not today")

    meter = metered(book)
    chain = RunnableLambda(lambda x: x) | client(service)
    with pytest.raises(PermissionError):
        chain.invoke("hi", {**config(meter), "callbacks": [meter, Stops()]})
    snapshot = check(meter, abandoned=1)
    assert snapshot.failures["chain RunnableSequence", "PermissionError"] == 1


@CLIENTS
def test_of_a_generate_one_fails(client: Any, service: Server, book: PriceBook) -> None:
    """`generate([a, b])` where a fails: one error; the other is abandoned by age."""
    service.script(refuse(500))
    clock = ManualClock()
    meter = metered(book, clock=clock)
    with pytest.raises(Exception, match="500"):
        client(service).generate(
            [[HumanMessage("a")], [HumanMessage("b")]], callbacks=[meter], metadata={"team": "a"}
        )
    clock.advance(3601)
    snapshot = meter.snapshot()
    assert snapshot.in_flight == 0
    assert snapshot.totals.calls == 2
    assert snapshot.totals.errors >= 1
    assert snapshot.labels["team", "a"].outcomes == snapshot.totals.outcomes


@CLIENTS
async def test_many_at_once(client: Any, service: Server, book: PriceBook) -> None:
    """Twenty streams interleaved: whole figures, a peak of some, and none left."""
    service.script(REPLY)
    meter = metered(book)
    model = client(service)

    async def one() -> None:
        async for _ in model.astream("hi", config(meter)):
            pass

    await asyncio.gather(*(one() for _ in range(20)))
    snapshot = check(meter, ok=20)
    assert snapshot.totals.token_events == 20 * len(WORDS)
    assert snapshot.totals.tokens.total == 20 * sum(USAGE)
    assert snapshot.totals.longest_gap.count == 20
    assert 2 <= snapshot.peak_in_flight <= 20
