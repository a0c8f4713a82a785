"""Every provider's way of writing down usage, told by its keys.

One mapping of usage in, one `Usage` out. Where a mapping comes from is `reader`'s concern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from langmeter.usage.tally import Tally
from langmeter.usage.types import Usage

Raw = Mapping[Any, Any]

# The first key that is present and not None wins. LangChain's own words come first, then OpenAI's
# (which Groq, Mistral, DeepSeek, NVIDIA, Fireworks and most servers speak), Google's in both
# spellings, Bedrock's, watsonx's and Ollama's.
_INPUT: Final = (
    "input_tokens",
    "prompt_tokens",
    "prompt_token_count",
    "promptTokenCount",
    "inputTokens",
    "inputTokenCount",
    "input_token_count",
    "prompt_eval_count",
)
_OUTPUT: Final = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "candidatesTokenCount",
    "outputTokens",
    "outputTokenCount",
    "generated_token_count",
    "eval_count",
)
_TOTAL: Final = ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens")
INPUT_DETAILS: Final = (
    "input_token_details",
    "prompt_tokens_details",
    "input_tokens_details",
    "promptTokensDetails",
)
OUTPUT_DETAILS: Final = (
    "output_token_details",
    "completion_tokens_details",
    "output_tokens_details",
    "candidates_tokens_details",
    "candidatesTokensDetails",
)
# Keys of Anthropic and Bedrock, whose input does not include them.
_READ_BESIDE: Final = ("cache_read_input_tokens", "cacheReadInputTokens")
_WRITE_BESIDE: Final = (
    "cache_creation_input_tokens",
    "cacheWriteInputTokens",
    "cache_write_input_tokens",
)
# Keys for a part of the input, outside of any details: Mistral, Moonshot, DeepSeek, Google.
_READ_WITHIN: Final = (
    "num_cached_tokens",
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "cached_content_token_count",
    "cachedContentTokenCount",
)
_TOOL_PROMPT: Final = ("tool_use_prompt_token_count", "toolUsePromptTokenCount")
_THOUGHTS: Final = ("thoughts_token_count", "thoughtsTokenCount")
_TIERS: Final = ("flex", "priority", "batch", "scale")
#: Words for the default service tier.
STANDARD: Final = frozenset({"", "default", "standard", "auto", "on_demand", "standard_only"})
# 1 USD is 10^10 of xAI's ticks.
_TICKS: Final = 10

#: Keys that only usage mappings have, of every shape; by these `reader` finds one.
MARKS: Final = frozenset((*_INPUT, *_OUTPUT))


def entry(mapping: Any, *keys: str) -> Any:
    """The first of these entries that is not None, else None; None too if `mapping` is none."""
    if isinstance(mapping, Mapping):
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
    """Read one mapping of usage, whoever wrote it. None if it has neither input nor output."""
    if MARKS.isdisjoint(raw):
        return None
    before = tally.refused
    sent, received = entry(raw, *_INPUT), entry(raw, *_OUTPUT)
    if sent is None and received is None:
        return None
    inputs, outputs = tally.count(sent), tally.count(received)
    if tally.refused - before == (sent is not None) + (received is not None):
        return None  # not one number: as good as no usage, so that it can be estimated
    total = tally.count(entry(raw, *_TOTAL))
    into, tier = _details(raw, INPUT_DETAILS, tally)
    out_of, tier_out = _details(raw, OUTPUT_DETAILS, tally)

    beside_read = tally.count(entry(raw, *_READ_BESIDE))
    beside_write = tally.count(entry(raw, *_WRITE_BESIDE))
    lifetimes = raw.get("cache_creation")
    hour = into["hour"] + tally.count(entry(lifetimes, "ephemeral_1h_input_tokens"))
    five = into["five"] + tally.count(entry(lifetimes, "ephemeral_5m_input_tokens"))
    for kind in _sequence(raw.get("cacheDetails")):
        if entry(kind, "ttl") == "1h":
            hour += tally.count(entry(kind, "inputTokens"))
    cache_read = into["cache_read"] or beside_read or tally.count(entry(raw, *_READ_WITHIN))
    # Where the lifetimes are given, LangChain leaves 0 in the sum; adding both counts them twice.
    cache_write = into["cache_write"] or beside_write or five + hour
    if (beside_read or beside_write) and not any(key in raw for key in INPUT_DETAILS):
        inputs += cache_read + cache_write
        total = max(total, inputs + outputs) if total else 0

    inputs += tally.count(entry(raw, *_TOOL_PROMPT))
    thoughts = tally.count(entry(raw, *_THOUGHTS))
    outputs += thoughts
    reasoning = out_of["reasoning"] or thoughts or tally.count(raw.get("reasoning_tokens"))
    searches = entry(raw.get("server_tool_use"), "web_search_requests")
    return Usage(
        input=inputs,
        output=outputs,
        total=total or inputs + outputs,
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=hour,
        reasoning=reasoning,
        audio_input=into["audio"],
        audio_output=out_of["audio"],
        image_input=into["image"],
        web_searches=tally.count(searches) or tally.count(raw.get("num_search_queries")),
        tier=tier_name(raw.get("service_tier")) or tier or tier_out,
    )


def balanced(usage: Usage, dialect: str) -> Usage:
    """With the sum repaired in two ways that the figures themselves show. `dialect` as LangChain's.

    xAI and Google's OpenAI endpoint leave the reasoning out of the output but not out of the total.
    Google's chunks are differences, of which LangChain cuts the total, but not the input, at 0: after
    a correction downwards the merged total is too high. There the parts always make the whole.
    """
    parts = usage.input + usage.output
    if usage.reasoning and usage.total == parts + usage.reasoning:
        return usage._replace(output=usage.output + usage.reasoning)
    if dialect == "google_genai" and usage.total > parts:
        return usage._replace(total=parts)
    return usage


def completed(usage: Usage, by: Usage, *, input_parts: bool, output_parts: bool) -> Usage:
    """With what LangChain's figures lack taken from the provider's raw ones.

    Image tokens, searches and the tier have no word in LangChain's; the parts of the input and of
    the output are taken where it has none at all (Mistral's cached tokens).
    """
    usage = usage._replace(
        image_input=usage.image_input or by.image_input,
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


def added(usages: Sequence[Usage]) -> Usage:
    """The sum, with the first tier that is not the default one."""
    sums = [sum(column) for column in zip(*(usage[:-1] for usage in usages), strict=True)]
    return Usage(*sums, tier=next((usage.tier for usage in usages if usage.tier), ""))


def billed(raw: Raw, tally: Tally) -> Decimal | None:
    """What the provider says this call cost, in USD: OpenRouter, Perplexity, xAI."""
    cost = raw.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    if cost is not None:
        return tally.money(cost)
    ticks = tally.money(raw.get("cost_in_usd_ticks"))
    return None if ticks is None else ticks.scaleb(-_TICKS)


# What a mapping of details is read into → its keys there. LangChain's words, then the providers'.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "cache_read": ("cache_read", "cached_tokens"),
    "cache_write": ("cache_creation", "cache_write_tokens", "cache_creation_tokens"),
    "five": ("ephemeral_5m_input_tokens",),
    "hour": ("ephemeral_1h_input_tokens",),
    "reasoning": ("reasoning", "reasoning_tokens", "thinking_tokens"),
    "audio": ("audio", "audio_tokens"),
    "image": ("image", "image_tokens"),
}
# OpenAI's tiers rename these three: "flex_cache_read" and so on.
_TIERED: Final = (
    ("cache_read", "cache_read"),
    ("cache_write", "cache_creation"),
    ("reasoning", "reasoning"),
)


def _details(raw: Raw, keys: Sequence[str], tally: Tally) -> tuple[dict[str, int], str]:
    """The parts that these details name, and the tier if its name is one of the keys."""
    parts = dict.fromkeys(_PARTS, 0)
    tier = ""
    details = entry(raw, *keys)
    for modality in _sequence(details):  # Google: a list of modalities
        name = str(entry(modality, "modality")).rpartition(".")[2].lower()
        if name in ("audio", "image"):
            parts[name] += tally.count(entry(modality, "token_count", "tokenCount"))
    if isinstance(details, Mapping):
        for part, names in _PARTS.items():
            parts[part] = tally.count(entry(details, *names))
        for name in _TIERS:
            if name in details or f"{name}_cache_read" in details or f"{name}_reasoning" in details:
                tier = name
                for part, key in _TIERED:
                    parts[part] += tally.count(details.get(f"{name}_{key}"))
    return parts, tier


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()
