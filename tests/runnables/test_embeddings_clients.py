"""Real clients of embeddings, by class and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings

from langmeter import Meter, track_embeddings
from langmeter.prices import PriceBook
from langmeter.testing.simulator import Reply
from langmeter.testing.simulator.server import Server
from tests.support.embeddings import Broken, fake


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
