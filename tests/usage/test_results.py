"""Usage of a whole result: candidates, batches, messages and decisions."""

from __future__ import annotations

from decimal import Decimal

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    LLMResult,
)

from langmeter.usage import Usage, read
from tests.support.responses import RAW_OPENAI, chat, figures, usage_of


def test_every_candidate_repeats_the_usage_of_the_call() -> None:
    """With n = 2 the first candidate's usage counts, once; the name is in llm_output."""
    message = AIMessage(content="x", usage_metadata=figures(11, 26))
    result = LLMResult(
        generations=[[ChatGeneration(message=message), ChatGeneration(message=message)]],
        llm_output={"model_name": "gpt-3.5-turbo-0125", "model_provider": "openai"},
    )
    reading = read(result)
    assert reading.usage == Usage(11, 26, 37)
    assert (reading.provider, reading.model) == ("openai", "gpt-3.5-turbo-0125")


def test_usage_may_be_on_a_later_candidate() -> None:
    """The first that holds usage counts."""
    bare = ChatGeneration(message=AIMessage(content="x"))
    full = ChatGeneration(message=AIMessage(content="y", usage_metadata=figures(1, 2)))
    assert usage_of(LLMResult(generations=[[bare, full]])) == Usage(1, 2, 3)


def test_prompts_in_one_result_add_up() -> None:
    """An unflattened result of two prompts is the sum of both, billed costs included."""
    one = chat(figures(1, 2), {"cost": 0.5, "service_tier": "flex"}).generations[0]
    two = chat(figures(10, 20), {"cost": 0.25}).generations[0]
    reading = read(LLMResult(generations=[one, two]))
    assert reading.usage == Usage(11, 22, 33, tier="flex")
    assert reading.billed == Decimal("0.75")


def test_text_usage_of_a_batch_is_whole_on_its_first_run() -> None:
    """LangChain's own `flatten`: the first run has all of it, the others an empty mapping."""
    result = LLMResult(
        generations=[[Generation(text="a")], [Generation(text="b")]],
        llm_output={"token_usage": RAW_OPENAI, "model_name": "davinci-002"},
    )
    first, second = (read(part) for part in result.flatten())
    assert (first.usage, first.model, first.usage_on_first_of_batch) == (
        Usage(10, 5, 15),
        "davinci-002",
        False,
    )
    assert (second.usage, second.model, second.usage_on_first_of_batch) == (
        None,
        "davinci-002",
        True,
    )


def test_chat_usage_that_is_only_in_llm_output() -> None:
    """Integrations without usage_metadata."""
    assert usage_of(chat(llm_output={"token_usage": RAW_OPENAI})) == Usage(10, 5, 15)


def test_a_stream_names_its_model_once() -> None:
    """Merging two chunks that both carry the name, LangChain makes one double name of it."""
    chunk = AIMessageChunk(content="x", response_metadata={"model_name": "facebook/opt-125m"})
    merged = ChatGenerationChunk(message=chunk) + ChatGenerationChunk(message=chunk)
    assert merged.message.response_metadata["model_name"] == "facebook/opt-125m" * 2
    assert read(LLMResult(generations=[[merged]])).model == "facebook/opt-125m"


def test_a_message_a_chat_result_and_an_event_are_read_too() -> None:
    """What users and v3 streams hold in their hands is read like the result around it."""
    meta = {"model_name": "m", "model_provider": "xai"}
    message = AIMessage(content="x", usage_metadata=figures(1, 2), response_metadata=meta)
    expected = (Usage(1, 2, 3), "x_ai", "m")
    assert read(message)[:3] == expected
    assert read(ChatResult(generations=[ChatGeneration(message=message)]))[:3] == expected
    assert read({"event": "message-finish", "usage": figures(1, 2)}).usage == Usage(1, 2, 3)


def test_a_decision_models_outputs_are_read() -> None:
    """A response object with `usage` and `model`, as langchain-core 1.8 hands to on_chain_end."""

    class Response:
        model = "judge-1"
        usage = figures(30, 1)

    assert read(Response())[:3] == (Usage(30, 1, 31), "", "judge-1")
    assert read({"model": "judge-1", "usage": figures(30, 1)})[:3] == (
        Usage(30, 1, 31),
        "",
        "judge-1",
    )
