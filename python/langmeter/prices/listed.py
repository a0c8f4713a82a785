"""Prices of the catalogue: a model's rates at a moment and in a service tier."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from math import inf
from typing import Any, Final

from .card import KINDS, PICO, Prices, RateCard, build_bands
from .table import Found, Model, PriceMap, active, prices_at, time_of_day

#: The catalogue's price keys for what a usage counts, and how many units each price is for.
_KEYS: Final = {
    "input_mtok": ("input", 10**6),
    "output_mtok": ("output", 10**6),
    "cache_read_mtok": ("cache_read", 10**6),
    "cache_write_mtok": ("cache_write", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h", 10**6),
    "output_reasoning_mtok": ("reasoning", 10**6),
    "input_audio_mtok": ("audio_input", 10**6),
    "output_audio_mtok": ("audio_output", 10**6),
    "input_image_mtok": ("image_input", 10**6),
    "output_image_mtok": ("image_output", 10**6),
    "input_video_mtok": ("video_input", 10**6),
    "output_video_mtok": ("video_output", 10**6),
    "cache_audio_read_mtok": ("cached_audio", 10**6),
    "cache_image_read_mtok": ("cached_image", 10**6),
    "output_citation_mtok": ("citation", 10**6),
    "web_searches_kcount": ("web_search", 10**3),
    "storage_searches_kcount": ("file_search", 10**3),
    "requests_kcount": ("request", 10**3),
}

_DAY: Final = timedelta(days=1)


def context(tier: str) -> dict[str, str]:
    """Return the catalogue's request context for a service tier.

    `batch` is a way of processing, `fast` also a speed; `key=value` passes through as it is.
    Several are joined by `;`.
    """
    request: dict[str, str] = {}
    for part in filter(None, tier.split(";")):
        key, given, value = part.partition("=")
        if given:
            request[key] = value
        elif part == "batch":
            request["processing"] = part
        else:
            request["service_tier"] = part
            if part == "fast":
                request["speed"] = part
    return request


def card(found: Found, tier: str, moment: datetime) -> RateCard:
    """Return a model's rates at a moment (UTC), valid until a dated or daily price changes."""
    model = found.model
    # A model of another provider's list has that one's prices but not its variants: so the
    # catalogue charges.
    request = context(tier) if found.listed else {}
    prices = prices_at(model, moment, request)
    table, uncounted = _table(prices)
    bands, scale = build_bands(table)
    constraints = _constraints(model, request)
    valid_from, valid_until = _window(constraints, moment)
    return RateCard(
        bands=bands,
        scale=scale,
        provider=found.provider.id,
        model=model.id,
        source=found.table.source,
        date=_effective(constraints, moment),
        tier=";".join(_applied(model, tier, moment)) if found.listed else "",
        valid_from=valid_from,
        valid_until=valid_until,
        priced=tuple(kind for kind in KINDS if kind in table),
        uncounted=uncounted,
    )


def _applied(model: Model, tier: str, moment: datetime) -> Iterator[str]:
    """Yield the parts of a tier that change a model's prices, alone or together."""
    parts = tier.split(";")
    standard = prices_at(model, moment, {})
    prices = prices_at(model, moment, context(tier))
    for part in parts:
        rest = ";".join(other for other in parts if other != part)
        if (
            prices_at(model, moment, context(part)) != standard
            or prices_at(model, moment, context(rest)) != prices
        ):
            yield part


def variants(found: Found) -> tuple[str, ...]:
    """Return the service tiers that have prices of their own, as `card` takes them."""
    names = set()
    for when, prices, _ in found.model.variants if found.listed else ():
        if prices:
            values = set(when.values())
            known = when.keys() <= {"processing", "service_tier", "speed"}
            names.add(
                values.pop()
                if known and len(values) == 1
                else ";".join(f"{key}={value}" for key, value in when.items())
            )
    return tuple(sorted(names))


def _table(prices: PriceMap) -> tuple[Prices, tuple[tuple[str, str], ...]]:
    table: dict[str, list[tuple[int, Fraction]]] = {}
    uncounted = []
    for key, price in prices.items():
        base, *tiers = price if isinstance(price, list) else [price]
        if key not in _KEYS:
            uncounted.append((key, base))
            continue
        kind, per = _KEYS[key]
        table[kind] = [
            (above, Fraction(value) * PICO / per) for above, value in ((-1, base), *tiers)
        ]
    return table, tuple(uncounted)


def _constraints(model: Model, asked: dict[str, str]) -> list[Any]:
    """Return what can change this request's price; of those that are active the last one wins."""
    listed = model.prices if isinstance(model.prices, list) else []
    fitting = [limit for when, _, limit in model.variants if when.items() <= asked.items()]
    return [*(limit for limit, _ in listed), *reversed(fitting)]


def _window(constraints: list[Any], moment: datetime) -> tuple[float, float]:
    """Return from when to when (Unix seconds) all constraints answer as they do at `moment`."""
    now = moment.timestamp()
    edges: list[float] = []
    for constraint in constraints:
        if constraint is None:
            continue
        if not isinstance(constraint, list):
            return now, now  # of a kind that cannot be dated: ask again each time
        if constraint[0] == "from":
            edges.append(_midnight(date.fromisoformat(constraint[1])))
            continue
        for edge in map(time_of_day, constraint[1:]):
            at = datetime.combine(moment.date(), edge, UTC)
            edges += (at - _DAY).timestamp(), at.timestamp(), (at + _DAY).timestamp()
    return (
        max((edge for edge in edges if edge <= now), default=-inf),
        min((edge for edge in edges if edge > now), default=inf),
    )


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _effective(constraints: list[Any], moment: datetime) -> str:
    """Return the start date of the price that holds at `moment`; "" when it has none."""
    for constraint in reversed(constraints):
        if active(constraint, moment):
            dated = isinstance(constraint, list) and constraint[0] == "from"
            return constraint[1] if dated else ""
    return ""
