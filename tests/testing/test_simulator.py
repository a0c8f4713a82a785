"""The simulated service, through the real OpenAI client and LangChain's integration."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from io import BytesIO, TextIOWrapper
from threading import Thread
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI

from langmeter.testing.simulator import MODELS, OUTCOMES, Sent, Simulator, Traffic, Truth
from langmeter.testing.simulator.__main__ import main
from langmeter.testing.simulator.server import Server
from langmeter.testing.simulator.traffic import Dice, prompt_tokens

Service: TypeAlias = "Inside | Simulator"
NO_FAULTS = {"rate_limited": 0.0, "server_error": 0.0, "broken": 0.0}


class Inside:
    """The service in a thread of this process, where coverage sees it."""

    def __init__(self, traffic: Traffic) -> None:
        self._server = Server(traffic)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()
        self._listener = self._call(asyncio.start_server(self._server.serve, "127.0.0.1", 0))
        self.url = "http://127.0.0.1:{1}/v1".format(*self._listener.sockets[0].getsockname())

    def truth(self) -> Truth:
        async def read() -> Truth:
            return self._server.books.truth()

        return self._call(read())

    def close(self) -> None:
        async def end() -> None:
            self._listener.close()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            assert await asyncio.gather(*left) == [None] * len(left)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


@pytest.fixture(scope="module")
def service() -> Iterator[Inside]:
    """One service for all that look at a single reply; no delays and no faults of its own."""
    with closing(Inside(Traffic(7, speed=math.inf, **NO_FAULTS))) as inside:
        yield inside


@contextmanager
def chat(service: Service, model: str = "gpt-4o-mini", **settings: Any) -> Iterator[ChatOpenAI]:
    with openai.DefaultHttpxClient(trust_env=False) as client:
        yield ChatOpenAI(
            model=model,
            base_url=service.url,
            api_key="any",
            stream_usage=True,
            http_client=client,
            **{"max_retries": 0, **settings},
        )


def body(text: str = "hello", model: str = "gpt-4o-mini", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def usage(message: AIMessage) -> Sent:
    """What the client was told, as one row of the books."""
    told = message.usage_metadata
    assert told is not None
    assert told["total_tokens"] == told["input_tokens"] + told["output_tokens"]
    return Sent(
        1,
        told["input_tokens"],
        told["output_tokens"],
        told["input_token_details"]["cache_read"],
        told["output_token_details"]["reasoning"],
    )


def receive(llm: ChatOpenAI, question: str, stream: bool, words: list[str]) -> None:
    """Add to `words` what comes, until it ends or fails."""
    for piece in llm.stream(question) if stream else [llm.invoke(question)]:
        words += [piece.text] if piece.text else []


def during(service: Service, *outcomes: str) -> Callable[[], Sent]:
    """What was sent from now until the call."""
    before = service.truth().sent(*outcomes)
    return lambda: Sent(
        *(b - a for a, b in zip(before, service.truth().sent(*outcomes), strict=True))
    )


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ask(service: Service, head: bytes, data: bytes = b"") -> bytes:
    """Raw bytes there and back, until the service closes the connection."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head + data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class TestTraffic:
    def test_same_requests_same_replies(self) -> None:
        """What is drawn depends on the seed, the request and its repetition, not on the order."""
        requests = [body(f"question {n % 5}") for n in range(20)]
        one, two, other = Dice(Traffic(1)), Dice(Traffic(1)), Dice(Traffic(2))
        forward = sorted(one.reply(r).id for r in requests)
        assert forward == sorted(two.reply(r).id for r in reversed(requests))
        assert len(set(forward)) == 20
        assert forward != sorted(other.reply(r).id for r in requests)

    def test_shape(self) -> None:
        """Sizes and gaps have the medians and sigmas asked for, and the shares of faults."""
        traffic = Traffic(3, speed=2, rate_limited=0.3, server_error=0.2, broken=0.1, spikes=0.05)
        dice = Dice(traffic)
        replies = [dice.reply(body()) for _ in range(3000)]
        for sizes, (median, sigma) in (
            ([r.input for r in replies], traffic.input_tokens),
            ([r.output for r in replies], traffic.output_tokens),
            ([r.delays[0] * 2 for r in replies], traffic.first_token),
        ):
            assert np.median(sizes) == pytest.approx(median, rel=0.08)
            assert np.std(np.log(sizes)) == pytest.approx(sigma, rel=0.08)
        gaps = np.concatenate([r.delays[1:] for r in replies]) * 2
        assert np.median(gaps) == pytest.approx(traffic.gap[0], rel=0.1)
        # A lognormal of sigma 0.6 is above 30 medians once in 10 million; a Pareto spike 1 in 5.
        assert np.mean(gaps > 30 * traffic.gap[0]) == pytest.approx(0.05 * 3**-1.5, rel=0.1)
        faults = [r.fault for r in replies]
        for name in ("rate_limited", "server_error", "broken"):
            assert faults.count(name) / 3000 == pytest.approx(getattr(traffic, name), abs=0.03)

    @settings(max_examples=50, deadline=None)
    @given(
        model=st.sampled_from([*MODELS, "mystery"]),
        n=st.integers(1, 4),
        limit=st.none() | st.integers(1, 400),
        seed=st.integers(0, 2**31),
    )
    def test_laws_of_usage(self, model: str, n: int, limit: int | None, seed: int) -> None:
        """Parts are within wholes, steps are OpenAI's, limits hold, each token has a delay."""
        request = body(model=model, n=n, **({"max_completion_tokens": limit} if limit else {}))
        reply = Dice(Traffic(seed)).reply(request)
        visible = sum(choice.tokens for choice in reply.choices)
        assert len(reply.choices) == n
        assert reply.model == MODELS.get(model, model)
        assert reply.output == reply.reasoning + visible
        assert reply.input > prompt_tokens(request["messages"]) == 8
        assert reply.cache_read <= reply.input
        assert reply.cache_read % 128 == 0
        assert reply.cache_read == 0 or reply.cache_read >= 1024
        assert model.startswith("o4") or reply.reasoning == 0
        assert reply.output <= n * (limit or 16_384)
        assert all(c.finish == "stop" for c in reply.choices) or limit or model.startswith("o4")
        assert len(reply.delays) == max(1, visible)
        assert min(1, visible) <= reply.cut <= visible

    def test_prompt_of_parts(self) -> None:
        """Words are counted in strings and in text parts, in no other part."""
        parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {}}]
        assert prompt_tokens([{"content": parts}, {"content": None}, {"content": "three"}]) == 18

    @pytest.mark.parametrize(
        "wrong",
        [{"broken": 1.1}, {"broken": 0.6, "server_error": 0.6}, {"speed": 0}, {"cached": -1}],
    )
    def test_refuses(self, wrong: dict[str, float]) -> None:
        """A share outside 0 to 1, faults above 1 together and a standstill cannot be."""
        with pytest.raises(ValueError, match="must be"):
            Traffic(**wrong)


