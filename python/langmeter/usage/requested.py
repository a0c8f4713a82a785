"""Whom and what a call asks for: provider and model, by what a start hook is given."""

from __future__ import annotations

import re
from typing import Any, Final

from langmeter import _core
from langmeter._base.provider_names import provider_at, provider_name

# Clients whose protocol other vendors speak too: for these the address tells more than the class.
_DIALECTS: Final = frozenset({"openai", "anthropic", "gcp.gemini"})

_ADDRESSES: Final = _core.ADDRESS_KEYS
_MODELS: Final = _core.MODEL_KEYS
_DEPLOYMENTS: Final = _core.DEPLOYMENT_KEYS

_IN_ADDRESS: Final = re.compile(r"/deployments/([^/?#]+)")


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
    """Return the `(provider, model)` that a call requests, each "" if it is not known.

    Takes what the start hooks get, in any state. The class of the client names the provider; for
    clients whose protocol others speak (ChatOpenAI, ChatAnthropic, ChatGoogleGenerativeAI) a known
    vendor's base URL overrides it; a name under `langmeter_provider` in the metadata overrides
    both. Never raises.
    """
    return asked(metadata, invocation_params, serialized)[:2]


def asked(
    metadata: Any, invocation_params: Any, serialized: Any
) -> tuple[str, str, bool, str, str]:
    """Return provider, model, whether an address could change them, the deployment, the vendor.

    The address is one of the invocation parameters; the deployment is "" where nothing names one.
    The vendor is LangChain's name of the provider, where the metadata name it otherwise, else "".
    """
    try:
        vendor, model, by_address = _asked(metadata, invocation_params, serialized)
        deployment = _deployment(vendor, invocation_params, serialized)
        name = text(metadata, _core.PROVIDER_KEY).strip()
        if not name:
            return vendor, model, by_address, deployment, ""
        return name, model, by_address, deployment, "" if provider_name(name) == vendor else vendor
    except Exception:  # foreign mappings may raise anything; an unnamed call is still metered
        return "", "", True, "", ""


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


def _deployment(provider: str, invocation_params: Any, serialized: Any) -> str:
    """Azure's name of what was called, or the ARN of Bedrock's: a user may have set its price."""
    made = serialized.get("kwargs") if isinstance(serialized, dict) else None
    named = text(invocation_params, *_DEPLOYMENTS) or text(made, *_DEPLOYMENTS)
    if not named and provider == "azure.ai.openai":
        # ChatOpenAI at the address of a deployment, which a client may name in either place.
        addresses = text(made, *_ADDRESSES), text(invocation_params, *_ADDRESSES)
        named = next((at[1] for at in map(_IN_ADDRESS.search, addresses) if at), "")
    if not named and provider == "aws.bedrock":
        arn = text(made, "model_id", "model")
        named = arn if arn.startswith("arn:") else ""
    return named


def _bedrock_model(model: str, made: Any) -> str:
    """The inference profile that was called, where its ARN names the model.

    langchain-aws shows `base_model_id` instead of an ARN, which is only the user's word for what is
    behind it; an opaque ARN (application profile, provisioned throughput) leaves nothing better.
    """
    arn = text(made, "model_id", "model")
    named = arn.startswith("arn:") and (":inference-profile/" in arn or ":foundation-model/" in arn)
    return arn if named and model == text(made, "base_model_id") else model
