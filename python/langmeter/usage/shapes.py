"""Every provider's way of writing down usage, told by its keys.

One mapping of usage in, one `Usage` out. Where a mapping comes from is `careful`'s concern.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from langmeter.usage.tally import Tally
from langmeter.usage.types import Usage

#: Usage as LangChain hands it on; it makes dicts of everything.
Raw = dict[Any, Any]


def _inverted(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {key: field for field, keys in table.items() for key in keys}


# What a key of a usage mapping means. LangChain's own words, OpenAI's (spoken by Groq, Mistral,
# DeepSeek, NVIDIA, Fireworks and most servers), Anthropic's, Google's in both spellings, Bedrock's,
# watsonx's and Ollama's; no word means two things.
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "input": (
        "input_tokens",
        "prompt_tokens",
        "prompt_token_count",
        "promptTokenCount",
        "inputTokens",
        "inputTokenCount",
        "input_token_count",
        "prompt_eval_count",
    ),
    "output": (
        "output_tokens",
        "completion_tokens",
        "candidates_token_count",
        "candidatesTokenCount",
        "outputTokens",
        "outputTokenCount",
        "generated_token_count",
        "eval_count",
    ),
    "total": ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens"),
    "into": (
        "input_token_details",
        "prompt_tokens_details",
        "input_tokens_details",
        "promptTokensDetails",
    ),
    "out_of": (
        "output_token_details",
        "completion_tokens_details",
        "output_tokens_details",
        "candidates_tokens_details",
        "candidatesTokensDetails",
    ),
    # Anthropic and Bedrock: beside the input.
    "read_beside": ("cache_read_input_tokens", "cacheReadInputTokens"),
    "write_beside": (
        "cache_creation_input_tokens",
        "cacheWriteInputTokens",
        "cache_write_input_tokens",
    ),
    "lifetimes": ("cache_creation", "cacheDetails"),
    # Mistral, Moonshot, DeepSeek and Google: within the input.
    "read_within": (
        "num_cached_tokens",
        "cached_tokens",
        "prompt_cache_hit_tokens",
        "cached_content_token_count",
        "cachedContentTokenCount",
    ),
    # Google: beside the input and beside the output.
    "tool_prompt": ("tool_use_prompt_token_count", "toolUsePromptTokenCount"),
    "thoughts": ("thoughts_token_count", "thoughtsTokenCount"),
    # Perplexity: in no details.
    "reasoning": ("reasoning_tokens",),
    "searches": ("num_search_queries",),
    "tools": ("server_tool_use",),
    "tier": ("service_tier",),
}
_FIELD_OF: Final = _inverted(_FIELDS)
#: By one of these keys a mapping of usage is known.
MARKS: Final = frozenset((*_FIELDS["input"], *_FIELDS["output"]))
INPUT_DETAILS: Final = _FIELDS["into"]
OUTPUT_DETAILS: Final = _FIELDS["out_of"]

# The same for the keys of details.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "cache_read": ("cache_read", "cached_tokens"),
    "cache_write": ("cache_creation", "cache_write_tokens", "cache_creation_tokens"),
    "five": ("ephemeral_5m_input_tokens",),
    "hour": ("ephemeral_1h_input_tokens",),
    "reasoning": ("reasoning", "reasoning_tokens", "thinking_tokens"),
    "audio": ("audio", "audio_tokens"),
    "image": ("image", "image_tokens"),
    "video": ("video", "video_tokens"),
}
_PART_OF: Final = _inverted(_PARTS)
# LangChain renames the keys of OpenAI's tiers, and keeps the uncached rest under the tier's name.
_TIER_OF: Final = {
    key: (tier, part)
    for tier in ("flex", "priority", "batch", "scale")
    for key, part in (
        (tier, ""),
        (f"{tier}_cache_read", "cache_read"),
        (f"{tier}_cache_creation", "cache_write"),
        (f"{tier}_reasoning", "reasoning"),
    )
}
_LIFETIMES: Final = {"5m": "five", "1h": "hour"}

#: Words for the default service tier.
STANDARD: Final = frozenset({"", "default", "standard", "auto", "on_demand", "standard_only"})
# 1 USD is 10^10 of xAI's ticks.
_TICKS: Final = 10


def entry(mapping: Any, *keys: str) -> Any:
    """The first of these entries that is not None, else None; None too if `mapping` is no dict."""
    if isinstance(mapping, dict):
        for key in keys:
            value = mapping.get(key)
            if value is not None:
                return value
    return None


def tier_name(value: Any) -> str:
    """A service tier as `Usage.tier` has it: "" for the default one and for what is no name."""
    if not isinstance(value, str):
        return ""
    name = value.strip().lower()
    return "" if name in STANDARD else name


def from_mapping(raw: Raw, tally: Tally) -> Usage | None:
    """Read one mapping of usage, whoever wrote it. None if not one number is in its sums."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        field = _FIELD_OF.get(key)
        if field is not None and value is not None and field not in found:
            found[field] = value
    get, count = found.get, tally.count
    sums = ("input" in found) + ("output" in found)
    before = tally.refused
    inputs, outputs = count(get("input")), count(get("output"))
    if tally.refused - before == sums:
        return None  # as good as no usage, so that it can be estimated

    total = count(get("total"))
    into, tier = _details(get("into"), tally)
    out_of, tier_out = _details(get("out_of"), tally)
    _add_lifetimes(into, get("lifetimes"), tally)
    beside_read, beside_write = count(get("read_beside")), count(get("write_beside"))
    cache_read = into["cache_read"] or beside_read or count(get("read_within"))
    # Where the lifetimes are given, LangChain leaves 0 in the sum; adding both counts them twice.
    cache_write = into["cache_write"] or beside_write or into["five"] + into["hour"]
    if (beside_read or beside_write) and "into" not in found:
        inputs += cache_read + cache_write
        total = max(total, inputs + outputs)

    inputs += count(get("tool_prompt"))
    thoughts = count(get("thoughts"))
    outputs += thoughts
    return Usage(
        input=inputs,
        output=outputs,
        total=total or inputs + outputs,
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=into["hour"],
        reasoning=out_of["reasoning"] or thoughts or count(get("reasoning")),
        audio_input=into["audio"],
        audio_output=out_of["audio"],
        image_input=into["image"],
        image_output=out_of["image"],
        video_input=into["video"],
        video_output=out_of["video"],
        web_searches=count(entry(get("tools"), "web_search_requests")) or count(get("searches")),
        tier=tier_name(get("tier")) or tier or tier_out,
    )


