"""The common response at the price of a few dictionary look-ups.

`careful` written out for one kind of response: a single chat candidate with LangChain's own
figures, all whole numbers, nothing rare. Every other kind raises, and a test holds that the two
agree. FIGURES_HERE
"""

from __future__ import annotations

from typing import Any, Final

from langmeter.usage.careful import ECHOES, model_name
from langmeter.usage.providers import provider_name
from langmeter.usage.shapes import STANDARD
from langmeter.usage.types import LIMIT, Reading, Usage

_INPUT_KEYS: Final = frozenset(
    (
        "audio",
        "cache_read",
        "cache_creation",
        "ephemeral_5m_input_tokens",
        "ephemeral_1h_input_tokens",
    )
)
_OUTPUT_KEYS: Final = frozenset(("audio", "reasoning"))
# LangChain's own five: a sixth is the mark of a response cache, or something to look at.
_FIGURES: Final = 5
# Of the input details only Anthropic's and Bedrock's are more than these.
_FEW: Final = 3
# Raw keys that may say more than LangChain's figures.
_RARE: Final = frozenset(
    (
        "cost",
        "cost_in_usd_ticks",
        "num_cached_tokens",
        "cached_tokens",
        "num_search_queries",
        "reasoning_tokens",
    )
)
# What raw usage may hold, beside empty details, where LangChain gives no details.
_PLAIN: Final = frozenset(
    (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "queue_time",
        "prompt_time",
        "completion_time",
        "total_time",
    )
)
_STANDARD: Final = frozenset((None, *STANDARD))
_new: Final = tuple.__new__


class NotCommonError(Exception):
    """The response is of another kind."""


def look_quickly(response: Any) -> Reading:  # noqa: PLR0912
    """Read the common kind of response; raises (anything) for every other."""
    ((generation,),) = response.generations
    message = generation.message
    figures = message.usage_metadata
    inputs = figures["input_tokens"]
    outputs = figures["output_tokens"]
    total = figures["total_tokens"]
    cache_read = cache_write = five = hour = reasoning = audio = audio_out = searches = 0
    into = figures.get("input_token_details")
    if into:
        if not _INPUT_KEYS.issuperset(into):
            raise NotCommonError
        get = into.get
        cache_read = get("cache_read", 0)
        cache_write = get("cache_creation", 0)
        audio = get("audio", 0)
        if len(into) >= _FEW:
            five = get("ephemeral_5m_input_tokens", 0)
            hour = get("ephemeral_1h_input_tokens", 0)
    out_of = figures.get("output_token_details")
    if out_of:
        if not _OUTPUT_KEYS.issuperset(out_of):
            raise NotCommonError
        get = out_of.get
        reasoning = get("reasoning", 0)
        audio_out = get("audio", 0)

    meta = message.response_metadata
    get = meta.get
    tier = get("service_tier")
    raw = get("token_usage") or get("usage")
    if raw:
        if not _RARE.isdisjoint(raw) or raw.get("service_tier") not in _STANDARD:
            raise NotCommonError
        parts = raw.get("prompt_tokens_details")
        if parts and (not into or parts.get("image_tokens")):
            raise NotCommonError
        if not out_of and (
            raw.get("completion_tokens_details") or raw.get("output_tokens_details")
        ):
            raise NotCommonError
        if not into and not _PLAIN.issuperset(raw):
            raise NotCommonError
        tools = raw.get("server_tool_use")
        if tools:
            searches = tools["web_search_requests"]
    provider = get("model_provider")
    if provider in ECHOES:
        if "serviceTier" in meta:
            raise NotCommonError
        model = ""
    else:
        model = model_name(get("model_name"))
    if not cache_write:
        cache_write = five + hour
    if not (
        type(inputs) is int
        and type(outputs) is int
        and type(total) is int
        and type(cache_read) is int
        and type(cache_write) is int
        and type(hour) is int
        and type(reasoning) is int
        and type(audio) is int
        and type(audio_out) is int
        and type(searches) is int
        and inputs + outputs == total
        # One look at the bits of all: a negative or a huge one shows.
        and 0
        <= inputs | outputs | cache_read | cache_write | hour | reasoning | audio | audio_out
        < LIMIT
        and 0 <= searches < LIMIT
        and len(figures) <= _FIGURES
        and tier in _STANDARD
        and "cost" not in meta
    ):
        raise NotCommonError
    usage = _new(
        Usage,
        (
            inputs,
            outputs,
            total,
            cache_read,
            cache_write,
            hour,
            reasoning,
            audio,
            audio_out,
            0,
            searches,
            0,
            "",
        ),
    )
    return _new(Reading, (usage, provider_name(provider), model, False, 0, None, False))
