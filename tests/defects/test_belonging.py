"""Which calls belong to an attempt, and which model an attempt belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from langmeter import Meter, track_embeddings
from tests.support.models import chat_model


def _model(name: str, *, fails: bool = False) -> GenericFakeChatModel:
    llm = chat_model(metadata={"model_name": name, "model_provider": "openai"})
    llm.metadata = {"ls_provider": "openai", "ls_model_name": name}
    if fails:
        llm.messages = iter(())  # StopIteration
    return llm


def _models(meter: Meter) -> list[str]:
    return sorted(model for _, _, model, _ in meter.snapshot().defects)


@pytest.mark.parametrize(
    ("calls", "model"),
    [
        ([("small", True)], "small"),
        ([("small", True), ("large", True)], "large"),
        ([("small", False), ("large", True)], "small"),
        ([("small", True), ("large", False)], "large"),
    ],
)
def test_an_attempt_belongs_to_the_last_model_that_answered_else_to_the_last_called(
    calls: list[tuple[str, bool]], model: str
) -> None:
    """A model whose every call failed has a row of its own, outside of its success rate."""
    meter = Meter()
    with meter.defects.attempt("D"):
        for name, fails in calls:
            try:
                _model(name, fails=fails).invoke("q", config={"callbacks": [meter]})
            except (RuntimeError, StopIteration):
                assert fails
    assert _models(meter) == [model]
    [row] = meter.snapshot().defects.values()
    assert (row.calls.calls, row.scored) == (len(calls), 0)


def _embedding(meter: Meter) -> Any:
    embeddings = DeterministicFakeEmbedding(size=4)
    return track_embeddings(embeddings, meter, token_counter=lambda text: len(text.split()))


async def test_embeddings_count_to_the_attempt_and_answer_nothing() -> None:
    """In a block; the attempt belongs to the chat model, although an embedding came after it."""
    meter = Meter()
    embeddings = _embedding(meter)
    embeddings.embed_query("outside of it")
    async with meter.defects.attempt("D"):
        _model("small").invoke("q", config={"callbacks": [meter]})
        embeddings.embed_query("two words")
        await embeddings.aembed_documents(["three more words"])
    assert _models(meter) == ["small"]
    [row] = meter.snapshot().defects.values()
    assert (row.calls.calls, row.tokens.input) == (3, 105)
    with meter.defects.attempt("E", type="no answer"):
        embeddings.embed_query("two words")
    row = meter.snapshot().defects["no answer", "", "", ""]
    assert (row.calls.calls, row.funnel["asked"], row.funnel["answered"]) == (1, 1, 0)


def test_embeddings_below_a_marked_run_count_to_its_attempt() -> None:
    """LangChain's context names the run, in a step of a chain too."""
    meter = Meter()
    embeddings = _embedding(meter)
    step: Runnable[Any, Any] = RunnableLambda(embeddings.embed_query)
    marked: Any = {"callbacks": [meter], "metadata": {"defect_id": "D"}}
    (step | RunnableLambda(lambda vector: vector)).invoke("two words", config=marked)
    [row] = meter.snapshot().defects.values()
    assert (row.calls.calls, row.tokens.input) == (1, 2)


def test_an_event_in_a_block_below_a_marked_run_is_a_verdict_on_the_block() -> None:
    """Of a block and a run around it, the one that began later counts."""
    meter = Meter()

    def work(value: str) -> str:
        with meter.defects.attempt("inner", type="inner"):
            dispatch_custom_event("langmeter.fix", {"outcome": "fixed"})
        return value

    marked: Any = {"callbacks": [meter], "metadata": {"defect_id": "outer", "type": "outer"}}
    RunnableLambda(work).invoke("q", config=marked)
    rows = meter.snapshot().defects
    assert {key[0]: row.fixed for key, row in rows.items()} == {"inner": 1, "outer": 0}


def test_ids_of_defects_are_told_apart_beyond_64_characters() -> None:
    """Paths and fingerprints have long beginnings in common; a mark and a block agree on them."""
    meter = Meter()
    path = "src/" + "module/" * 20
    for defect in (path + "a.c:10", path + "b.c:10"):
        with meter.defects.attempt(defect) as attempt:
            config: Any = {"callbacks": [meter], "metadata": {"defect_id": defect}}
            _model("small").invoke("q", config=config)
        attempt.succeeded()
        assert attempt.defect_id == defect[:64]
        assert "module" not in attempt.receipt
    [row] = meter.snapshot().defects.values()
    assert (row.attempts, row.defects, row.fixed) == (2, 2, 2)
    assert "module" not in meter.snapshot().to_json()