class TestReplies:
    @pytest.mark.parametrize("model", ["gpt-4o-mini", "o4-mini", "mystery"])
    def test_invoke(self, service: Service, model: str) -> None:
        """The usage in a whole reply is what the books say, under the dated name."""
        sent = during(service, "ok")
        with chat(service, model) as llm:
            message = llm.invoke(f"What is {model}?")
        assert usage(message) == sent()
        assert message.response_metadata["model_name"] == MODELS.get(model, model)
        words = len(message.text.split())
        assert words == usage(message).output - usage(message).reasoning
        assert (usage(message).reasoning > 0) == (model == "o4-mini")

    def test_stream(self, service: Service) -> None:
        """A stream sends an empty role, one word at a time, and the usage once, at the end."""
        sent = during(service, "ok")
        with chat(service) as llm:
            pieces = list(llm.stream("Count for me."))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        assert isinstance(whole, AIMessageChunk)
        assert usage(whole) == sent()
        assert pieces[0].text == ""
        words = [piece.text for piece in pieces if piece.text]
        assert len(words) == usage(whole).output
        assert len(whole.text.split()) == len(words)
        assert whole.response_metadata["finish_reason"] == "stop"

    async def test_async(self, service: Service) -> None:
        """64 calls at once, half of them streamed: the client's sum is the books' sum."""
        sent = during(service, "ok")
        async with openai.DefaultAsyncHttpxClient(trust_env=False) as client:
            llm = ChatOpenAI(
                model="gpt-4.1",
                base_url=service.url,
                api_key="any",
                stream_usage=True,
                http_async_client=client,
                max_completion_tokens=40,
            )

            async def stream(number: int) -> AIMessage:
                chunks = [chunk async for chunk in llm.astream(f"stream {number}")]
                return sum(chunks[1:], start=chunks[0])

            messages = await asyncio.gather(
                *(llm.ainvoke(f"whole {n}") for n in range(32)), *map(stream, range(32))
            )
        told = map(usage, messages)
        assert tuple(map(sum, zip(*told, strict=True))) == sent()
        finishes = {m.response_metadata["finish_reason"] for m in messages}
        assert finishes == {"stop", "length"}

    @pytest.mark.parametrize("stream", [True, False])
    def test_several_choices(self, service: Service, stream: bool) -> None:
        """With n = 3 three answers come, and one usage for all of them."""
        sent = during(service, "ok")
        with openai.DefaultHttpxClient(trust_env=False) as http_client:
            client = openai.OpenAI(base_url=service.url, api_key="any", http_client=http_client)
            texts = ["", "", ""]
            request = {**body("three, please"), "n": 3}
            if stream:
                more = {"stream": True, "stream_options": {"include_usage": True}}
                bills = []
                for chunk in client.chat.completions.create(**request, **more):
                    bills += [chunk.usage] if chunk.usage else []
                    for choice in chunk.choices:
                        texts[choice.index] += choice.delta.content or ""
                (bill,) = bills
            else:
                whole = client.chat.completions.create(**request)
                bill = whole.usage
                for choice in whole.choices:
                    texts[choice.index] = choice.message.content
        assert all(texts)
        assert sum(len(text.split()) for text in texts) == bill.completion_tokens == sent().output

    def test_stream_without_usage(self, service: Service) -> None:
        """A stream whose client did not ask for usage gets none; the books call it unreported."""
        sent = during(service, "unreported")
        with chat(service) as llm:
            pieces = list(llm.stream("No bill.", stream_usage=False))
        assert all(piece.usage_metadata is None for piece in pieces)
        assert sent().calls == 1
        assert sent().output == sum(bool(piece.text) for piece in pieces)

    def test_nothing_visible(self, service: Service) -> None:
        """A token limit that reasoning uses up leaves an empty answer that was cut."""
        with chat(service, "o4-mini", max_completion_tokens=10) as llm:
            chunks = list(llm.stream("Think."))
        whole = sum(chunks[1:], start=chunks[0])
        assert (whole.text, usage(whole).reasoning, usage(whole).output) == ("", 10, 10)
        assert whole.response_metadata["finish_reason"] == "length"


