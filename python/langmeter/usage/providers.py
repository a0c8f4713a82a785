"""Provider and model names: the words of OpenTelemetry GenAI, where it has one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from langmeter import _core

# LangChain's `ls_provider` and `model_provider` → `gen_ai.provider.name`. A name that is not
# here is its own name, in lower case: "cerebras", "fireworks", "ollama", "openrouter", "together"…
_NAMES: Final[dict[str, str]] = {
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
    "azureopenai": "azure.ai.openai",
    "azurechatopenai": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "google": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "googlegenerativeai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "google_anthropic_vertex": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "watsonx": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "nvidia": "nvidia_nim",
    "nvidia-ai-endpoints": "nvidia_nim",
    "nvidia_ai_endpoints": "nvidia_nim",
    "openai-codex": "openai",
    "together-ai": "together",
    "togetherai": "together",
    "x-ai": "x_ai",
    "xai": "x_ai",
}

# Hosts, by the end of their name.
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
    "moonshot.ai": "moonshotai",
    "moonshot.cn": "moonshotai",
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

# Clients whose protocol other vendors speak too: for these the address tells more than the class.
_DIALECTS: Final = frozenset({"openai", "anthropic", "gcp.gemini"})

_ADDRESSES: Final = _core.ADDRESS_KEYS
_MODELS: Final = _core.MODEL_KEYS

_OLLAMA_PORT: Final = 11434


@lru_cache(maxsize=1024)
def provider_name(name: str) -> str:
    """LangChain's name of a provider in OpenTelemetry's words; "" stays ""."""
    plain = name.strip().lower()
    return _NAMES.get(plain, plain)


@lru_cache(maxsize=1024)
def provider_at(url: str) -> str:
    """The vendor known to answer at this address, "" if none is known."""
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


def text(mapping: Any, *keys: str) -> str:
    """The first of these entries that is a non-empty string, else ""."""
    if isinstance(mapping, dict):
        for key in keys:
            value = mapping.get(key)
            if value and isinstance(value, str):
                return value
    return ""


def requested(
    metadata: Any, invocation_params: Any = None, serialized: Any = None
) -> tuple[str, str]:
    """Who and what a call asks for: `(provider, model)`, each "" when nothing tells.

    Takes what the start hooks get, in any state. The class of the client names the provider; for
    clients whose protocol others speak (ChatOpenAI, ChatAnthropic, ChatGoogleGenerativeAI) a known
    vendor's base URL overrides it. Never raises.
    """
    return asked(metadata, invocation_params, serialized)[:2]


def asked(metadata: Any, invocation_params: Any, serialized: Any) -> tuple[str, str, bool]:
    """The same, and whether an address in the invocation parameters could change the provider."""
    try:
        return _asked(metadata, invocation_params, serialized)
    except Exception:  # foreign mappings may raise anything; an unnamed call is still metered
        return "", "", True


def _asked(metadata: Any, invocation_params: Any, serialized: Any) -> tuple[str, str, bool]:
    made = serialized.get("kwargs") if isinstance(serialized, dict) else None
    provider = provider_name(text(metadata, "ls_provider") or _class_name(serialized))
    fixed = provider_at(text(made, *_ADDRESSES))
    by_address = (provider in _DIALECTS or not provider) and not fixed
    if provider in _DIALECTS or not provider:
        fixed = fixed or provider_at(text(invocation_params, *_ADDRESSES))
        if fixed:
            provider = fixed
        elif provider == "gcp.gemini" and isinstance(made, dict) and _is_vertex(made):
            provider = "gcp.vertex_ai"
    model = text(metadata, "ls_model_name") or text(invocation_params, *_MODELS)
    if provider == "aws.bedrock":
        model = _bedrock_model(model, made)
    # ChatNVIDIA's word for no model.
    return provider, "" if model == "UNKNOWN" else model, by_address


def _class_name(serialized: Any) -> str:
    """The client's class without "Chat" and "LLM", as LangChain guesses a provider.

    `generate` of a text model gives its start hook no `ls_provider`.
    """
    name = text(serialized, "name")
    return name.removeprefix("Chat").removesuffix("Chat").removesuffix("LLM")


def _is_vertex(made: dict[Any, Any]) -> bool:
    """Whether a ChatGoogleGenerativeAI made with these arguments talks to Vertex AI."""
    chosen = made.get("vertexai")
    return bool(made.get("project")) if chosen is None else bool(chosen)


def _bedrock_model(model: str, made: Any) -> str:
    """The inference profile that was called, where its ARN names the model.

    langchain-aws shows `base_model_id` instead of an ARN, which is only the user's word for what is
    behind it; an opaque ARN (application profile, provisioned throughput) leaves nothing better.
    """
    arn = text(made, "model_id", "model")
    named = arn.startswith("arn:") and (":inference-profile/" in arn or ":foundation-model/" in arn)
    return arn if named and model == text(made, "base_model_id") else model
