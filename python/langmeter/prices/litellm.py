"""Reader of LiteLLM's `model_prices_and_context_window.json`: its entries as own prices.

LiteLLM prices single tokens and names what changes by suffix:
`input_cost_per_token_above_200k_tokens_priority`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from langmeter._base.money import EXACT
from langmeter._base.provider_names import provider_name

_KINDS: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "input_cost_per_video_token": "video_input",
    "output_cost_per_video_token": "video_output",
    "citation_cost_per_token": "citation",
    "cache_read_input_audio_token_cost": "cached_audio",
    "cache_read_input_token_cost_per_audio_token": "cached_audio",
    "cache_read_input_image_token_cost": "cached_image",
    "input_cost_per_request": "request",
}

#: LiteLLM's suffix → the service tier.
_TIERS: Final = {"batches": "batch", "flex": "flex", "priority": "priority"}

_KEY: Final = re.compile(
    rf"({'|'.join(sorted(_KINDS, key=len, reverse=True))})"
    rf"(?:_above_(\d+)k_tokens)?(?:_({'|'.join(_TIERS)}))?"
)


def recognises(table: Mapping[str, Any]) -> bool:
    """True when any entry is written as LiteLLM writes them."""
    return any(
        isinstance(spec, Mapping) and ("litellm_provider" in spec or "input_cost_per_token" in spec)
        for spec in table.values()
    )


def convert(table: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(provider, model) → an own price; without a price per token (images, minutes): left out."""
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for key, spec in table.items():
        if key != "sample_spec" and isinstance(spec, Mapping) and "input_cost_per_token" in spec:
            entries.setdefault(_name(key, spec), _entry(key, spec))
    return entries


def _name(key: str, spec: Mapping[str, Any]) -> tuple[str, str]:
    prefix, slash, rest = key.partition("/")
    provider = spec.get("litellm_provider")
    if not isinstance(provider, str):
        if not slash:
            raise ValueError(
                f"LiteLLM entry {key!r} names no provider; "
                "add litellm_provider or write provider/model"
            )
        provider = prefix
    ours = provider_name(provider)
    model = rest if slash and provider_name(prefix) == ours else key
    return ours, model.lower()


def _entry(key: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    steps: dict[str, dict[int, dict[str, Decimal]]] = {"": {-1: {}}}
    for kind, above, tier, value in _prices(key, spec):
        steps.setdefault(tier, {-1: {}}).setdefault(above, {})[kind] = value
    steps[""][-1].setdefault("output", Decimal(0))  # embeddings and rerankers
    entry = _banded(steps.pop(""))
    tiers = {}
    for tier, changed in steps.items():
        # A tier that only prices a band keeps the standard price below it.
        for kind in {kind for band in changed.values() for kind in band} - changed[-1].keys():
            if kind in entry:
                changed[-1][kind] = entry[kind]
        tiers[tier] = _banded(changed)
    return {**entry, "tiers": tiers}


def _banded(steps: dict[int, dict[str, Decimal]]) -> dict[str, Any]:
    base = steps[-1]
    bands = [
        # A band of a kind that has no base price is a slip in LiteLLM's data, which has some: leave
        # it out.
        {"above": above, **{kind: price for kind, price in steps[above].items() if kind in base}}
        for above in sorted(steps)[1:]
    ]
    return {**base, "bands": bands}


def _prices(key: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, int, str, Decimal]]:
    """(kind, above, tier, USD per million tokens or each) of every price we count."""
    for name, value in spec.items():
        match = _KEY.fullmatch(name)
        if match is None or value is None:
            continue
        kind = _KINDS[match[1]]
        above = int(match[2]) * 1000 if match[2] else -1
        price = _decimal(key, name, value)
        yield (
            kind,
            above,
            _TIERS.get(match[3], ""),
            price if kind == "request" else EXACT.scaleb(price, 6),
        )
    searches = spec.get("search_context_cost_per_query")
    if isinstance(searches, Mapping) and "search_context_size_medium" in searches:
        value = searches["search_context_size_medium"]  # the providers' default size
        yield "web_search", -1, "", _decimal(key, "search_context_size_medium", value)


def _decimal(key: str, name: str, value: object) -> Decimal:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise ValueError
        price = Decimal(str(value))
        if not 0 <= price <= 1000:
            raise ValueError
    except (ValueError, InvalidOperation):
        raise ValueError(
            f"{name} = {value!r} of LiteLLM entry {key!r} must be a number from 0 to 1000 "
            "(USD each); correct or remove it"
        ) from None
    return price
