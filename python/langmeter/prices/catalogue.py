"""The price catalogue: genai-prices, imported late, asked once per model.

Importing it and its data takes 250 to 900 ms (pydantic, an HTTP client, 30,000 lines of data), so
nothing here imports it before the first question; `warm` does so in a thread. Names are matched by
the catalogue's own finder.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from .card import KINDS, PICO, Prices, RateCard, build_bands

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import (
        ConditionalPrice,
        ModelInfo,
        ModelPrice,
        PriceVariant,
        Provider,
    )

_log: Final = logging.getLogger("langmeter.prices")

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

_DAY: Final = 86_400.0

_ready = threading.Event()
_absent = threading.Event()
_warming: threading.Thread | None = None


def ready() -> bool:
    """True when a question no longer waits for the import."""
    return _ready.is_set() or _absent.is_set()


def warm(*, wait: bool = False) -> None:
    """Load the catalogue in a daemon thread; calling it again costs nothing."""
    global _warming  # noqa: PLW0603 - one thread per process, as there is one catalogue
    if not ready() and (_warming is None or not _warming.is_alive()):
        _warming = threading.Thread(target=_load, name="langmeter:prices", daemon=True)
        _warming.start()
    if wait:
        _join()


def _load() -> None:
    data = snapshot()
    if data is not None:
        # One fruitless search compiles the 62 patterns: 10 ms that the first calls would pay.
        for provider in data.providers:
            provider.find_model("~", all_providers=data.providers)


def _join(timeout: float | None = None) -> None:
    thread = _warming
    if thread is not None and thread is not threading.current_thread():
        thread.join(timeout)


def _before_fork() -> None:
    # A child forked in the middle of an import inherits a module lock that nobody will ever
    # release.
    _join(5.0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def snapshot() -> DataSnapshot | None:
    """The catalogue's data; None when genai-prices cannot be imported, which is logged once."""
    if _absent.is_set():
        return None
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as error:
        _absent.set()
        _log.warning(
            "no price catalogue (%s): only own prices are known; pip install genai-prices", error
        )
        return None
    data = get_snapshot()
    _ready.set()
    return data


class Listing(NamedTuple):
    """A model in the catalogue, and whose price list it is on."""

    data: DataSnapshot
    provider: Provider
    model: ModelInfo


def find(data: DataSnapshot, provider: str, model: str) -> Listing | None:
    """Who charges for a model; provider "" lets the catalogue tell from the name, if it can."""
    for name in (model, _resource_name(model)):
        if name:
            try:
                return Listing(data, *data.find_provider_model(name, None, provider or None, None))
            except LookupError:
                continue
    return None


def _resource_name(model: str) -> str:
    """Google's resource names without their path: `models/…`, `publishers/google/models/…`."""
    head, found, tail = model.rpartition("models/")
    google = not head or head.startswith(("publishers/", "projects/"))
    return tail if found and google else ""


def context(tier: str) -> dict[str, str]:
    """The catalogue's request context for a service tier.

    `batch` is a way of processing, `fast` also a speed; `key=value` pairs joined by `;` pass
    through as they are.
    """
    if "=" in tier:
        return dict(pair.split("=", 1) for pair in tier.split(";") if "=" in pair)
    match tier:
        case "":
            return {}
        case "batch":
            return {"processing": "batch"}
        case "fast":
            return {"service_tier": "fast", "speed": "fast"}
        case _:
            return {"service_tier": tier}


def card(listing: Listing, tier: str, moment: datetime) -> RateCard:
    """The rates of a model at a moment (UTC), valid as long as no dated or daily price changes."""
    data, provider, model = listing
    own = any(model is listed for listed in provider.models)
    # A model found with another provider has that one's prices but not its variants: so the
    # catalogue charges.
    asked = context(tier) if own else {}
    standard = model.get_prices(moment)
    prices = model.get_prices(moment, asked) if asked else standard
    table, uncounted = _table(prices)
    bands, scale = build_bands(table)
    conditions = _conditions(model, asked)
    valid_from, valid_until = _window(conditions, moment)
    return RateCard(
        bands=bands,
        scale=scale,
        provider=provider.id,
        model=model.id,
        source=_source(data),
        date=_effective(conditions, moment),
        tier=tier if prices != standard else "",
        valid_from=valid_from,
        valid_until=valid_until,
        priced=tuple(kind for kind in KINDS if kind in table),
        uncounted=uncounted,
    )


