"""Real clients against aimock: what the peer's journal says it sent is what the meter counted."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from langmeter import Meter, Snapshot
from langmeter.testing import ManualClock
from tests.e2e.peer import FIRST_MS, LONG, MODELS, PER_SECOND, PIECE, QUESTIONS, Peer

pytestmark = pytest.mark.e2e


OPTIONS = {"api_key": "x", "max_retries": 0, "model": "asked"}


def openai(base: str, **settings: Any) -> Callable[..., ChatOpenAI]:
    """Make clients of the OpenAI protocol, which report the usage of streams only when asked."""

    def client(peer: Peer, headers: dict[str, str], **more: Any) -> ChatOpenAI:
        more = {**OPTIONS, "stream_usage": True, **settings, **more}
        return ChatOpenAI(base_url=peer.url + base, default_headers=headers, **more)

    return client


def anthropic(peer: Peer, headers: dict[str, str], **more: Any) -> ChatAnthropic:
    """Make a client of the Anthropic protocol."""
    return ChatAnthropic(base_url=peer.url, default_headers=headers, **{**OPTIONS, **more})


CLIENTS: dict[str, Callable[..., Any]] = {
    "chat": openai("/v1", use_responses_api=False),
    "responses": openai("/v1", use_responses_api=True),
    "openrouter": openai("/api/v1", use_responses_api=False),
    "anthropic": anthropic,
}
MODES = ("invoke", "ainvoke", "stream", "astream")

clients = pytest.mark.parametrize("client", CLIENTS)
modes = pytest.mark.parametrize("mode", MODES)
streams = pytest.mark.parametrize("mode", ["stream", "astream"])


def model(client: str, peer: Peer, faults: dict[str, int] | None = None, **more: Any) -> Any:
    """A chat model of this kind that talks to the peer."""
    return CLIENTS[client](peer, peer.headers(**(faults or {})), **more)


def models(client: str, peer: Peer) -> list[Any]:
    """A chat model for each model of the peer, which answers under another name than asked."""
    return [model(client, peer, model=f"asked-{n}") for n in range(MODELS)]


async def ask(runnable: Any, mode: str, prompt: str, meter: Meter) -> Any:
    """Ask in this mode; returns the answer, of a stream the sum of its chunks."""
    config = {"callbacks": [meter]}
    if mode == "invoke":
        return runnable.invoke(prompt, config)
    if mode == "ainvoke":
        return await runnable.ainvoke(prompt, config)
    if mode == "stream":
        chunks = list(runnable.stream(prompt, config))
    else:
        chunks = [chunk async for chunk in runnable.astream(prompt, config)]
    return sum(chunks[1:], chunks[0])


def sent(peer: Peer, *, told_input: bool = True) -> dict[tuple[str, str], Counter[str]]:
    """What the peer sent in whole answers, by provider and model.

    `told_input` is False where the client keeps the input tokens of Anthropic streams to itself.
    """
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entry in peer.journal():
        served = entry["response"]
        if served["status"] != 200 or served.get("interrupted"):
            continue
        answer, path = served["fixture"]["response"], entry["path"]
        usage = answer["usage"]
        lost = path == "/v1/messages" and entry["body"].get("stream") and not told_input
        figures = Counter(
            calls=1,
            input=0 if lost else usage["prompt_tokens"],
            output=usage["completion_tokens"],
        )
        figures["total"] = figures["input"] + figures["output"]
        if path.startswith("/api/"):  # the only dialect in which the peer sends details
            figures["cache_read"] = usage["prompt_tokens_details"]["cached_tokens"]
            figures["reasoning"] = usage["completion_tokens_details"]["reasoning_tokens"]
        sums["anthropic" if path == "/v1/messages" else "openai", answer["model"]] += figures
    return dict(sums)


def counted(snapshot: Snapshot, *, told_input: bool = True) -> dict[tuple[str, str], Counter[str]]:
    """The same of a snapshot, without models that sent nothing, and without what is estimated.

    Where the input is not told, it alone is estimated.
    """
    figures = {}
    for key, stats in snapshot.models.items():
        tokens = stats.tokens
        names = ("input", "output", "total", "cache_read", "reasoning")
        counts = {"calls": stats.outcomes["ok"]} | {name: getattr(tokens, name) for name in names}
        if not told_input:
            counts["input"] -= tokens.estimated
            counts["total"] -= tokens.estimated
        figures[key] = +Counter(counts)
    return {key: figure for key, figure in figures.items() if figure}


def outcomes(snapshot: Snapshot) -> dict[str, int]:
    """How calls ended."""
    return {name: n for name, n in snapshot.totals.outcomes.items() if n}


def tells_input(answer: Any) -> bool:
    """Whether the client passed on the input tokens of this answer.

    langchain-anthropic takes usage from the end of a stream alone, where the API repeats the input
    tokens and the peer does not: no handler can see them.
    """
    return bool(answer.usage_metadata["input_tokens"])


@clients
@modes
async def test_every_number_of_an_answer_is_exact(client: str, mode: str, peer: Peer) -> None:
    """Tokens of each model, as its response names it, in every client and mode."""
    meter = Meter()
    chats = models(client, peer)
    told = True
    for n in range(6):
        told &= tells_input(await ask(chats[n % MODELS], mode, f"question {n:03}", meter))
    snapshot = meter.snapshot()
    assert told or (client == "anthropic" and "stream" in mode)
    assert counted(snapshot, told_input=told) == sent(peer, told_input=told)
    assert sum(figures["calls"] for figures in sent(peer).values()) == 6
    assert bool(snapshot.totals.tokens.estimated) is not told
    assert not snapshot.dropped
    assert snapshot.in_flight == 0


async def test_one_meter_for_all_clients_at_once_is_exact(peer: Peer) -> None:
    """Every client, streamed and not, all in flight together: the sums of each model are exact."""
    meter = Meter()
    limit = asyncio.Semaphore(32)

    async def one(client: str, mode: str, n: int) -> bool:
        async with limit:
            chat = chats[client][n % MODELS]
            return tells_input(await ask(chat, mode, f"question {n:03}", meter))

    chats = {client: models(client, peer) for client in CLIENTS}
    asked = [
        (client, mode, n)
        for n in range(QUESTIONS)
        for client in CLIENTS
        for mode in ("ainvoke", "astream")
    ]
    told = all(await asyncio.gather(*(one(*question) for question in asked)))
    snapshot = meter.snapshot()
    assert snapshot.totals.calls == len(asked) == len(peer.journal())
    assert counted(snapshot, told_input=told) == sent(peer, told_input=told)
    assert len(snapshot.models) == 2 * MODELS
    assert outcomes(snapshot) == {"ok": len(asked)}
    assert not snapshot.dropped
    for stats in snapshot.models.values():
        assert stats.time_to_first_token.count == stats.streamed > 0
        assert stats.inter_token_latency.count == stats.token_events - stats.streamed


@clients
async def test_one_name_that_many_models_answer(client: str, peer: Peer) -> None:
    """As behind a router: the numbers of each are exact, gaps of the wrong model are said so."""
    meter = Meter()
    chat = model(client, peer)
    told = True
    for n in range(MODELS):
        told &= tells_input(await ask(chat, "astream", f"question {n:03}", meter))
    snapshot = meter.snapshot()
    assert counted(snapshot, told_input=told) == sent(peer, told_input=told)
    stats = snapshot.totals
    assert stats.inter_token_latency.count == stats.token_events - stats.streamed
    assert set(snapshot.dropped) <= {"gaps_mislaid"}


@clients
@streams
async def test_a_stream_has_its_first_token_and_its_gaps(
    client: str, mode: str, peer: Peer
) -> None:
    """A token event for each piece sent, and no time shorter than the peer took."""
    meter = Meter()
    answer = await ask(model(client, peer), mode, "slow", meter)
    assert answer.text == LONG
    stats = meter.snapshot().totals
    pieces = -(-len(LONG) // PIECE)
    first, gaps, whole = stats.time_to_first_token, stats.inter_token_latency, stats.latency
    assert (stats.streamed, stats.token_events) == (1, pieces)
    assert (first.count, gaps.count, whole.count) == (1, pieces - 1, 1)
    # Timers fire up to a millisecond early, the histograms hold three digits.
    first_s, gap_s = (FIRST_MS - 1) / 1e3, (1e3 / PER_SECOND - 1) / 1e3
    assert first.min >= 0.999 * first_s
    assert first.sum + gaps.sum >= 0.99 * (first_s + gap_s * (pieces - 1))
    assert first.sum + gaps.sum <= 1.002 * whole.sum


@clients
async def test_a_token_told_in_two_ways_counts_once(client: str, peer: Peer) -> None:
    """The v3 protocol sends a stream event beside each token event."""
    meter = Meter()
    events = model(client, peer).stream_events(
        "question 005", config={"callbacks": [meter]}, version="v3"
    )
    kinds = Counter(event["event"] for event in events)
    pieces = -(-len("answer 5 ") // PIECE)
    assert kinds["content-block-delta"] >= pieces
    snapshot = meter.snapshot()
    assert (snapshot.totals.streamed, snapshot.totals.token_events) == (1, pieces)
    told = not snapshot.totals.tokens.estimated
    assert told or client == "anthropic"
    assert counted(snapshot, told_input=told) == sent(peer, told_input=told)


@clients
async def test_an_answer_in_one_piece_has_no_first_token(client: str, peer: Peer) -> None:
    """Only the latency, which no time to first token may stand in for."""
    meter = Meter()
    await ask(model(client, peer), "ainvoke", "question 001", meter)
    stats = meter.snapshot().totals
    assert (stats.streamed, stats.token_events) == (0, 0)
    assert (stats.time_to_first_token.count, stats.latency.count) == (0, 1)


@clients
@modes
@pytest.mark.parametrize("fault", ["drop", "ratelimit", "malformed", "disconnect"])
async def test_a_fault_is_an_error_without_tokens(
    client: str, mode: str, fault: str, peer: Peer
) -> None:
    """A 500, a 429, a body that is not JSON, a closed connection."""
    meter = Meter()
    with pytest.raises(Exception):  # noqa: B017, PT011 (each client has its own)
        await ask(model(client, peer, {fault: 1}), mode, "question 002", meter)
    snapshot = meter.snapshot()
    assert outcomes(snapshot) == {"error": 1}
    assert snapshot.totals.tokens.total == 0
    assert snapshot.totals.latency.count == 1
    assert (snapshot.in_flight, dict(snapshot.dropped)) == (0, {})
    assert len(peer.journal()) == 1


@clients
@streams
async def test_a_stream_cut_by_the_peer_is_an_error(client: str, mode: str, peer: Peer) -> None:
    """What had come by then has a first token, and no usage is made up."""
    meter = Meter()
    with pytest.raises(Exception):  # noqa: B017, PT011
        await ask(model(client, peer), mode, "cut", meter)
    assert [entry["response"]["interrupted"] for entry in peer.journal()] == [True]
    snapshot = meter.snapshot()
    stats = snapshot.totals
    assert outcomes(snapshot) == {"error": 1}
    assert 1 <= stats.token_events < len(LONG) // PIECE
    assert stats.time_to_first_token.count == 1
    assert stats.tokens.total == stats.tokens.estimated
    assert snapshot.in_flight == 0


@clients
async def test_a_stream_left_by_its_reader_is_cancelled(client: str, peer: Peer) -> None:
    """`break`, in a sync stream and in an async one."""
    meter = Meter()
    config: Any = {"callbacks": [meter]}
    stream = model(client, peer).stream("slow", config)
    next(chunk for chunk in stream if chunk.text)
    stream.close()
    astream = model(client, peer).astream("slow", config)
    async for chunk in astream:
        if chunk.text:
            break
    await astream.aclose()
    snapshot = meter.snapshot()
    assert outcomes(snapshot) == {"cancelled": 2}
    assert snapshot.totals.time_to_first_token.count == 2
    assert snapshot.in_flight == 0


@clients
async def test_a_client_that_gives_up(client: str, peer: Peer) -> None:
    """A timed-out `astream` is cancelled, a timed-out `ainvoke` abandoned.

    With the chain around it at once, alone by age.
    """
    clock = ManualClock()
    meter = Meter(clock=clock)
    chat = model(client, peer, {"latency": 30_000})
    chain = RunnableLambda(lambda x: x) | chat
    for runnable, mode, expected in (
        (chat, "astream", {"cancelled": 1}),
        (chain, "ainvoke", {"cancelled": 1, "abandoned": 1}),
        (chat, "ainvoke", {"cancelled": 1, "abandoned": 1}),
    ):
        task = asyncio.create_task(ask(runnable, mode, "question 003", meter))
        while not meter.snapshot().in_flight and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert outcomes(meter.snapshot()) == expected
    assert meter.snapshot().in_flight == 1
    clock.advance(3601)
    assert outcomes(meter.snapshot()) == {"cancelled": 1, "abandoned": 2}
    assert meter.snapshot().in_flight == 0


@clients
@modes
async def test_a_retry_is_a_call_of_its_own(client: str, mode: str, peer: Peer) -> None:
    """A 503, then the answer: LangChain's retry is two calls, one of them with tokens."""
    meter = Meter()
    chat = model(client, peer).with_retry(wait_exponential_jitter=False)
    if "stream" in mode:  # LangChain does not retry streams
        chat = model(client, peer).with_fallbacks([model(client, peer)])
    told = tells_input(await ask(chat, mode, "again", meter))
    assert outcomes(meter.snapshot()) == {"ok": 1, "error": 1}
    assert [entry["response"]["status"] for entry in peer.journal()] == [503, 200]
    assert counted(meter.snapshot(), told_input=told) == sent(peer, told_input=told)


