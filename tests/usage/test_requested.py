"""`usage.requested`: who is asked, in OpenTelemetry's words."""

from __future__ import annotations

from typing import Any

import pytest

from langmeter._base.provider_names import provider_at, provider_name
from langmeter.usage import requested

# The well-known values of gen_ai.provider.name.
WELL_KNOWN = {
    "anthropic",
    "aws.bedrock",
    "azure.ai.inference",
    "azure.ai.openai",
    "cohere",
    "deepseek",
    "gcp.gemini",
    "gcp.vertex_ai",
    "groq",
    "ibm.watsonx.ai",
    "mistral_ai",
    "openai",
    "perplexity",
    "x_ai",
}


@pytest.mark.parametrize(
    ("ls_provider", "name"),
    [
        ("openai", "openai"),
        ("openai-codex", "openai"),
        ("azure", "azure.ai.openai"),
        ("anthropic", "anthropic"),
        ("anthropic-bedrock", "aws.bedrock"),
        ("amazon_bedrock", "aws.bedrock"),
        ("google_genai", "gcp.gemini"),
        ("google_vertexai", "gcp.vertex_ai"),
        ("mistral", "mistral_ai"),
        ("groq", "groq"),
        ("deepseek", "deepseek"),
        ("xai", "x_ai"),
        ("cohere", "cohere"),
        ("perplexity", "perplexity"),
        ("ibm", "ibm.watsonx.ai"),
    ],
)
def test_langchains_names_become_well_known_ones(ls_provider: str, name: str) -> None:
    """Each `ls_provider` of an integration's `_get_ls_params` has its OpenTelemetry name."""
    assert name in WELL_KNOWN
    assert requested({"ls_provider": ls_provider, "ls_model_name": "m"}) == (name, "m")


@pytest.mark.parametrize(
    ("ls_provider", "name"),
    [
        ("NVIDIA", "nvidia_nim"),
        ("ollama", "ollama"),
        ("openrouter", "openrouter"),
        ("fireworks", "fireworks"),
        ("together", "together"),
        ("SomeNewVendor", "somenewvendor"),
        ("", ""),
    ],
)
def test_other_providers_are_named_as_themselves(ls_provider: str, name: str) -> None:
    """In lower case; ChatNVIDIA's is `nvidia_nim`."""
    assert provider_name(ls_provider) == name


@pytest.mark.parametrize(
    ("url", "vendor"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://my-org.openai.azure.com/", "azure.ai.openai"),
        ("https://my.cognitiveservices.azure.com", "azure.ai.openai"),
        ("https://my.services.ai.azure.com/models", "azure.ai.inference"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://integrate.api.nvidia.com/v1", "nvidia_nim"),
        ("https://user:pw@API.GROQ.com:443/openai/v1", "groq"),
        ("api.mistral.ai/v1", "mistral_ai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gcp.gemini"),
        ("https://us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "aws.bedrock"),
        ("https://runtime.sagemaker.us-east-1.amazonaws.com", ""),
        ("http://localhost:11434/v1", "ollama"),
        ("http://localhost:8000/v1", ""),
        ("https://notopenai.com", ""),
        ("https://openai.com.evil.example", ""),
        ("http://[::1", ""),
        ("http://host:port", ""),
        ("", ""),
    ],
)
def test_a_vendor_is_known_by_its_host(url: str, vendor: str) -> None:
    """By whole labels from the right; an unknown or unreadable address names no provider."""
    assert provider_at(url) == vendor


def made(**kwargs: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "kwargs": kwargs, "name": None}


@pytest.mark.parametrize(
    ("ls_provider", "serialized", "params", "name"),
    [
        ("openai", made(openai_api_base="https://api.deepseek.com/v1"), None, "deepseek"),
        ("openai", made(openai_api_base="http://10.0.0.1:8000/v1"), None, "openai"),
        ("openai", made(), {"base_url": "https://api.together.xyz/v1"}, "together"),
        ("openai", {"type": "not_implemented"}, None, "openai"),
        ("anthropic", made(anthropic_api_url="https://api.z.ai/api/anthropic"), None, "zai"),
        ("azure", made(azure_endpoint="https://proxy.openai.com"), None, "azure.ai.openai"),
        ("google_genai", made(vertexai=True), None, "gcp.vertex_ai"),
        ("google_genai", made(project="p"), None, "gcp.vertex_ai"),
        ("google_genai", made(project="p", vertexai=False), None, "gcp.gemini"),
        ("google_genai", made(model="gemini"), None, "gcp.gemini"),
        ("", made(base_url="https://api.fireworks.ai/inference/v1"), None, "fireworks"),
        ("groq", made(base_url="https://api.openai.com"), None, "groq"),
        ("", {"name": "ChatOllama"}, None, "ollama"),
        ("", {"name": "OllamaLLM"}, None, "ollama"),
        ("", {"name": "AzureOpenAI"}, None, "azure.ai.openai"),
        ("", {"name": "NVIDIA"}, None, "nvidia_nim"),
        ("", {"name": "BedrockLLM"}, None, "aws.bedrock"),
        ("", {"name": "Chat"}, None, ""),
    ],
)
def test_the_address_tells_whom_a_dialect_is_spoken_to(
    ls_provider: str, serialized: Any, params: Any, name: str
) -> None:
    """Only for clients that others' servers answer to; an unknown address changes nothing."""
    assert requested({"ls_provider": ls_provider}, params, serialized)[0] == name


@pytest.mark.parametrize(
    ("metadata", "params", "model"),
    [
        ({"ls_model_name": "gpt-4o"}, {"model": "other"}, "gpt-4o"),
        ({"ls_model_name": None}, {"model": None, "model_name": "gpt-4o"}, "gpt-4o"),
        ({}, {"azure_deployment": "prod"}, "prod"),
        ({"ls_model_name": "UNKNOWN"}, None, ""),
        (None, None, ""),
    ],
)
def test_the_requested_model(metadata: Any, params: Any, model: str) -> None:
    """LangSmith's parameter first, then the invocation parameters; ChatNVIDIA's UNKNOWN is none."""
    assert requested(metadata, params)[1] == model


def test_an_inference_profile_that_names_its_model_is_kept() -> None:
    """langchain-aws shows base_model_id in its place, which need not be what is behind it."""
    named = "arn:aws:bedrock:us-east-1:012345678901:inference-profile/us.anthropic.claude-x-v1:0"
    opaque = "arn:aws:bedrock:us-east-1:012345678901:application-inference-profile/abc123"
    metadata = {"ls_provider": "amazon_bedrock", "ls_model_name": "base"}
    for arn, model in ((named, named), (opaque, "base")):
        serialized = made(model_id=arn, base_model_id="base")
        assert requested(metadata, None, serialized) == ("aws.bedrock", model)
    # a model bound for this call is neither
    metadata["ls_model_name"] = "bound"
    assert requested(metadata, None, made(model_id=named, base_model_id="base"))[1] == "bound"


def test_a_mapping_that_raises_names_nothing() -> None:
    """The call is metered all the same."""

    class Hostile(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise RuntimeError

    assert requested(Hostile(), Hostile(), Hostile()) == ("", "")
