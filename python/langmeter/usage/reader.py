"""Any response of LangChain into one `Reading`.

The native reader of `_core` reads what most responses look like; this one reads every kind, and
trusts none of it. A property test holds the two to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from langmeter import _core
from langmeter._base.provider_names import provider_name
from langmeter.usage.numbers import NumberParser
from langmeter.usage.provider_formats import (
    MARKS,
    Modifiers,
    Raw,
    billed,
    entry,
    fill_from_raw,
    from_mapping,
    grounded,
    modifier,
    queue_time,
    reconcile_total,
    searches,
    sum_usages,
    tier_name,
    too_long,
)
from langmeter.usage.types import NOTHING, Reading, Usage

# These responses name no model: what stands there is only what the client asked for.
_ECHOES: Final = frozenset(("bedrock", "bedrock_converse"))

_MODEL: Final = ("model_name", "model", "model_id")
_COPIED: Final = ("token_usage", "usage")
# A shorter name is not taken for a repetition of itself.
_SHORTEST: Final = 4


def read(response: Any) -> Reading:
    """Read what a call used, who answered, how it ended and what was billed.

    Takes an `LLMResult` (of `on_llm_end`, or the partial one of `on_llm_error`), the response of a
    decision model, a message, a `message-finish` event, or anything else: what it does not find is
    empty, what is not a number is counted in `refused`. Never raises. Several prompts in one
    response are added up; of several candidates the first that holds usage counts, because each
    repeats that of the whole call.
    """
    try:
        native = _core.read_response(response)
        if native is None:
            return read_any(response)
    except Exception:  # an object that raises when looked at
        return NOTHING._replace(refused=1)
    counts, tier, dialect, model, cache_hit, cost, on_first, truncated, queue, web, files = native
    return Reading(
        usage=None if counts is None else Usage._make((*counts, tier)),
        provider=provider_name(dialect),
        model=model,
        cache_hit=cache_hit,
        billed=None if cost is None else Decimal(cost),
        usage_on_first_of_batch=on_first,
        truncated=truncated,
        queue=queue,
        web_searches=web,
        file_searches=files,
        tier=tier,
    )


def read_any(response: Any) -> Reading:
    """Read any response; may raise what the response raises when it is looked at."""
    parser = NumberParser()
    usages: list[Usage] = []
    costs: list[Decimal] = []
    metadata: list[dict[Any, Any]] = []
    raws: list[Raw] = []
    named = Modifiers()
    beside: tuple[Usage, ...] = ()
    dialect = model = ""
    cache_hit = False
    web = files = 0
    prompts = list(_prompts(response))
    llm_output = _field(response, "llm_output")
    # Of several candidates the usage of the call is in llm_output alone.
    own = [*_raws(llm_output)] if len(prompts) == 1 else []
    for candidates in prompts:
        usage = None
        for candidate in candidates:
            message, info = _field(candidate, "message"), _field(candidate, "generation_info")
            meta, figures = _field(message, "response_metadata"), _field(message, "usage_metadata")
            dialect = dialect or _text(meta, "model_provider") or _text(info, "model_provider")
            model = model or _text(meta, *_MODEL) or _text(info, *_MODEL)
            cache_hit = cache_hit or _is_hit(figures)
            metadata += [m for m in (meta, info) if isinstance(m, dict)]
            seen = searches(_field(message, "content"), _field(message, "additional_kwargs"))
            web, files = max(web, seen[0]), max(files, seen[1])
            for place in (meta, info):
                items = searches(entry(place, "output"))
                outputs = searches(None, place)
                web = max(web, items[0] + outputs[0])
                files = max(files, items[1] + outputs[1])
            here = [*_raws(meta), *_raws(info)]
            # LangChain mostly copies llm_output into the metadata of the message.
            repeated = here and any(entry(llm_output, key) is here[0] for key in _COPIED)
            more_of_call = [] if repeated else [r for r in own if all(r is not h for h in here)]
            sources = (meta, llm_output) if more_of_call else (meta,)
            here += more_of_call
            raws += here
            if usage is None:
                usage, more, modifiers = _usage(figures, here, sources, parser)
                beside = beside or more
                named = named | modifiers
                costs.extend(_cost((meta, *here), parser))
        if usage is not None:
            usages.append(usage)

    # Text models, and objects that are not an LLMResult but have a usage.
    for whole in (llm_output,) if prompts else (llm_output, response):
        dialect = dialect or _text(whole, "model_provider")
        model = model or _text(whole, *_MODEL)
        if not usages and len(prompts) != 1:
            here = [*_raws(whole)]
            raws += here
            usage, more, modifiers = _usage(None, here, (whole,), parser)
            beside = beside or more
            named = named | modifiers
            costs.extend(_cost(here, parser))
            usages.extend(() if usage is None else (usage,))
    provider, model = names(dialect, model)
    total = reconcile_total(sum_usages(usages), dialect) if usages else None
    for meta in metadata:
        # langchain-perplexity takes it out of the usage.
        web = max(web, parser.count(meta.get("num_search_queries")))
        for key in ("grounding_metadata", "groundingMetadata"):
            web = max(web, grounded(meta.get(key), model))
    if total is not None:
        web, files = max(web, total.web_searches), max(files, total.file_searches)
        total = total._replace(web_searches=web, file_searches=files, tier=str(named))
    return Reading(
        usage=total,
        provider=provider,
        model=model,
        cache_hit=cache_hit,
        refused=parser.rejected,
        billed=sum(costs, Decimal()) if costs and not cache_hit else None,
        usage_on_first_of_batch=not usages and entry(llm_output, "token_usage") == {},
        truncated=too_long(metadata),
        queue=queue_time(raws),
        web_searches=web,
        file_searches=files,
        tier=str(named),
        beside=beside,
    )


@lru_cache(maxsize=4096)
def names(dialect: str, model: str) -> tuple[str, str]:
    """Return (provider, model) as a `Reading` has them, from the words of a response.

    A model's name stands there once: where chunks each carry it, merging them strings it together.
    """
    provider = provider_name(dialect)
    if dialect in _ECHOES:
        return provider, ""
    period = (model + model).find(model, 1)
    return provider, model[:period] if period >= _SHORTEST else model


def _prompts(response: Any) -> Iterator[Sequence[Any]]:
    """Yield the candidates of each prompt."""
    generations = _field(response, "generations")
    if isinstance(generations, (list, tuple)):
        if all(isinstance(candidates, (list, tuple)) for candidates in generations):
            yield from generations
        else:
            yield generations  # a ChatResult
    elif isinstance(_field(response, "response_metadata"), dict):
        yield ({"message": response},)


def _usage(
    figures: Any, raws: Sequence[Raw], metadata: Sequence[Any], parser: NumberParser
) -> tuple[Usage | None, tuple[Usage, ...], Modifiers]:
    """Return LangChain's figures, completed by the provider's own; one of the two if one is there.

    What the first of the provider's own lacks too is taken from its others, where these are of the
    same sums. With them what is billed beside them, and the modifiers of the price that figures,
    usage and metadata name.
    """
    usage, named = None, Modifiers()
    beside: tuple[Usage, ...] = ()
    if isinstance(figures, dict) and (mapped := from_mapping(figures, parser)) is not None:
        usage, named = mapped.usage, mapped.modifiers
    first: Usage | None = None
    extra = 0
    for raw in raws:
        mapped = from_mapping(raw, parser)
        if mapped is None or (first is not None and mapped.usage[:2] != first[:2]):
            continue
        first = first or mapped.usage
        usage = mapped.usage if usage is None else fill_from_raw(usage, mapped.usage)
        extra, beside = extra or mapped.extra, beside or mapped.beside
        named = named | mapped.modifiers
    if usage is not None and extra:
        usage = usage._replace(output=usage.output + extra, total=usage.total + extra)
    for meta in metadata:
        tier = entry(meta, "service_tier") or entry(entry(meta, "serviceTier"), "type")
        if not tier and isinstance(text := entry(meta, "serviceTier"), str):
            tier = text
        tier = tier or entry(meta, "traffic_type") or entry(meta, "trafficType")
        latency = entry(entry(meta, "performanceConfig"), "latency")
        named = named | Modifiers(
            tier=tier_name(tier),
            speed=modifier(entry(meta, "speed")),
            region=modifier(entry(meta, "inference_geo")),
            latency=modifier(latency),
            context=modifier(entry(meta, "search_context_size")),
        )
    return usage, beside, named


def _raws(source: Any) -> Iterator[Raw]:
    """Yield the mappings of usage in a mapping or an object, its most likely places first."""
    for key in _core.USAGE_PLACES:
        raw = _field(source, key)
        if raw and isinstance(raw, dict):
            # Cohere counts its tokens one mapping deeper, beside those that it bills.
            deeper = entry(raw, "tokens") if MARKS.isdisjoint(raw) else None
            yield deeper if deeper and isinstance(deeper, dict) else raw
    if isinstance(source, dict) and not MARKS.isdisjoint(source):
        yield source  # Ollama writes the counts straight into generation_info


def _cost(raws: Sequence[Any], parser: NumberParser) -> Iterator[Decimal]:
    """Yield the first billed cost, if there is one."""
    for raw in raws:
        if isinstance(raw, dict):
            cost = billed(raw, parser)
            if cost is not None:
                yield cost
                return


def _is_hit(figures: Any) -> bool:
    """Return whether a message came from LangChain's own response cache, which marks it."""
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