class TestFaults:
    def test_rate_limited(self, service: Service) -> None:
        """429 comes as OpenAI's error with a time to wait, and costs no tokens."""
        sent = during(service, "rate_limited")
        with (
            chat(service, default_headers={"x-simulate": "rate_limited"}) as llm,
            pytest.raises(openai.RateLimitError) as caught,
        ):
            llm.invoke("Too fast?")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert float(caught.value.response.headers["retry-after-ms"]) >= 0
        assert sent() == Sent(calls=1)

    def test_server_error(self, service: Service) -> None:
        """500 comes as OpenAI's error."""
        sent = during(service, "server_error")
        with (
            chat(service, default_headers={"x-simulate": "server_error"}) as llm,
            pytest.raises(openai.InternalServerError),
        ):
            list(llm.stream("Well?"))
        assert sent() == Sent(calls=1)

    @pytest.mark.parametrize("stream", [True, False])
    def test_broken(self, service: Service, stream: bool) -> None:
        """A reply that breaks off is an error to the client, after the tokens in the books."""
        sent = during(service, "broken")
        words: list[str] = []
        with (
            chat(service, default_headers={"x-simulate": "broken"}) as llm,
            pytest.raises(openai.APIConnectionError),
        ):
            receive(llm, "And then?", stream, words)
        assert (sent().calls, sent().output) == (1, len(words))
        assert bool(words) == stream

    @pytest.mark.parametrize("stream", [True, False])
    def test_stall(self, service: Service, stream: bool) -> None:
        """A reply that falls silent lasts until the client gives up, and is counted then."""
        sent = during(service, "disconnected")
        words: list[str] = []
        with (
            chat(service, timeout=0.5, default_headers={"x-simulate": "stall"}) as llm,
            pytest.raises(openai.APITimeoutError),
        ):
            receive(llm, "Hello?", stream, words)
        assert eventually(lambda: sent().calls == 1)
        assert sent().output == len(words)

    @pytest.mark.parametrize("stream", [True, False])
    def test_disconnected(self, stream: bool) -> None:
        """A client that leaves a reply on its way is noticed, and no usage is counted as sent."""
        with (
            Simulator(
                output_tokens=(9, 0), first_token=(0.4, 0), gap=(0.05, 0), **NO_FAULTS
            ) as slow,
            chat(slow, timeout=0.2, default_headers={"x-simulate": "ok"}) as llm,
        ):
            if stream:
                pieces = llm.stream("Are you there?", timeout=20)
                assert next(pieces).text == ""
                pieces.close()
            else:
                with pytest.raises(openai.APITimeoutError):
                    llm.invoke("Are you there?")
            assert eventually(lambda: slow.truth().sent("disconnected").calls == 1)
        assert slow.truth().sent("ok") == Sent()
        assert slow.truth().sent().calls == 1

    def test_rates(self) -> None:
        """Faults come at their rates, each as the client's error of its kind."""
        with (
            Simulator(1, speed=math.inf, rate_limited=0.2, server_error=0.1, broken=0.1) as moody,
            chat(moody) as llm,
        ):
            questions = [f"question {n}" for n in range(200)]
            replies = llm.batch(questions, {"max_concurrency": 8}, return_exceptions=True)
            truth = moody.truth()
        told = [usage(reply) for reply in replies if isinstance(reply, AIMessage)]
        assert tuple(map(sum, zip(*told, strict=True))) == truth.sent("ok")
        for outcome, error, expected in (
            ("rate_limited", openai.RateLimitError, 40),
            ("server_error", openai.InternalServerError, 20),
            ("broken", openai.APIConnectionError, 20),
        ):
            calls = truth.sent(outcome).calls
            assert calls == sum(isinstance(reply, error) for reply in replies)
            assert calls == pytest.approx(expected, abs=15)

    def test_retries(self) -> None:
        """The client's own retries wait as long as they are told, and get through."""
        with (
            Simulator(1, speed=1000, rate_limited=0.5, server_error=0, broken=0) as busy,
            chat(busy, max_retries=10) as llm,
        ):
            told = [usage(llm.invoke(f"question {n}")) for n in range(30)]
        assert tuple(map(sum, zip(*told, strict=True))) == busy.truth().sent("ok")
        assert busy.truth().sent("rate_limited").calls > 10


