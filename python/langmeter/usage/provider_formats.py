"""Formats of usage by provider, recognised by their keys.

One mapping of usage in, one `Usage` out; `reader` knows where in a response such mappings stand.
The keys themselves are `_core.USAGE_KEYS` and `_core.USAGE_PARTS`, which the native reader uses
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from langmeter import _core
from langmeter.usage.numbers import NumberParser
from langmeter.usage.types import Usage

#: Usage as LangChain hands it on; it makes dicts of everything.
Raw = dict[Any, Any]

_FIELD_OF: Final = _core.USAGE_KEYS
_PART_OF: Final = _core.USAGE_PARTS
_TIER_OF: Final = {
    f"{tier}{suffix}": (tier, part)
    for tier in _core.TIERS
    for suffix, part in _core.TIER_PARTS.items()
}
#: By one of these keys a mapping of usage is known.
MARKS: Final = frozenset(key for key, field in _FIELD_OF.items() if field in ("input", "output"))

_LIFETIMES: Final = {"5m": "five", "1h": "hour"}
# Google counts pages of documents as images.
_MODALITIES: Final = {"audio": "audio", "image": "image", "document": "image", "video": "video"}

#: Words for the default service tier.
STANDARD: Final = frozenset(_core.STANDARD_TIERS)
#: Words for the default of any other modifier of the price: speed, region, latency.
USUAL: Final = frozenset(_core.USUAL_MODIFIERS)
# 1 USD is 10^10 of xAI's ticks.
_TICKS: Final = 10


class Modifiers(NamedTuple):
    """Modifiers of the price that a response names; "" is the default of each."""

    tier: str = ""
    #: Anthropic's `usage.speed`.
    speed: str = ""
    #: Anthropic's `usage.inference_geo`.
    region: str = ""
    #: Bedrock's `performanceConfig.latency`.
    latency: str = ""
    #: Perplexity's `usage.search_context_size`.
    context: str = ""

    def __str__(self) -> str:
        """Return them as `PriceBook.card` takes its `tier`."""
        tier, speed, region, latency, context = self
        if speed in ("", "fast") and not (region or latency or context or (tier and speed)):
            return tier or speed
        named = {
            "processing" if tier == "batch" else "service_tier": tier,
            "speed": speed,
            "inference_geo": region,
            "latency": latency,
            "search_context_size": context,
        }
        return ";".join(f"{name}={value}" for name, value in named.items() if value)

    def __or__(self, other: Modifiers) -> Modifiers:
        """Return these, completed by those of `other` that are not among them."""
        return Modifiers(*(mine or theirs for mine, theirs in zip(self, other, strict=True)))


def entry(mapping: Any, *keys: str) -> Any:
    """Return the first of these entries that is not None; None too if `mapping` is not a dict."""
    if isinstance(mapping, dict):
        for key in keys:
            value = mapping.get(key)
            if value is not None:
                return value
    return None


def tier_name(value: Any) -> str:
    """Return a service tier in lower case; "" for the default one and for what is not a name."""
    if not isinstance(value, str):
        return ""
    name = value.strip().lower()
    # Google's words: TrafficType.ON_DEMAND, ON_DEMAND_PRIORITY, SERVICE_TIER_FLEX.
    for prefix in ("traffictype.", "servicetier.", "service_tier_", "on_demand_"):
        name = name.removeprefix(prefix)
    return "" if name in STANDARD else name


def modifier(value: Any) -> str:
    """Return a modifier of the price in lower case; "" for its default."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return "" if name in USUAL else name


class Mapped(NamedTuple):
    """The reading of one mapping of usage."""

    usage: Usage
    #: Output that is in none of its sums.
    extra: int
    #: Billed beside the answer, and in none of its figures.
    beside: tuple[Usage, ...]
    modifiers: Modifiers