def _details(details: Any, tally: Tally) -> tuple[dict[str, int], str]:
    """The parts that these details name, and the tier if one is in the keys."""
    parts = dict.fromkeys(_PARTS, 0)
    tier = ""
    if isinstance(details, dict):
        for key, value in details.items():
            part = _PART_OF.get(key)
            if part is not None:
                parts[part] = parts[part] or tally.count(value)
            elif key in _TIER_OF:
                tier, part = _TIER_OF[key]
                if part:
                    parts[part] += tally.count(value)
    elif isinstance(details, list):  # Google: by modality
        for item in details:
            part = str(entry(item, "modality")).rpartition(".")[2].lower()
            if part in ("audio", "image", "video"):
                parts[part] += tally.count(entry(item, "token_count", "tokenCount"))
    return parts, tier


def _add_lifetimes(parts: dict[str, int], lifetimes: Any, tally: Tally) -> None:
    """Cache writes by lifetime: a mapping from Anthropic, a list from Bedrock."""
    if isinstance(lifetimes, dict):
        for key in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"):
            parts[_PART_OF[key]] += tally.count(lifetimes.get(key))
    elif isinstance(lifetimes, list):
        for item in lifetimes:
            part = _LIFETIMES.get(str(entry(item, "ttl")))
            if part is not None:
                parts[part] += tally.count(entry(item, "inputTokens"))


def completed(usage: Usage, by: Usage, *, input_parts: bool, output_parts: bool) -> Usage:
    """With what LangChain's figures lack taken from the provider's raw ones.

    Image tokens, searches and the tier have no word in LangChain's; the parts of the input and of
    the output are taken where it has none at all (Mistral's cached tokens).
    """
    usage = usage._replace(
        image_input=usage.image_input or by.image_input,
        image_output=usage.image_output or by.image_output,
        video_input=usage.video_input or by.video_input,
        video_output=usage.video_output or by.video_output,
        web_searches=usage.web_searches or by.web_searches,
        tier=usage.tier or by.tier,
    )
    if input_parts:
        usage = usage._replace(
            cache_read=by.cache_read,
            cache_write=by.cache_write,
            cache_write_1h=by.cache_write_1h,
            audio_input=by.audio_input,
        )
    if output_parts:
        usage = usage._replace(reasoning=by.reasoning, audio_output=by.audio_output)
    return usage


def balanced(usage: Usage, dialect: str) -> Usage:
    """With the sum repaired in two ways that the figures themselves show. `dialect` as LangChain's.

    xAI and Google's OpenAI endpoint leave the reasoning out of the output, not out of the total.
    Google's chunks are differences, of which LangChain cuts the total, but not the input, at 0:
    after a correction downwards the merged total is too high. There the parts make the whole.
    """
    parts = usage.input + usage.output
    if usage.reasoning and usage.total == parts + usage.reasoning:
        return usage._replace(output=usage.output + usage.reasoning)
    if dialect == "google_genai" and usage.total > parts:
        return usage._replace(total=parts)
    return usage


def added(usages: Sequence[Usage]) -> Usage:
    """The sum of at least one, with the first tier that is not the default one."""
    if len(usages) == 1:
        return usages[0]
    tier = next((usage.tier for usage in usages if usage.tier), "")
    return Usage._make((*map(sum, zip(*(usage[:-1] for usage in usages), strict=True)), tier))


def billed(raw: Raw, tally: Tally) -> Decimal | None:
    """What the provider says this call cost, in USD: OpenRouter, Perplexity, xAI."""
    cost = raw.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is not None:
        return tally.money(cost)
    ticks = raw.get("cost_in_usd_ticks")
    amount = None if ticks is None else tally.money(ticks)
    return None if amount is None else amount.scaleb(-_TICKS)
