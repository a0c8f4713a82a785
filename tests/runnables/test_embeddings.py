"""Embeddings fire no callbacks: what the wrapper counts, and that it is otherwise not there."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import openai
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict

import langmeter
from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    TokenCountingCallback,
    track_embeddings,
)
from langmeter.callbacks.services import Services
from langmeter.prices import PriceBook
from langmeter.testing.simulator import Reply
from langmeter.testing.simulator.server import Server

TEXTS = ["one two three", "four five"]
WORDS = 5


def words(text: str) -> int:
    """A token counter that is easy to check."""
    return len(text.split())


def fake() -> DeterministicFakeEmbedding:
    return DeterministicFakeEmbedding(size=4)


#: The four methods, called as LangChain calls them.
WAYS: dict[str, Callable[[Embeddings], Any]] = {
    "embed_documents": lambda e: e.embed_documents(TEXTS),
    "embed_query": lambda e: e.embed_query("one two three four five"),
    "aembed_documents": lambda e: asyncio.run(e.aembed_documents(TEXTS)),
    "aembed_query": lambda e: asyncio.run(e.aembed_query("one two three four five")),
}


@pytest.fixture
def meter() -> Meter:
    return Meter(significant_digits=2)


@pytest.mark.parametrize("way", WAYS)
def test_every_method_is_one_call_and_gives_what_the_model_gives(way: str, meter: Meter) -> None:
    """Same vectors; one call, its tokens all estimated, one latency, one component."""
    tracked = track_embeddings(fake(), meter, token_counter=words)
    assert WAYS[way](tracked) == WAYS[way](fake())
    snapshot = meter.snapshot()
    (stats,) = snapshot.models.values()
    assert dict(stats.outcomes)["ok"] == stats.calls == 1
    tokens = stats.tokens
    assert (tokens.input, tokens.output, tokens.total, tokens.estimated) == (WORDS, 0, WORDS, WORDS)
    assert stats.latency.count == 1
    component = snapshot.components["llm", "DeterministicFakeEmbedding"]
    assert (component.calls, component.errors) == (1, 0)
    assert snapshot.in_flight == 0
    assert not snapshot.dropped


def test_without_a_counter_calls_have_no_tokens(meter: Meter) -> None:
    """A model with an unknown vocabulary is metered all the same."""
    track_embeddings(fake(), meter).embed_query("text")
    totals = meter.snapshot().totals
    assert (totals.calls, totals.tokens.total, totals.unpriced_calls) == (1, 0, 0)


class Broken(Embeddings):
    """Raises what it is told to."""

    model = "broken-1"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise self.error

    def embed_query(self, text: str) -> list[float]:
        raise self.error


@pytest.mark.parametrize(
    ("way", "error", "outcome", "tokens"),
    [
        *((way, ValueError("no"), "error", 0) for way in WAYS),
        # In async code asyncio itself takes it.
        *((way, KeyboardInterrupt(), "cancelled", WORDS) for way in WAYS if way[0] != "a"),
    ],
)
def test_errors_pass_unchanged_and_are_counted_by_outcome(
    way: str, error: BaseException, outcome: str, tokens: int, meter: Meter
) -> None:
    """The very exception reaches the caller; who gave up had sent the texts, who failed is free."""
    with pytest.raises(type(error)) as caught:
        WAYS[way](track_embeddings(Broken(error), meter, token_counter=words))
    assert caught.value is error
    stats = meter.snapshot().models["broken", "broken-1"]
    assert stats.outcomes[outcome] == stats.calls == 1
    assert stats.tokens.total == tokens


async def test_a_cancelled_call_is_cancelled(meter: Meter) -> None:
    """A timeout around an async call ends its run."""

    class Slow(DeterministicFakeEmbedding):
        async def aembed_query(self, text: str) -> list[float]:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(track_embeddings(Slow(size=1), meter).aembed_query("x"), 0.01)
    snapshot = meter.snapshot()
    assert snapshot.totals.outcomes["cancelled"] == 1
    assert snapshot.in_flight == 0


@pytest.mark.parametrize(
    "counter", [lambda text: 1 / 0, lambda text: -1, lambda text: "3", lambda text: 1 << 70]
)
def test_a_broken_counter_harms_nobody(
    counter: Any, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on without tokens; the failure is counted, and logged once."""
    tracked = track_embeddings(fake(), meter, token_counter=counter)
    for _ in range(3):
        assert tracked.embed_query("x") == fake().embed_query("x")
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, snapshot.totals.tokens.total) == (3, 0)
    assert snapshot.dropped == {"hook_errors": 3}
    assert len(caplog.records) == 1