def from_mapping(raw: Raw, parser: NumberParser) -> Mapped | None:
    """Read one mapping of usage, whoever wrote it. None if it has no number in its sums."""
    values: dict[str, Any] = {}
    for key, value in raw.items():
        field = _FIELD_OF.get(key)
        if field is not None and value is not None and field not in values:
            values[field] = value
    get, count = values.get, parser.count
    sums = ("input" in values) + ("output" in values)
    before = parser.rejected
    inputs, outputs = count(get("input")), count(get("output"))
    if parser.rejected - before == sums:
        return None  # as good as no usage, so that it can be estimated

    total = count(get("total"))
    into, tier = _details(get("into"), parser)
    out_of, tier_out = _details(get("out_of"), parser)
    cached, _ = _details(into["cached"] or get("cached"), parser)
    _add_lifetimes(into, get("lifetimes"), parser)
    beside_read, beside_write = count(get("read_beside")), count(get("write_beside"))
    cache_read = into["cache_read"] or beside_read or count(get("read_within"))
    # Where the lifetimes are given, LangChain leaves 0 in the sum; adding both counts them twice.
    cache_write = into["cache_write"] or beside_write or into["five"] + into["hour"]
    if (beside_read or beside_write) and "into" not in values:
        inputs += cache_read + cache_write
        total = max(total, inputs + outputs)

    inputs += count(get("tool_prompt"))
    thoughts = count(get("thoughts"))
    outputs += thoughts
    apart, citation = count(get("reasoning")), count(get("citation"))
    usage = Usage(
        input=inputs,
        output=outputs,
        total=total or inputs + outputs,
        cache_read=cache_read,
        cache_write=cache_write,
        cache_write_1h=into["hour"],
        reasoning=out_of["reasoning"] or thoughts or apart,
        audio_input=into["audio"],
        audio_output=out_of["audio"],
        image_input=into["image"],
        image_output=out_of["image"],
        video_input=into["video"],
        video_output=out_of["video"],
        cached_audio=cached["audio"],
        cached_image=cached["image"],
        citation=citation,
        web_searches=_searches(get("tools"), parser) or count(get("searches")) or into["searches"],
    )
    # Perplexity's deep research: neither its reasoning nor its citations are in its output.
    extra = citation + (apart if citation or apart > outputs else 0)
    named = tier_name(get("tier")) or tier or tier_out
    region, context = modifier(get("region")), modifier(get("context"))
    modifiers = Modifiers(named, modifier(get("speed")), region, context=context)
    return Mapped(usage, extra, _iterations(get("iterations"), parser), modifiers)


def _details(details: Any, parser: NumberParser) -> tuple[dict[str, Any], str]:
    """Return the parts that these details name, and the tier if one is in the keys."""
    parts: dict[str, Any] = dict.fromkeys(_PARTS, 0)
    tier = ""
    if isinstance(details, dict):
        for key, value in details.items():
            part = _PART_OF.get(key)
            if part == "cached":
                parts[part] = value
            elif part is not None:
                parts[part] = parts[part] or parser.count(value)
            elif key in _TIER_OF:
                tier, part = _TIER_OF[key]
                if part:
                    parts[part] += parser.count(value)
    elif isinstance(details, list):  # Google: by modality
        for item in details:
            name = str(entry(item, "modality")).rpartition(".")[2].lower()
            part = _MODALITIES.get(name)
            if part is not None:
                parts[part] += parser.count(entry(item, "token_count", "tokenCount"))
    return parts, tier


_PARTS: Final = frozenset(_PART_OF.values())


def _add_lifetimes(parts: dict[str, int], lifetimes: Any, parser: NumberParser) -> None:
    """Add cache writes by lifetime: a mapping from Anthropic, a list from Bedrock."""
    if isinstance(lifetimes, dict):
        for key in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"):
            parts[_PART_OF[key]] += parser.count(lifetimes.get(key))
    elif isinstance(lifetimes, list):
        for item in lifetimes:
            part = _LIFETIMES.get(str(entry(item, "ttl")))
            if part is not None:
                parts[part] += parser.count(entry(item, "inputTokens"))


def _searches(tools: Any, parser: NumberParser) -> int:
    """Return the web searches among the calls of tools, whoever counts them."""
    if not isinstance(tools, dict):
        return 0
    return sum(
        parser.count(entry(calls, *_core.TOOL_TIMES) if isinstance(calls, dict) else calls)
        for tool, calls in tools.items()
        if isinstance(tool, str) and tool.lower() in _core.SEARCH_TOOLS
    )


def _iterations(iterations: Any, parser: NumberParser) -> tuple[Usage, ...]:
    """Return what Claude used beside its answer: compaction is in no sum, messages are in all.

    An iteration that names a model (an advisor's) is that of another model, and not counted here.
    """
    return tuple(
        mapped.usage
        for item in (iterations if isinstance(iterations, list) else ())
        if isinstance(item, dict) and item.get("type") != "message" and item.get("model") is None
        if (mapped := from_mapping(item, parser)) is not None
    )


def fill_from_raw(usage: Usage, by: Usage) -> Usage:
    """Return a usage with every count that it lacks taken from another source of the same call."""
    counts = [mine or theirs for mine, theirs in zip(usage[:-1], by[:-1], strict=True)]
    whole = Usage._make((*counts, usage.tier))
    if whole[:2] != usage[:2]:
        whole = whole._replace(total=max(whole.total, whole.input + whole.output))
    return whole


