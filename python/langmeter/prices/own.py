"""Users' own prices, from a mapping, a TOML file or a JSON file.

```toml
[prices."nvidia_nim/meta/llama-3.1-70b-instruct"]  # "provider/*": every model of a provider
input = 0.9        # USD per million tokens; input and output are required
output = 0.9
cache_read = 0.09  # also cache_write, cache_write_1h, reasoning, audio_input, audio_output,
                   # image_input, image_output, video_input, video_output, cached_audio,
                   # cached_image, citation; if left out, as what it is part of
web_search = 0.01  # USD each; also file_search, request
bands = [{ above = 200_000, input = 1.8, output = 1.8 }]  # the whole call, if its input exceeds it
tiers = { batch = { input = 0.45, output = 0.45 } }       # what a service tier changes
date = 2026-10-01
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

from langmeter._base.money import EXACT, PICO
from langmeter._base.provider_names import provider_name

from . import litellm
from .card import KINDS, PER_UNIT, Prices, RateCard, build_bands

#: Highest price that is believed, USD per million tokens (or each, for searches and requests).
MAX_PRICE: Final = 1_000_000

#: What is finer is rounded: 128 bits might not hold what a call costs.
_FINEST: Final = Decimal("1e-24")

#: The date of a version at the end of a model's name: -2024-08-06, -20241022, @20250929.
_DATED: Final = re.compile(r"[-@]20\d{2}(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])$")

_META: Final = frozenset({"bands", "tiers", "source", "date"})


class CustomPrice(NamedTuple):
    """One own price: what each service tier costs; tier "" is always there."""

    tiers: Mapping[str, Prices]
    source: str
    date: str

    def card(self, provider: str, model: str, tier: str) -> RateCard:
        """Return the rates of a tier, or of the first of several that has a price of its own.

        One without has the standard price. A tier `key=value` is also found by its value.
        """
        applied = known = ""
        for part in (tier, *tier.split(";")):
            names = (part, part.partition("=")[2])
            known = next((name for name in names if name in self.tiers), "")
            if known:
                applied = part
                break
        bands, scale = build_bands(self.tiers[known])
        priced = tuple(kind for kind in KINDS if kind in self.tiers[known])
        return RateCard(
            bands, scale, provider, model, self.source, self.date, applied, priced=priced
        )


#: (our provider name, model in lower case or "*") → price.
CustomPrices = dict[tuple[str, str], CustomPrice]


def load(prices: Mapping[str, Any] | str | Path) -> CustomPrices:
    """Read own prices from a mapping or a .toml or .json file, in our format or in LiteLLM's.

    Raises ValueError naming the value, what is allowed and what to do; OSError when the file cannot
    be read.
    """
    if isinstance(prices, str | Path):
        path = Path(prices)
        return _read(_parse(path), path.name)
    if not isinstance(prices, Mapping):
        raise ValueError(
            f"prices must be a mapping or the path of a .toml or .json file, not {prices!r}; "
            'write e.g. {"openai/gpt-4o": {"input": 2.5, "output": 10}}'
        )
    return _read(prices, "")


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix.lower() == ".toml":
            import tomllib

            return tomllib.loads(text, parse_float=Decimal)
        if path.suffix.lower() == ".json":
            import json

            return json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    raise ValueError(f"prices file {path} must end in .toml or .json; rename it or pass a mapping")


def _read(data: Any, file: str) -> CustomPrices:
    table = data.get("prices", data) if isinstance(data, Mapping) else data
    if not isinstance(table, Mapping):
        raise ValueError(
            f"prices{f' in {file}' if file else ''} must be a table of provider/model, "
            f'not {table!r}; write [prices."openai/gpt-4o"] or its JSON equivalent'
        )
    if litellm.recognises(table):
        source = f"litellm ({file})" if file else "litellm"
        return {
            key: entry(f"{key[0]}/{key[1]}", spec, source=source)
            for key, spec in litellm.convert(table).items()
        }
    source = f"own ({file})" if file else "own"
    return {split(key): entry(key, spec, source=source) for key, spec in table.items()}


def split(key: object) -> tuple[str, str]:
    """`provider/model` → (our provider name, model); the model may contain more slashes."""
    provider, slash, model = key.partition("/") if isinstance(key, str) else ("", "", "")
    if not (provider.strip() and slash and model.strip()):
        raise ValueError(
            f'price key {key!r} must be "provider/model", e.g. "openai/gpt-4o"; '
            'use "provider/*" for every model of a provider'
        )
    return provider_name(provider), model.strip().lower()


def entry(name: str, spec: object, *, source: str = "own") -> CustomPrice:
    """One price, checked."""
    if not isinstance(spec, Mapping):
        raise ValueError(
            f"price of {name} must be a table, not {spec!r}; write {{ input = 0.9, output = 0.9 }}"
        )
    _known(name, spec, frozenset(KINDS) | _META)
    for kind in ("input", "output"):
        if kind not in spec:
            raise ValueError(
                f"price of {name} has no {kind!r}; give USD per million tokens, 0 if there is none"
            )
    steps = _bands(name, spec)
    tiers = {"": _prices(name, steps)}
    extra = spec.get("tiers", {})
    if not isinstance(extra, Mapping):
        raise ValueError(f"tiers of {name} must be a table of tier names, not {extra!r}")
    for tier, change in extra.items():
        title = f"{name} tier {tier!r}"
        if not isinstance(change, Mapping):
            raise ValueError(f"price of {title} must be a table, not {change!r}")
        _known(title, change, frozenset(KINDS) | {"bands"})
        tiers[tier] = {**tiers[""], **_prices(title, _bands(title, change))}
    noted = spec.get("date", "")
    noted = noted.isoformat() if isinstance(noted, date) else noted
    source = spec.get("source", source)
    if not (isinstance(noted, str) and isinstance(source, str)):
        raise ValueError(f"date and source of {name} must be text, not {noted!r} and {source!r}")
    return CustomPrice(tiers, source, noted)


def _bands(name: str, spec: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    steps: list[tuple[int, Mapping[str, Any]]] = [(-1, spec)]
    bands = spec.get("bands", ())
    if not isinstance(bands, list | tuple) or not all(isinstance(b, Mapping) for b in bands):
        raise ValueError(
            f"bands of {name} must be a list of tables, not {bands!r}; "
            "write [{ above = 200_000, input = 1.8, output = 1.8 }]"
        )
    for band in bands:
        _known(f"{name} bands", band, frozenset(KINDS) | {"above"})
        above = band.get("above")
        if type(above) is not int or not 0 <= above < 2**63 or above <= steps[-1][0]:
            raise ValueError(
                f"above = {above!r} in bands of {name} must be a whole number of "
                "input tokens >= 0, each greater than the one before; write e.g. above = 200_000"
            )
        steps.append((above, band))
    return steps


def _prices(name: str, steps: list[tuple[int, Mapping[str, Any]]]) -> Prices:
    table: dict[str, list[tuple[int, Fraction]]] = {}
    for above, spec in steps:
        for kind in KINDS:
            if kind in spec:
                steps_of_kind = table.setdefault(kind, [])
                if above >= 0 and not steps_of_kind:
                    raise ValueError(
                        f"bands of {name} price {kind!r}, which has no price below {above} tokens; "
                        f"give {kind} outside bands too"
                    )
                steps_of_kind.append((above, _rate(name, kind, spec[kind])))
    return table


def _rate(name: str, kind: str, value: object) -> Fraction:
    unit = "USD each" if kind in PER_UNIT else "USD per million tokens"
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise ValueError
        # Through the shortest decimal: a float 0.1 is meant as 0.1.
        price = Decimal(str(value))
        if not 0 <= price <= MAX_PRICE:  # also false for nan
            raise ValueError
        if price != (coarse := EXACT.quantize(price, _FINEST)):
            price = coarse
    except (ValueError, InvalidOperation):
        raise ValueError(
            f"{kind} = {value!r} for {name} must be a number from 0 to {MAX_PRICE} ({unit}); "
            "a price per token times 1_000_000 is the price per million"
        ) from None
    return Fraction(price) * PICO / (1 if kind in PER_UNIT else 10**6)


def undated(model: str) -> str:
    """Return a model's name without the date of its version, for which an own price holds too."""
    return _DATED.sub("", model)


def _known(name: str, spec: Mapping[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(str(key) for key in spec if key not in allowed)
    if unknown:
        raise ValueError(
            f"price of {name} has unknown {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(sorted(allowed))}"
        )