def test_attributes_that_raise_harm_nobody(meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    """A wrapped object that cannot even be looked at is metered under no name."""

    class Shy(DeterministicFakeEmbedding):
        @property
        def model(self) -> str:
            raise RuntimeError("do not look")

    track_embeddings(Shy(size=1), meter).embed_query("x")
    assert meter.snapshot().models["", ""].calls == 1
    assert "do not look" in caplog.text


class _Failing:
    """A recorder that is out of order."""

    def __init__(self, recorder: Any, *broken: str) -> None:
        self._recorder, self._broken = recorder, broken

    def __getattr__(self, name: str) -> Any:
        if name in self._broken:
            raise RuntimeError(name)
        return getattr(self._recorder, name)


@pytest.mark.parametrize("broken", ["run_started", "run_ended"])
def test_a_failure_of_ours_never_reaches_the_caller(
    broken: str, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in the metering is counted; the vectors arrive."""
    failing = _Failing(meter._recorder, broken)
    monkeypatch.setattr(Services, "recorder", failing)
    assert track_embeddings(fake(), meter).embed_query("x") == fake().embed_query("x")
    monkeypatch.undo()
    assert meter.snapshot().dropped == {"hook_errors": 1}


def test_what_can_be_read_once_is_left_to_the_model(meter: Meter) -> None:
    """A generator of texts is not used up by counting it."""
    tracked = track_embeddings(fake(), meter, token_counter=words)
    texts: Any = (text for text in TEXTS)
    assert len(tracked.embed_documents(texts)) == 2
    assert meter.snapshot().totals.tokens.total == 0


# --- which meter --------------------------------------------------------------------------------


def test_the_installed_meter_is_the_default() -> None:
    """None means the meter of `install()`; without one the error names the remedy."""
    with pytest.raises(ValueError, match=r"langmeter\.install\(\)"):
        track_embeddings(fake())
    meter = langmeter.install()
    track_embeddings(fake()).embed_query("x")
    assert meter.snapshot().totals.calls == 1


def test_tracking_twice_counts_once_in_each_meter(meter: Meter) -> None:
    """The same meter twice is once; two meters both count; a meter's views are the meter."""
    other = Meter(significant_digits=2)
    once = track_embeddings(fake(), meter)
    assert track_embeddings(once, meter) is once
    assert track_embeddings(once, meter.cost) is once
    track_embeddings(once, other).embed_query("x")
    assert meter.snapshot().totals.calls == other.snapshot().totals.calls == 1


def test_any_of_the_callbacks_can_be_the_meter() -> None:
    """A `CostTrackingCallback` alone prices embeddings."""
    book = PriceBook({"deterministicfake/*": {"input": 1_000_000, "output": 0}})
    cost = CostTrackingCallback(book.warm(wait=True), significant_digits=2)
    track_embeddings(fake(), cost, token_counter=words).embed_documents(TEXTS)
    assert cost.total_cost == WORDS


def test_what_is_no_embeddings_is_refused(meter: Meter) -> None:
    """The error comes at once and names what was given."""
    with pytest.raises(TypeError, match=r"must be .*Embeddings, got 'text'"):
        track_embeddings("text", meter)  # type: ignore[arg-type]


# --- being the wrapped object -------------------------------------------------------------------


def test_attributes_are_those_of_the_wrapped_object(meter: Meter) -> None:
    """Reading, setting, deleting and listing reach through."""

    class Notes(Broken):
        note = "class"

    wrapped = Notes(ValueError())
    tracked: Any = track_embeddings(wrapped, meter)
    is_embeddings = isinstance(tracked, Embeddings)
    assert is_embeddings
    assert tracked.note == "class"
    tracked.note = "set"
    assert wrapped.note == "set"
    del tracked.note
    assert wrapped.note == "class"
    assert {"note", "embed_query"} < set(dir(tracked))
    assert tracked.__wrapped__ is wrapped
    assert repr(wrapped) in repr(tracked)
    for name in ("nothing", "__nothing__"):
        with pytest.raises(AttributeError, match=name):
            getattr(tracked, name)


def test_copies_report_to_the_same_books_and_pickling_says_why_not(meter: Meter) -> None:
    """A copy holds a copy of the model; another process needs a meter of its own."""
    tracked: Any = track_embeddings(fake(), meter)
    for duplicate in (copy.copy(tracked), copy.deepcopy(tracked)):
        assert duplicate.__wrapped__ is not tracked.__wrapped__
        duplicate.embed_query("x")
    assert meter.snapshot().totals.calls == 2
    with pytest.raises(TypeError, match="__wrapped__"):
        pickle.dumps(tracked)


def test_it_serves_where_embeddings_are_asked_for(meter: Meter) -> None:
    """A pydantic field and a vector store take it as any other."""

    class Settings(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        embeddings: Embeddings

    tracked = track_embeddings(fake(), meter)
    settings = Settings(embeddings=tracked)
    assert settings.model_copy(deep=True).embeddings.embed_query("x") == fake().embed_query("x")
    store = InMemoryVectorStore(settings.embeddings)
    store.add_texts(TEXTS)
    (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke("four five")
    assert found.page_content == "four five"
    assert meter.snapshot().totals.calls == 3


def test_counts_are_exact_in_many_threads(meter: Meter) -> None:
    """8 threads of 50 calls are 400 calls."""
    tracked = track_embeddings(fake(), meter, token_counter=words)

    def work() -> None:
        for _ in range(50):
            tracked.embed_documents(TEXTS)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = meter.snapshot().totals
    assert (totals.calls, totals.tokens.input) == (400, 400 * WORDS)


# --- names --------------------------------------------------------------------------------------


def _class(name: str, **attributes: Any) -> Embeddings:
    """An integration that is not installed: its name, its module and what it shows."""
    cls = type(name, (DeterministicFakeEmbedding,), {"__module__": "langchain_community.x"})
    made = cls(size=1)
    for key, value in attributes.items():
        object.__setattr__(made, key, value)
    return made


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [
        (_class("OllamaEmbeddings", model="nomic-embed-text"), ("ollama", "nomic-embed-text")),
        (_class("CohereEmbeddings", model="embed-v4.0"), ("cohere", "embed-v4.0")),
        (_class("MistralAIEmbeddings", model="mistral-embed"), ("mistral_ai", "mistral-embed")),
        (
            _class("NVIDIAEmbeddings", model="nvidia/nv-embedqa-e5-v5"),
            ("nvidia_nim", "nvidia/nv-embedqa-e5-v5"),
        ),
        (_class("HuggingFaceEmbeddings", model_name="m/e5"), ("huggingface", "m/e5")),
        (
            _class("HuggingFaceEndpointEmbeddings", model=None, repo_id="m/e5"),
            ("huggingface", "m/e5"),
        ),
        (_class("GoogleGenerativeAIEmbeddings", model="models/g"), ("gcp.gemini", "models/g")),
        (_class("VertexAIEmbeddings", model=object(), model_name="g"), ("gcp.vertex_ai", "g")),
        (_class("BedrockEmbeddings", model_id="cohere.e3"), ("aws.bedrock", "cohere.e3")),
        (_class("OpenAIEmbeddings", model="e", base_url="https://api.x.ai/v1"), ("x_ai", "e")),
        (fake(), ("deterministicfake", "")),
        (Broken(ValueError()), ("broken", "broken-1")),
    ],
)
def test_provider_and_model_are_told_by_class_and_attributes(
    embeddings: Embeddings, expected: tuple[str, str], meter: Meter
) -> None:
    """Names are OpenTelemetry's, as those of chat models are."""
    tracked = track_embeddings(embeddings, meter)
    try:
        tracked.embed_query("x")
    except ValueError:
        assert isinstance(embeddings, Broken)
    assert list(meter.snapshot().models) == [expected]


# --- the real client ----------------------------------------------------------------------------


@pytest.fixture
def client(service: Server) -> Iterator[OpenAIEmbeddings]:
    """The real client, without the vocabulary that it would fetch from the net."""
    made = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=service.url,
        api_key="none",  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    yield made
    made.client._client.close()


def _openai_meter() -> Meter:
    book = PriceBook({"openai/text-embedding-3-small": {"input": 1_000_000, "output": 0}})
    return Meter(prices=book.warm(wait=True), significant_digits=2)


def test_the_openai_client_is_counted_and_priced_offline(client: OpenAIEmbeddings) -> None:
    """cl100k_base knows "hello world" as two tokens and " tiktoken is great!" as six in all."""
    meter = _openai_meter()
    tracked = track_embeddings(client, meter)
    # The lengths show that the arguments arrived; the tokens are those of tiktoken's own README.
    assert tracked.embed_documents(["hello world", "tiktoken is great!"]) == [[11, 1], [18, 1]]
    assert tracked.embed_query("hello world") == [11, 1]
    (name, stats), *rest = meter.snapshot().models.items()
    assert not rest
    assert name == ("openai", "text-embedding-3-small")
    assert (stats.calls, stats.tokens.input, stats.tokens.estimated) == (2, 10, 10)
    assert stats.cost == 10
    assert meter.snapshot().components["llm", "OpenAIEmbeddings"].calls == 2


def test_keyword_arguments_reach_the_client(client: OpenAIEmbeddings) -> None:
    """`chunk_size` is the client's own argument: two texts in two requests are one call."""
    meter = _openai_meter()
    tracked: Any = track_embeddings(client, meter)
    assert tracked.embed_documents(["a", "bb"], chunk_size=1) == [[1, 1], [2, 1]]
    assert tracked.model == "text-embedding-3-small"
    assert meter.snapshot().totals.calls == 1


async def test_the_async_client_is_counted(service: Server) -> None:
    """Both async methods of the real client."""
    meter = _openai_meter()
    made = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=service.url,
        api_key="none",  # type: ignore[arg-type]
        check_embedding_ctx_length=False,
    )
    tracked = track_embeddings(made, meter)
    assert await tracked.aembed_documents(["hello world"]) == [[11, 1]]
    assert await tracked.aembed_query("hello world") == [11, 1]
    assert meter.snapshot().totals.tokens.input == 4
    await made.async_client._client.close()
    made.client._client.close()


def test_an_error_of_the_service_is_an_error(client: OpenAIEmbeddings, service: Server) -> None:
    """The client's own exception reaches the caller; a failed call has no tokens."""
    service.script(Reply(status=500))
    meter = _openai_meter()
    with pytest.raises(openai.InternalServerError):
        track_embeddings(client, meter).embed_query("hello world")
    totals = meter.snapshot().totals
    assert (totals.calls, totals.errors, totals.tokens.total) == (1, 1, 0)


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"azure_deployment": "my-deployment"}, "my-deployment"),
        ({"azure_deployment": "mine", "model": "text-embedding-3-large"}, "text-embedding-3-large"),
        ({}, "text-embedding-ada-002"),
    ],
)
def test_an_azure_deployment_is_not_taken_for_the_default_model(
    service: Server, settings: dict[str, Any], model: str
) -> None:
    """AzureOpenAIEmbeddings shows a default model that it never calls."""
    made = AzureOpenAIEmbeddings(
        azure_endpoint=service.root,
        api_key="none",  # type: ignore[arg-type]
        api_version="2024-02-01",
        check_embedding_ctx_length=False,
        **settings,
    )
    meter = _openai_meter()
    track_embeddings(made, meter).embed_query("hello world")
    assert list(meter.snapshot().models) == [("azure.ai.openai", model)]
    made.client._client.close()