class TestService:
    def test_same_seed_same_books(self) -> None:
        """Two services of one seed send the same to the same requests, in any order."""
        books = []
        for order in (1, -1):
            with Simulator(5, speed=math.inf) as one, chat(one) as llm:
                llm.batch(
                    [f"question {n % 9}" for n in range(40)][::order],
                    {"max_concurrency": 8},
                    return_exceptions=True,
                )
            books.append(one.truth())
        assert books[0] == books[1]
        assert books[0].sent().calls == 40

    def test_process(self) -> None:
        """The service in its own process keeps the same books as the one in a thread."""
        requests = [body(f"question {n}") for n in range(5)]
        books = []
        traffic = {"speed": math.inf, **NO_FAULTS}
        with Simulator(9, **traffic) as outside, closing(Inside(Traffic(9, **traffic))) as inside:
            for one in (outside, inside):
                with openai.DefaultHttpxClient(trust_env=False) as client:
                    llm = openai.OpenAI(base_url=one.url, api_key="any", http_client=client)
                    for request in requests:
                        llm.chat.completions.create(**request)
                books.append(one.truth())
        assert books[0] == books[1] == outside.truth()
        assert books[0].sent("ok").calls == 5

    def test_models(self, service: Service) -> None:
        """GET /v1/models lists the names that can be asked for."""
        with openai.DefaultHttpxClient(trust_env=False) as client:
            llm = openai.OpenAI(base_url=service.url, api_key="any", http_client=client)
            assert {model.id for model in llm.models.list()} == set(MODELS)

    @pytest.mark.parametrize(
        ("data", "header"),
        [
            (b"{", ""),
            (b"[]", ""),
            (json.dumps({"model": "m"}).encode(), ""),
            (json.dumps({**body(), "model": None}).encode(), ""),
            (json.dumps(body(n=0.5)).encode(), ""),
            (json.dumps(body(max_tokens=-1)).encode(), ""),
            (json.dumps(body()).encode(), "x-simulate: magic\r\n"),
        ],
    )
    def test_bad_request(self, service: Service, data: bytes, header: str) -> None:
        """What is no chat completion request is refused with OpenAI's 400, and counted."""
        sent = during(service, "invalid")
        head = f"POST /v1/chat/completions HTTP/1.1\r\n{header}Content-Length: {len(data)}\r\n\r\n"
        answer = ask(service, head.encode(), data)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert (
            json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        )
        assert sent() == Sent(calls=1)

    @pytest.mark.parametrize(
        "head",
        [
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
            b"nonsense\r\n\r\n",
        ],
    )
    def test_bad_http(self, service: Service, head: bytes) -> None:
        """What is no HTTP request with a length is refused, and the connection closed."""
        assert ask(service, head).startswith(b"HTTP/1.1 400 Bad Request\r\n")

    def test_left_in_the_middle(self, service: Service) -> None:
        """A request cut short gets no answer; no route gets 404; a query is no part of a route."""
        assert ask(service, b"GET /v1/models HT") == b""
        assert ask(service, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab") == b""
        assert ask(service, b"GET /v2 HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert ask(service, b"GET /v1/models?a=b HTTP/1.1\r\n\r\n").startswith(
            b"HTTP/1.1 200 OK\r\n"
        )

    def test_one_connection(self, service: Service) -> None:
        """A connection serves one request after another."""
        address = urlsplit(service.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        try:
            for _ in range(3):
                connection.request("POST", "/v1/chat/completions", json.dumps(body(stream=True)))
                used = connection.sock
                assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
                assert connection.sock is used
        finally:
            connection.close()

    def test_truth_is_kept(self) -> None:
        """The books outlive the service, travel as plain data and are new at a second start."""
        service = Simulator(1, speed=math.inf, **NO_FAULTS)
        with pytest.raises(RuntimeError, match="not running"):
            service.truth()
        with service, chat(service) as llm:
            llm.invoke("Hello")
            with pytest.raises(RuntimeError, match="already running"):
                service.__enter__()
        kept = service.truth()
        assert kept.sent("ok", model="gpt-4o-mini-2024-07-18").calls == 1
        assert kept.sent(model="gpt-4o") == Sent()
        assert Truth.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
        assert set(kept.models["gpt-4o-mini-2024-07-18"]) <= set(OUTCOMES)
        with service:
            assert service.truth() == Truth({})

    def test_death_is_told(self) -> None:
        """A service that has died says so when asked for the truth, at once and later."""
        service = Simulator()
        with service:
            assert service._child is not None
            service._child.kill()
            service._child.wait()
            with pytest.raises(RuntimeError, match=r"does not answer \(exit code -9\)"):
                service.truth()
        with pytest.raises(RuntimeError, match="left no books"):
            service.truth()

    def test_deaf_service_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A service that does not end by itself is killed."""
        with Simulator() as service:
            child = service._child
            assert child is not None
            real, calls = child.communicate, []

            def communicate(*args: Any, **named: Any) -> Any:
                calls.append(named)
                if len(calls) == 1:
                    raise subprocess.TimeoutExpired("simulator", 10)
                return real(*args, **named)

            monkeypatch.setattr(child, "communicate", communicate)
        assert child.returncode == -signal.SIGKILL

    def test_port_in_use(self, service: Service, capfd: pytest.CaptureFixture[str]) -> None:
        """A port that is taken is an error at the start."""
        port = urlsplit(service.url).port
        with pytest.raises(RuntimeError, match="did not start"):
            Simulator(port=port or 0).__enter__()
        assert "address already in use" in capfd.readouterr().err

    def test_unknown_setting(self) -> None:
        """A setting that does not exist is a TypeError, before anything starts."""
        with pytest.raises(TypeError, match="velocity"):
            Simulator(velocity=3)

    def test_alone(self) -> None:
        """`python -m langmeter.testing.simulator` serves until Ctrl-C."""
        command = [sys.executable, "-m", "langmeter.testing.simulator", "--traffic", '{"seed": 3}']
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as child:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline())["url"].startswith("http://127.0.0.1:")
            child.send_signal(signal.SIGINT)
            assert child.wait(20) == 130

    @pytest.mark.parametrize("traffic", ["{", '{"velocity": 1}', '{"speed": 0}'])
    def test_alone_refuses(self, traffic: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Traffic that cannot be is a usage error."""
        with pytest.raises(SystemExit, match="2"):
            main(["--traffic", traffic])
        assert "error:" in capsys.readouterr().err

    def test_until_eof(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The service that is somebody's child ends with its standard input, not with Ctrl-C."""
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"anything")))
        before = signal.getsignal(signal.SIGINT)
        try:
            assert main(["--until-eof"]) == 0
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
        assert json.loads(capsys.readouterr().out)["url"].endswith("/v1")
