"""Names of providers: OpenTelemetry's where it has one, and all others for the same provider."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

#: Names in LangChain (`ls_provider`, `model_provider`, classes), LiteLLM and the price catalogue →
#: `gen_ai.provider.name`. A name that is not here is its own name, in lower case: "cerebras",
#: "ollama", "openrouter"…
PROVIDER_NAMES: Final[dict[str, str]] = {
    "amazon_bedrock": "aws.bedrock",
    "anthropic-bedrock": "aws.bedrock",
    "anthropic-mantle": "aws.bedrock",
    "openai-mantle": "aws.bedrock",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "bedrockconverse": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "azureopenai": "azure.ai.openai",
    "azurechatopenai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_ai_studio": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "googlegenerativeai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "google_anthropic_vertex": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "watsonx": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "nim": "nvidia_nim",
    "nvidia": "nvidia_nim",
    "nvidia-ai-endpoints": "nvidia_nim",
    "nvidia_ai_endpoints": "nvidia_nim",
    "openai-codex": "openai",
    "text-completion-openai": "openai",
    "together-ai": "together",
    "together_ai": "together",
    "togetherai": "together",
    "x-ai": "x_ai",
    "xai": "x_ai",
}

#: The same → the id in the price catalogue, where the two differ. Explicit because the catalogue
#: matches substrings: to it `azure.ai.openai` would be OpenAI.
_CATALOGUE_IDS: Final = {
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

#: Hosts, by the end of their name.
_HOSTS: Final[dict[str, str]] = {
    "anthropic.com": "anthropic",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "baseten.co": "baseten",
    "bigmodel.cn": "zhipuai",
    "cerebras.ai": "cerebras",
    "cloudflare.com": "cloudflare",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "databricks.com": "databricks",
    "azuredatabricks.net": "databricks",
    "deepinfra.com": "deepinfra",
    "deepseek.com": "deepseek",
    "fireworks.ai": "fireworks",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "githubcopilot.com": "github-copilot",
    "groq.com": "groq",
    "huggingface.co": "huggingface",
    "inference.ai.azure.com": "azure.ai.inference",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "minimax.io": "minimax",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "moonshot.cn": "moonshot_ai",
    "nebius.com": "nebius",
    "novita.ai": "novita",
    "nvidia.com": "nvidia_nim",
    "openai.azure.com": "azure.ai.openai",
    "openai.com": "openai",
    "openrouter.ai": "openrouter",
    "perplexity.ai": "perplexity",
    "sambanova.ai": "sambanova",
    "services.ai.azure.com": "azure.ai.inference",
    "snowflakecomputing.com": "snowflake",
    "together.ai": "together",
    "together.xyz": "together",
    "x.ai": "x_ai",
    "z.ai": "zai",
}

_OLLAMA_PORT: Final = 11434


@lru_cache(maxsize=1024)
def provider_name(name: str) -> str:
    """Return our name of a provider; an unknown name in lower case, and "" for ""."""
    plain = name.strip().lower()
    if plain.startswith("vertex_ai-"):  # LiteLLM: one name for each family of models
        return "gcp.vertex_ai"
    return PROVIDER_NAMES.get(plain) or _BY_LETTERS.get(_letters(plain), plain)


def _letters(name: str) -> str:
    """Return a name without what packages, classes and people put between its words."""
    return "".join(filter(str.isalnum, name)).removeprefix("langchain")


_OURS: Final = (
    *("anthropic", "cerebras", "cohere", "databricks", "deepseek", "fireworks", "groq"),
    *("huggingface", "ollama", "openai", "openrouter", "perplexity", "together"),
)
#: Our names by their letters alone: "google-genai", "Together AI", "langchain-mistralai".
_BY_LETTERS: Final = {
    _letters(name): ours
    for names in (
        PROVIDER_NAMES,
        {ours: ours for ours in PROVIDER_NAMES.values()},
        dict(zip(_OURS, _OURS, strict=True)),
    )
    for name, ours in names.items()
}


def catalogue_id(provider: str) -> str:
    """Return the price catalogue's name of a provider given by our name."""
    return _CATALOGUE_IDS.get(provider, provider)


@lru_cache(maxsize=1024)
def provider_at(url: str) -> str:
    """Return the provider known to answer at this address, "" if none is known."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if port == _OLLAMA_PORT:
        return "ollama"
    if "bedrock" in host and host.endswith((".amazonaws.com", ".api.aws")):
        return "aws.bedrock"
    while host:
        if host in _HOSTS:
            return _HOSTS[host]
        if host.endswith("-aiplatform.googleapis.com"):
            return "gcp.vertex_ai"
        host = host.partition(".")[2]
    return ""