#: 1 USD per 1,000 tokens.
DEAR = PriceBook({"deterministicfake/*": {"input": 1000, "output": 0}})


@pytest.mark.parametrize("way", WAYS)
def test_a_budget_refuses_a_call_before_it_is_made(way: str) -> None:
    """Two calls of 5 tokens fit 12, a third does not: `BudgetExceeded`, sync and async."""
    made = []

    class Noted(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            made.append(texts)
            return super().embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            made.append([text])
            return super().embed_query(text)

    tokens = Budget(tokens=12, action="block")
    dollars = Budget(usd=1, per="day", at=[0.01])
    meter = Meter(prices=DEAR, budgets=[tokens, dollars])
    embeddings = track_embeddings(Noted(size=2), meter, token_counter=words)
    for _ in range(2):
        WAYS[way](embeddings)
    with pytest.raises(BudgetExceeded, match="10 spent of 12 tokens"):
        WAYS[way](embeddings)
    assert (len(made), tokens.spent, tokens.reserved) == (2, 10, 0)
    assert dollars.spent == meter.cost.total_cost == Decimal("0.01")
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, snapshot.in_flight) == (2, 0)
    assert snapshot.dropped == {"budget_refused": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_call_in_flight_holds_what_its_texts_cost(way: str) -> None:
    """5 tokens of input and none of output, at the list price; settled when it ends or fails."""
    held = []

    class Look(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            held.append((dollar.reserved, tokens.reserved))
            raise ConnectionError

        def embed_query(self, text: str) -> list[float]:
            held.append((dollar.reserved, tokens.reserved))
            raise ConnectionError

    dollar, tokens = Budget(usd=1, action="block"), Budget(tokens=100, action="block")
    book = PriceBook({"deterministicfake/*": {"input": 1000, "output": 5}})
    meter = Meter(prices=book, budgets=[dollar, tokens])
    with pytest.raises(ConnectionError):
        WAYS[way](track_embeddings(Look(size=2), meter, token_counter=words))
    assert held == [(Decimal("0.005"), 5)]
    assert (dollar.reserved, dollar.spent, tokens.reserved, tokens.spent) == (0, 0, 0, 0)


def test_texts_that_nobody_counts_hold_a_token_a_byte() -> None:
    """Of which nothing is spent, as their tokens stay unknown; the call is."""
    tokens, calls = Budget(tokens=100, action="block"), Budget(calls=2, action="block")
    embeddings = track_embeddings(fake(), Meter(prices=DEAR, budgets=[tokens, calls]))
    embeddings.embed_documents(TEXTS)
    with pytest.raises(BudgetExceeded, match="of 100 tokens"):
        embeddings.embed_documents(["x" * 101])
    embeddings.embed_documents(iter(TEXTS))  # type: ignore[arg-type]
    with pytest.raises(BudgetExceeded, match="of 2 calls"):
        embeddings.embed_query("x")
    assert (tokens.spent, calls.spent, calls.reserved) == (0, 2, 0)


def test_scopes_hold_for_embeddings_by_provider_and_model() -> None:
    """They have neither tags nor metadata: a budget of a tenant does not cover them."""
    ours, theirs = (
        Budget(calls=9, scope={"provider": "deterministicfake"}),
        Budget(calls=9, scope={"model": "gpt*"}),
    )
    tenant = Budget(calls=9, scope={"tenant": "a"}, action="block")
    embeddings = track_embeddings(fake(), Meter(budgets=[ours, theirs, tenant]))
    embeddings.embed_query("x")
    assert (ours.spent, theirs.spent, tenant.spent) == (1, 0, 0)


def test_thresholds_are_told_of_embeddings_too() -> None:
    """By the call that crosses one, and by the first that is refused."""
    told: list[float] = []
    done = threading.Semaphore(0)

    def tell(event: Any) -> None:
        told.append(event.fraction)
        done.release()

    budget = Budget(tokens=9, at=[0.5, 1.0], action="block", on_threshold=tell)
    embeddings = track_embeddings(fake(), Meter(budgets=[budget]), token_counter=words)
    embeddings.embed_documents(TEXTS)
    assert done.acquire(timeout=30)
    with pytest.raises(BudgetExceeded):
        embeddings.embed_documents(TEXTS)
    assert done.acquire(timeout=30)
    assert told == [0.5, 1.0]


def test_budgets_are_those_of_the_composite_whichever_part_is_given() -> None:
    """A part of a composite counts into its recorder and is held to its budgets."""
    tokens, dollar = TokenCountingCallback(limit=12), Budget(usd="0.012", action="block")
    cost = CostTrackingCallback(DEAR, budgets=[dollar])
    both = CompositeCallback([tokens, cost])
    for part in (tokens, cost):
        track_embeddings(fake(), part, token_counter=words).embed_documents(TEXTS)
    with pytest.raises(BudgetExceeded):
        track_embeddings(fake(), both, token_counter=words).embed_documents(TEXTS)
    assert tokens.budget is not None
    assert (tokens.budget.spent, dollar.spent) == (10, Decimal("0.01"))


def test_sixty_four_threads_of_embeddings_stay_within_a_budget() -> None:
    """Each call holds what it costs: exactly 200 of 640 fit 1,000 tokens of 5."""
    budget = Budget(tokens=1000, action="block")
    embeddings = track_embeddings(fake(), Meter(budgets=[budget]), token_counter=words)

    def call(_: int) -> bool:
        try:
            embeddings.embed_documents(TEXTS)
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(call, range(640))) == 200
    assert (budget.spent, budget.reserved) == (1000, 0)
