"""How runs of real clients end, over loopback: outcomes, failures, what partial answers cost.

The service here sends what a test says, byte by byte where it has to break.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

#: What the service does with a request: (status, events of the stream or one body, cut, hang).
WORDS = ["one", " two", " three", " four", " five"]
THOUGHTS = ["hm", " well"]
USAGE = (1000, 5)


def sse(*events: dict[str, Any], named: bool = False) -> list[bytes]:
    """Server-sent events, with their type as OpenAI's Responses and Anthropic name them."""
    name = "event: {type}\n" if named else ""
    return [f"{name.format(**event)}data: {json.dumps(event)}\n\n".encode() for event in events]


def openai_chat(streamed: bool, *, reasons: bool = False) -> list[bytes]:
    """Five words by Chat Completions, with usage."""
    usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
    head = {"id": "c1", "created": 1, "model": "gpt-4o-2024-08-06"}
    if not streamed:
        message = {"role": "assistant", "content": "".join(WORDS)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
        return [json.dumps(body).encode()]
    head["object"] = "chat.completion.chunk"
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in WORDS]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({**head, "choices": [], "usage": usage})
    return [*sse(*chunks), b"data: [DONE]\n\n"]


def openai_responses(streamed: bool, *, reasons: bool = False) -> list[bytes]:
    """The same by the Responses API, with a summary of its reasoning where asked for."""
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item = {"type": "message", "id": "m1", "role": "assistant", "status": "completed"}
    thought = {"type": "reasoning", "id": "r1"}
    text = [{"type": "summary_text", "text": "".join(THOUGHTS)}]
    usage = {
        "input_tokens": USAGE[0],
        "output_tokens": USAGE[1],
        "total_tokens": sum(USAGE),
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    body: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-2024-08-06",
        "status": "completed",
        "output": [{**item, "content": [part]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    if reasons:
        body["output"].insert(0, {**thought, "summary": text})
    if not streamed:
        return [json.dumps(body).encode()]
    begun = {**body, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    index = 0
    if reasons:
        at = {"output_index": 0, "item_id": "r1", "summary_index": 0}
        empty = {"type": "summary_text", "text": ""}
        events.append(
            {"type": "response.output_item.added", **at, "item": {**thought, "summary": []}}
        )
        events.append({"type": "response.reasoning_summary_part.added", **at, "part": empty})
        events += (
            {"type": "response.reasoning_summary_text.delta", **at, "delta": word}
            for word in THOUGHTS
        )
        events.append(
            {"type": "response.output_item.done", **at, "item": {**thought, "summary": text}}
        )
        index = 1
    at = {"output_index": index, "item_id": "m1", "content_index": 0}
    events.append(
        {
            "type": "response.output_item.added",
            **at,
            "item": {**item, "status": "in_progress", "content": []},
        }
    )
    events.append({"type": "response.content_part.added", **at, "part": {**part, "text": ""}})
    events += (
        {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
        for word in WORDS
    )
    events.append({"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []})
    events.append({"type": "response.content_part.done", **at, "part": part})
    events.append({"type": "response.output_item.done", **at, "item": {**item, "content": [part]}})
    events.append({"type": "response.completed", "response": body})
    return sse(*({**e, "sequence_number": n} for n, e in enumerate(events)), named=True)


def anthropic(streamed: bool, *, reasons: bool = False) -> list[bytes]:
    """The same by Anthropic's Messages."""
    usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
    thought = {"type": "thinking", "thinking": "".join(THOUGHTS), "signature": "s"}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x-20260101",
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "usage": usage,
    }
    if not streamed:
        return [json.dumps(message).encode()]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if reasons:
        deltas = [{"type": "thinking_delta", "thinking": word} for word in THOUGHTS]
        blocks.append(({**thought, "thinking": "", "signature": ""}, deltas))
    text = [{"type": "text_delta", "text": word} for word in WORDS]
    blocks.append(({"type": "text", "text": ""}, text))
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += (
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        )
        events.append({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": usage})
    events.append({"type": "message_stop"})
    return sse(*events, named=True)


Fate = Callable[["Answer", bool], None]


class Answer(BaseHTTPRequestHandler):
    """One request, met with the fate that the service has for it."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        """Answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.fate(self, bool(body.get("stream")))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def begin(self, streamed: bool) -> None:
        """A good answer's head; it has no length, and ends with its connection."""
        self.send_response(200)
        kind = "text/event-stream" if streamed else "application/json"
        self.send_header("content-type", kind)
        self.send_header("connection", "close")
        if streamed:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True

    def send(self, data: bytes, streamed: bool) -> None:
        """A piece of it."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if streamed else data)
        self.wfile.flush()


class Service(ThreadingHTTPServer):
    """Serves on loopback until the end of a test."""

    daemon_threads = True
    request_queue_size = 64
    fate: Fate

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


def whole(pieces: Callable[[bool], list[bytes]]) -> Fate:
    """Answer, all of it."""

    def fate(answer: Answer, streamed: bool) -> None:
        answer.begin(streamed)
        for piece in pieces(streamed):
            answer.send(piece, streamed)
        if streamed:
            answer.wfile.write(b"0\r\n\r\n")

    return fate


def cut(pieces: Callable[[bool], list[bytes]], after: int) -> Fate:
    """Begin, and break the connection."""

    def fate(answer: Answer, streamed: bool) -> None:
        answer.begin(True)
        for piece in pieces(True)[:after]:
            answer.send(piece, True)

    return fate


def hang(pieces: Callable[[bool], list[bytes]], after: int, until: threading.Event) -> Fate:
    """Begin, and say nothing more; where nothing is to be sent, not even that."""

    def fate(answer: Answer, streamed: bool) -> None:
        if after:
            answer.begin(True)
            for piece in pieces(True)[:after]:
                answer.send(piece, True)
        until.wait(60)
        answer.close_connection = True

    return fate


def each(fates: list[Fate]) -> Fate:
    """One request after the other."""
    left = iter(fates)

    def fate(answer: Answer, streamed: bool) -> None:
        next(left)(answer, streamed)

    return fate


def refuse(status: int) -> Fate:
    """An error, as both providers shape it."""

    def fate(answer: Answer, streamed: bool) -> None:
        error = {"type": "api_error", "message": "no", "code": None, "param": None}
        body = json.dumps({"type": "error", "error": error}).encode()
        answer.send_response(status)
        answer.send_header("content-type", "application/json")
        answer.send_header("content-length", str(len(body)))
        answer.end_headers()
        answer.wfile.write(body)

    return fate


@pytest.fixture
def service() -> Iterator[Service]:
    """A service without a fate yet."""
    server = Service(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def done() -> Iterator[threading.Event]:
    """Lets go of what hangs."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Round prices for both."""
    card = {"input": 1, "output": 10}
    names = ("openai/gpt-4o-2024-08-06", "openai/gpt-4o", "anthropic/claude-x-20260101")
    return PriceBook(dict.fromkeys((*names, "anthropic/claude-x"), card)).warm(wait=True)


def chat(service: Service, **kwargs: Any) -> Any:
    """Chat Completions."""
    base: dict[str, Any] = {"model": "gpt-4o", "api_key": "x", "max_retries": 0}
    base |= {"base_url": f"{service.url}/v1", "stream_usage": True}
    return ChatOpenAI(**{**base, **kwargs})


def responses(service: Service, **kwargs: Any) -> Any:
    """The Responses API."""
    return chat(service, use_responses_api=True, **kwargs)


def claude(service: Service, **kwargs: Any) -> Any:
    """Anthropic's Messages."""
    base: dict[str, Any] = {"model": "claude-x", "api_key": "x", "max_retries": 0}
    return ChatAnthropic(**{**base, "base_url": service.url, **kwargs})


CLIENTS = pytest.mark.parametrize(
    ("client", "pieces"),
    [(chat, openai_chat), (responses, openai_responses), (claude, anthropic)],
    ids=["chat", "responses", "anthropic"],
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


def last_event(pieces: Callable[[bool], list[bytes]], word: str) -> int:
    """How many pieces there are up to the first that has this word."""
    return next(n for n, p in enumerate(pieces(True), 1) if word.encode() in p)


@CLIENTS
def test_invoke_and_stream_are_told_whole(
    client: Any, pieces: Any, service: Service, book: PriceBook
) -> None:
    """Both have the usage that the service sent, and its price; nothing is estimated."""
    service.fate = whole(pieces)
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
    client: Any, pieces: Any, reasons: bool, service: Service, book: PriceBook
) -> None:
    """`stream` and `stream_events(version="v3")`: token events, first token, gaps."""
    service.fate = whole(lambda streamed: pieces(streamed, reasons=reasons))
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
    client: Any, pieces: Any, status: int, service: Service, book: PriceBook
) -> None:
    """It costs nothing, is in flight no more, and is told by model."""
    service.fate = refuse(status)
    meter = metered(book)
    model = client(service)
    with pytest.raises(Exception, match=str(status)):
        model.invoke("hi", config(meter))
    with pytest.raises(Exception, match=str(status)) as caught:
        list(model.stream("hi", config(meter)))
    snapshot = check(meter, error=2)
    provider = "anthropic" if client is claude else "openai"
    asked = "claude-x" if client is claude else "gpt-4o"
    cause = f"{type(caught.value).__name__} {status}"
    assert snapshot.failures == {(f"{provider}/{asked}", cause): 2}
    assert snapshot.totals.tokens.total == 0
    assert not snapshot.totals.cost


@CLIENTS
def test_a_broken_stream_is_estimated_and_priced(
    client: Any, pieces: Any, service: Service, book: PriceBook
) -> None:
    """What came is spent: its tokens are estimated and cost, under `error`."""
    service.fate = cut(pieces, last_event(pieces, "three"))
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
    client: Any, pieces: Any, service: Service, book: PriceBook, done: threading.Event
) -> None:
    """`break`: what had come is estimated, and cost."""
    service.fate = hang(pieces, last_event(pieces, "two"), done)
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
async def test_a_cancelled_astream(
    client: Any, pieces: Any, service: Service, book: PriceBook, done: threading.Event
) -> None:
    """The task's CancelledError, with what had come by then."""
    service.fate = hang(pieces, last_event(pieces, "two"), done)
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
    pieces: Any,
    chained: bool,
    service: Service,
    book: PriceBook,
    done: threading.Event,
) -> None:
    """No hook fires: abandoned at the end of the chain around it, else by age."""
    service.fate = hang(pieces, 0, done)
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
def test_of_a_retry_each_attempt_is_a_call(
    client: Any, pieces: Any, service: Service, book: PriceBook
) -> None:
    """A failed one that is made good is recovered; what was made again is counted apart."""
    fates = [refuse(429), cut(pieces, last_event(pieces, "two")), whole(pieces)]
    service.fate = each(fates)
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


def test_a_fallback_recovers_a_failure(service: Service, book: PriceBook) -> None:
    """An error of the first model, an ok of the second, which made it good.

    In a chain: LangChain calls each model of a fallback as if by who called the fallback, and so
    by nobody where that is at the top (`RunnableWithFallbacks.invoke` passes its own config on).
    """
    fates = [refuse(500), whole(anthropic)]
    service.fate = each(fates)
    meter = metered(book)
    model = RunnableLambda(lambda x: x) | chat(service).with_fallbacks([claude(service)])
    assert model.invoke("hi", config(meter)).text == "".join(WORDS)
    snapshot = check(meter, error=1, ok=1)
    assert snapshot.models["openai", "gpt-4o"].recovered == 1
    assert snapshot.models["anthropic", "claude-x-20260101"].recovered == 0
    assert snapshot.totals.retried_calls == 0
    ((who, how),) = snapshot.failures
    assert who == "openai/gpt-4o"
    assert how.endswith(" 500")


def test_a_failure_that_stays_one_is_not_recovered(service: Service, book: PriceBook) -> None:
    """Every attempt fails; calls without a parent have nothing to do with each other."""
    service.fate = refuse(500)
    meter = metered(book)
    with pytest.raises(Exception, match="500"):
        chat(service).with_retry(wait_exponential_jitter=False, stop_after_attempt=2).invoke(
            "hi", config(meter)
        )
    service.fate = whole(openai_chat)
    chat(service).invoke("hi", config(meter))
    assert check(meter, error=2, ok=1).totals.recovered == 0


@CLIENTS
def test_a_cache_hit_is_saved(client: Any, pieces: Any, service: Service, book: PriceBook) -> None:
    """No spend, no latency, and its tokens among those saved."""
    service.fate = whole(pieces)
    meter = metered(book)
    model = client(service, cache=InMemoryCache())
    for _ in range(3):
        model.invoke("hi", config(meter))
    totals = check(meter, ok=1, cache_hit=2).totals
    assert (totals.tokens.total, totals.tokens.saved) == (sum(USAGE), 2 * sum(USAGE))
    assert (totals.cost, totals.latency.count) == (Decimal("0.00105"), 1)


@CLIENTS
def test_another_handler_that_stops_a_call(
    client: Any, pieces: Any, service: Service, book: PriceBook
) -> None:
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
def test_of_a_generate_one_fails(
    client: Any, pieces: Any, service: Service, book: PriceBook
) -> None:
    """`generate([a, b])` where a fails: one error; the other is abandoned by age."""
    service.fate = refuse(500)
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
async def test_many_at_once(client: Any, pieces: Any, service: Service, book: PriceBook) -> None:
    """Twenty streams interleaved: whole figures, a peak of some, and none left."""
    service.fate = whole(pieces)
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