def reconcile_total(usage: Usage, dialect: str) -> Usage:
    """Return a usage with its sum repaired in two ways that the figures themselves show.

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


def sum_usages(usages: Sequence[Usage]) -> Usage:
    """Return the sum of at least one usage, with the first tier that is not the default one."""
    if len(usages) == 1:
        return usages[0]
    tier = next((usage.tier for usage in usages if usage.tier), "")
    return Usage._make((*map(sum, zip(*(usage[:-1] for usage in usages), strict=True)), tier))


def billed(raw: Mapping[Any, Any], parser: NumberParser) -> Decimal | None:
    """Return what the provider says this call cost, in USD: OpenRouter, Perplexity, xAI."""
    cost = raw.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is not None:
        return parser.amount(cost)
    ticks = raw.get("cost_in_usd_ticks")
    amount = None if ticks is None else parser.amount(ticks)
    return None if amount is None else amount.scaleb(-_TICKS)


def searches(content: Any, extra: Any = None) -> tuple[int, int]:
    """Return the searches that a message shows: in the web, and in stored files.

    `content` is its content, `extra` its `additional_kwargs`. OpenAI bills the actions of type
    search alone, Anthropic results without an error.
    """
    blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    outputs = entry(extra, "tool_outputs")
    if isinstance(outputs, list):
        blocks += [block for block in outputs if isinstance(block, dict)]
    failed = [
        block.get("tool_call_id")
        for block in blocks
        if block.get("type") == "server_tool_result" and block.get("status") == "error"
    ]
    web = files = 0
    for block in blocks:
        kind = block.get("type")
        if kind in ("web_search_call", "x_search_call"):
            web += block.get("status") != "failed" and _is_search(block.get("action"))
        elif kind == "file_search_call":
            files += block.get("status") != "failed"
        elif kind == "web_search_tool_result":
            web += entry(block.get("content"), "error_code") is None
        elif kind == "server_tool_result":  # Anthropic's, in LangChain's own words
            named = entry(block.get("extras"), "block_type")
            web += named == "web_search_tool_result" and block.get("status") != "error"
        elif kind == "server_tool_call":  # OpenAI's, in LangChain's own words
            call = block.get("id")
            if call not in failed and not str(call).startswith("srvtoolu_"):  # not Anthropic's
                web += block.get("name") == "web_search" and _is_search(block.get("args"))
                files += block.get("name") == "file_search"
    return web + _executed(entry(extra, "executed_tools")), files


def _is_search(action: Any) -> bool:
    """Return whether an action is a search; those of opening or searching a page are free."""
    return entry(action, "type") in (None, "search")


def _executed(tools: Any) -> int:
    """Return the web searches among Groq's `executed_tools`."""
    if not isinstance(tools, list):
        return 0
    kinds = (entry(tool, "type") for tool in tools)
    return sum(isinstance(kind, str) and kind in _SEARCHES for kind in kinds)


_SEARCHES: Final = frozenset(("search", "web_search", "browser_search", "browser.search"))


_QUERIES: Final = (
    ("web_search_queries", "webSearchQueries"),
    ("image_search_queries", "imageSearchQueries"),
)


def grounded(metadata: Any, model: str) -> int:
    """Return the searches that Google's grounding metadata show.

    Each query is billed, but a grounded answer as one up to Gemini 2.
    """
    distinct: set[tuple[str, str]] = set()
    for item in metadata if isinstance(metadata, list) else (metadata,):
        for keys in _QUERIES:
            queries = entry(item, *keys)
            if isinstance(queries, list):
                distinct.update((keys[0], q) for q in queries if isinstance(q, str) and q)
    by_answer = any(name in model for name in ("gemini-1", "gemini-2"))
    return min(len(distinct), 1) if by_answer else len(distinct)


def too_long(metadata: Iterable[Any]) -> bool:
    """Return whether one of these says that the answer ended at the limit of its length."""
    for meta in metadata:
        reasons = [entry(meta, key) for key in _core.FINISH_REASONS]
        reasons.append(entry(entry(meta, "incomplete_details"), "reason"))
        if any(isinstance(reason, str) and reason in _core.TOO_LONG for reason in reasons):
            return True
    return False


def queue_time(raws: Iterable[Raw]) -> int | None:
    """Return the nanoseconds that the call waited at the provider's, as Groq sends them."""
    for raw in raws:
        waited = raw.get("queue_time")
        plain = type(waited) in (int, float)
        if plain and isinstance(waited, int | float) and 0 <= waited < 1e9:
            return round(float(waited) * 1e9)
    return None