def variants(listing: Listing) -> tuple[str, ...]:
    """The service tiers that have prices of their own, as `card` takes them."""
    _, provider, model = listing
    if not any(model is listed for listed in provider.models):
        return ()
    found = set()
    for variant in model.price_variants or ():
        if any(value is not None for value in variant.prices.__dict__.values()):
            values = set(variant.when.values())
            known = variant.when.keys() <= {"processing", "service_tier", "speed"}
            found.add(
                values.pop()
                if known and len(values) == 1
                else ";".join(f"{key}={value}" for key, value in variant.when.items())
            )
    return tuple(sorted(found))


def _table(prices: ModelPrice) -> tuple[Prices, tuple[tuple[str, str], ...]]:
    from genai_prices.types import TieredPrices

    table: dict[str, list[tuple[int, Fraction]]] = {}
    uncounted = []
    for key, price in prices.__dict__.items():
        if price is None:
            continue
        if key not in _KEYS:
            uncounted.append((key, str(price.base if isinstance(price, TieredPrices) else price)))
            continue
        kind, per = _KEYS[key]
        steps = (
            [(-1, price.base), *((tier.start, tier.price) for tier in price.tiers)]
            if isinstance(price, TieredPrices)
            else [(-1, price)]
        )
        table[kind] = [(above, Fraction(value) * PICO / per) for above, value in steps]
    return table, tuple(uncounted)


def _source(data: DataSnapshot) -> str:
    if data.from_auto_update:
        return f"genai-prices, updated {data.timestamp.date().isoformat()}"
    from genai_prices import __version__

    return f"genai-prices {__version__}"


def _conditions(model: ModelInfo, asked: dict[str, str]) -> list[ConditionalPrice | PriceVariant]:
    """What can change this request's price; of those that are active the last one wins."""
    listed = model.prices if isinstance(model.prices, list) else []
    variants = [v for v in model.price_variants or () if v.when.items() <= asked.items()]
    return [*listed, *reversed(variants)]


def _window(
    conditions: list[ConditionalPrice | PriceVariant], moment: datetime
) -> tuple[float, float]:
    """From when to when (Unix seconds) every condition keeps the answer it gives at `moment`."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    now = moment.timestamp()
    midnight = datetime.combine(moment.date(), time(), UTC).timestamp()
    edges: list[float] = []
    for condition in conditions:
        constraint = condition.constraint
        if constraint is None:
            continue
        if isinstance(constraint, StartDateConstraint):
            edges.append(datetime.combine(constraint.start_date, time(), UTC).timestamp())
        elif isinstance(constraint, TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                at = midnight + _second_of_day(edge)
                edges += (at - _DAY, at, at + _DAY)
        else:
            return now, now  # a condition we cannot date: ask again each time
    return (
        max((edge for edge in edges if edge <= now), default=-inf),
        min((edge for edge in edges if edge > now), default=inf),
    )


def _second_of_day(edge: time) -> float:
    offset = edge.utcoffset() or timedelta()
    since = datetime.combine(date.min + timedelta(1), edge.replace(tzinfo=None)) - offset
    return (since - datetime.combine(since.date(), time())).total_seconds()


def _effective(conditions: list[ConditionalPrice | PriceVariant], moment: datetime) -> str:
    """The start date of the price that is charged at `moment`; "" when it has none."""
    for condition in reversed(conditions):
        constraint = condition.constraint
        if constraint is None or constraint.active(moment):
            start = getattr(constraint, "start_date", None)
            return start.isoformat() if start is not None else ""
    return ""
