"""Every kind of response: look everywhere, believe nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from langmeter.usage.providers import provider_name
from langmeter.usage.shapes import (
    INPUT_DETAILS,
    MARKS,
    OUTPUT_DETAILS,
    Raw,
    added,
    balanced,
    billed,
    completed,
    entry,
    from_mapping,
    tier_name,
)
from langmeter.usage.tally import Tally
from langmeter.usage.types import Reading, Usage

# These responses name no model: what stands there is only what the client asked for.
_ECHOES: Final = frozenset(("bedrock", "bedrock_converse"))

_MODEL: Final = ("model_name", "model", "model_id")
_USAGE: Final = (
    "token_usage",
    "usage",
    "usage_metadata",
    "token_count",
    "amazon-bedrock-invocationMetrics",
)
# A shorter name is not taken for a repetition of itself.
_SHORTEST: Final = 4


@lru_cache(maxsize=4096)
def names(dialect: str, model: str) -> tuple[str, str]:
    """(provider, model) as a `Reading` has them, from the words of a response.

    A model's name stands there once: where chunks each carry it, merging them strings it together.
    """
    provider = provider_name(dialect)
    if dialect in _ECHOES:
        return provider, ""
    period = (model + model).find(model, 1)
    return provider, model[:period] if period >= _SHORTEST else model


def look_carefully(response: Any) -> Reading:
    """Read any response; may raise what the response raises when it is looked at."""
    tally = Tally()
    usages: list[Usage] = []
    costs: list[Decimal] = []
    dialect = model = ""
    cache_hit = False
    for candidates in _prompts(response):
        usage = None
        for candidate in candidates:
            message, info = _field(candidate, "message"), _field(candidate, "generation_info")
            meta, figures = _field(message, "response_metadata"), _field(message, "usage_metadata")
            dialect = dialect or _text(meta, "model_provider") or _text(info, "model_provider")
            model = model or _text(meta, *_MODEL) or _text(info, *_MODEL)
            cache_hit = cache_hit or _is_hit(figures)
            if usage is None:
                raws = [*_raws(meta), *_raws(info)]
                usage = _usage(figures, raws, meta, tally)
                costs.extend(_cost((meta, *raws), tally))
        if usage is not None:
            usages.append(usage)

    # Text models, and what is no LLMResult but has a usage.
    llm_output = _field(response, "llm_output")
    for whole in (llm_output, response):
        dialect = dialect or _text(whole, "model_provider")
        model = model or _text(whole, *_MODEL)
        if not usages:
            raws = [*_raws(whole)]
            usage = _usage(None, raws, whole, tally)
            costs.extend(_cost(raws, tally))
            usages.extend(() if usage is None else (usage,))
    provider, model = names(dialect, model)
    return Reading(
        usage=balanced(added(usages), dialect) if usages else None,
        provider=provider,
        model=model,
        cache_hit=cache_hit,
        refused=tally.refused,
        billed=sum(costs, Decimal()) if costs and not cache_hit else None,
        shared=not usages and entry(llm_output, "token_usage") == {},
    )


def _prompts(response: Any) -> Iterator[Sequence[Any]]:
    """The candidates of each prompt."""
    generations = _field(response, "generations")
    if isinstance(generations, (list, tuple)):
        if all(isinstance(candidates, (list, tuple)) for candidates in generations):
            yield from generations
        else:
            yield generations  # a ChatResult
    elif isinstance(_field(response, "response_metadata"), dict):
        yield ({"message": response},)


def _usage(figures: Any, raws: Sequence[Raw], meta: Any, tally: Tally) -> Usage | None:
    """LangChain's figures, completed by the provider's own; one of the two if there is one."""
    usage = from_mapping(figures, tally) if isinstance(figures, dict) else None
    for raw in raws:
        own = from_mapping(raw, tally)
        if own is not None:
            if usage is not None:
                bare_input = not entry(figures, *INPUT_DETAILS)
                bare_output = not entry(figures, *OUTPUT_DETAILS)
                own = completed(usage, own, input_parts=bare_input, output_parts=bare_output)
            usage = own
            break
    if usage is not None and not usage.tier:
        tier = tier_name(_field(meta, "service_tier"))
        usage = usage._replace(tier=tier or tier_name(entry(_field(meta, "serviceTier"), "type")))
    return usage


def _raws(source: Any) -> Iterator[Raw]:
    """The mappings of usage in a mapping or an object, its most likely places first."""
    for key in _USAGE:
        raw = _field(source, key)
        if raw and isinstance(raw, dict):
            yield raw
    if isinstance(source, dict) and not MARKS.isdisjoint(source):
        yield source  # Ollama writes the counts straight into generation_info


def _cost(raws: Sequence[Any], tally: Tally) -> Iterator[Decimal]:
    """The first billed cost, if there is one."""
    for raw in raws:
        if isinstance(raw, dict):
            cost = billed(raw, tally)
            if cost is not None:
                yield cost
                return


def _is_hit(figures: Any) -> bool:
    """LangChain's mark on a message that came from its own response cache."""
    cost = figures.get("total_cost") if isinstance(figures, dict) else None
    return isinstance(cost, (int, float)) and not isinstance(cost, bool) and cost == 0


def _field(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, dict) else getattr(source, name, None)


def _text(source: Any, *names: str) -> str:
    for name in names:
        value = _field(source, name)
        if value and isinstance(value, str):
            return value
    return ""