@clients
async def test_the_clients_own_retry_is_within_one_call(client: str, peer: Peer) -> None:
    """It happens under the callbacks: one call, two requests."""
    meter = Meter()
    await ask(model(client, peer, max_retries=1), "ainvoke", "again", meter)
    assert outcomes(meter.snapshot()) == {"ok": 1}
    assert len(peer.journal()) == 2
    assert counted(meter.snapshot()) == sent(peer)


@tool
def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"rain in {city}"


@clients
@modes
async def test_a_graph_counts_its_models_and_tools(client: str, mode: str, peer: Peer) -> None:
    """An agent asks for a tool, gets its result and answers: two model calls, one of a tool."""
    meter = Meter()
    agent = create_agent(model(client, peer), [weather])
    question: Any = {"messages": [("user", "How is the weather in Oslo?")]}
    config: Any = {"callbacks": [meter]}
    if mode == "invoke":
        agent.invoke(question, config)
    elif mode == "ainvoke":
        await agent.ainvoke(question, config)
    elif mode == "stream":
        list(agent.stream(question, config, stream_mode="messages"))
    else:
        [_ async for _ in agent.astream(question, config, stream_mode="messages")]
    snapshot = meter.snapshot()
    streamed = "stream" in mode
    told = not snapshot.totals.tokens.estimated
    assert told or (client == "anthropic" and streamed)
    assert len(peer.journal()) == 2
    assert counted(snapshot, told_input=told) == sent(peer, told_input=told)
    assert outcomes(snapshot) == {"ok": 2}
    assert snapshot.components["tool", "weather"].calls == 1
    assert snapshot.components["chain", "LangGraph"].calls == 1
    assert snapshot.totals.streamed == 2 * streamed
    assert sum(stats.errors for stats in snapshot.components.values()) == 0
    assert (snapshot.in_flight, dict(snapshot.dropped)) == (0, {})


async def test_a_stream_without_usage_is_a_call_all_the_same(peer: Peer) -> None:
    """Behind a proxy ChatOpenAI asks for none: what is counted then is marked as estimated."""
    meter = Meter()
    chat = model("chat", peer, stream_usage=False)
    answer = await ask(chat, "astream", "question 004", meter)
    assert answer.usage_metadata is None
    stats = meter.snapshot().totals
    assert outcomes(meter.snapshot()) == {"ok": 1}
    assert stats.tokens.total == stats.tokens.estimated
    assert stats.time_to_first_token.count == 1
