"""Provider names: OpenTelemetry's, which are ours, and everybody else's for the same provider."""

from __future__ import annotations

from typing import Final

#: Our name (`gen_ai.provider.name`) → the id in the price catalogue, where the two differ.
#: Explicit because the catalogue matches substrings: to it `azure.ai.openai` would be OpenAI.
_CATALOGUE: Final = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
}

#: Names in LangChain, LiteLLM and the catalogue → ours.
_ALIASES: Final = {
    "amazon_bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "nim": "nvidia_nim",
    "nvidia": "nvidia_nim",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "xai": "x_ai",
    "x-ai": "x_ai",
}


def canonical(provider: str) -> str:
    """Our name of a provider; an unknown name comes back in lower case."""
    name = provider.strip().lower()
    if name.startswith("vertex_ai-"):  # LiteLLM: one name per model family
        return "gcp.vertex_ai"
    return _ALIASES.get(name, name)


def catalogue_id(provider: str) -> str:
    """The price catalogue's name of a provider given by our name."""
    return _CATALOGUE.get(provider, provider)
