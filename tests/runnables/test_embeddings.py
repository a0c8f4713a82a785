"""Embeddings fire no callbacks: what the wrapper counts, and that it is otherwise not there."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, ConfigDict

import langmeter
from langmeter import CostTrackingCallback, Meter, track_embeddings
from langmeter.callbacks.services import Services
from langmeter.prices import PriceBook
from tests.support.counted import words
from tests.support.embeddings import TEXTS, WAYS, Broken, fake

WORDS = 5


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
