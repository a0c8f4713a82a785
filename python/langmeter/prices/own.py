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

from langmeter._base.check import Refusals, refusal
from langmeter._base.money import EXACT, PICO
from langmeter._base.options import under, unknown
from langmeter._base.provider_names import provider_name
from langmeter.errors import ConfigError

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

    Raises ConfigError, a ValueError, for everything that is wrong; OSError when the file cannot be
    read.
    """
    if isinstance(prices, str | Path):
        path = Path(prices)
        return _read(_parse(path), path.name)
    if not isinstance(prices, Mapping):
        raise refusal(
            "prices",
            "a mapping or the path of a .toml or .json file",
            prices,
            'write e.g. {"openai/gpt-4o": {"input": 2.5, "output": 10}}',
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
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    raise ConfigError(f"prices file {path} must end in .toml or .json; rename it or pass a mapping")


def _read(data: Any, file: str) -> CustomPrices:
    table = data.get("prices", data) if isinstance(data, Mapping) else data
    if not isinstance(table, Mapping):
        raise refusal(
            f"prices{f' in {file}' if file else ''}",
            "a table of provider/model",
            table,
            'write [prices."openai/gpt-4o"] or its JSON equivalent',
        )
    if litellm.recognises(table):
        source = f"litellm ({file})" if file else "litellm"
        return {
            key: entry(f"{key[0]}/{key[1]}", spec, source=source)
            for key, spec in litellm.convert(table).items()
        }
    source = f"own ({file})" if file else "own"
    prices, refusals = {}, Refusals()
    for name, spec in table.items():
        with refusals.collect():
            prices[split(name)] = entry(name, spec, source=source)
    refusals.raise_all()
    return prices


def split(key: object) -> tuple[str, str]:
    """`provider/model` → (our provider name, model); the model may contain more slashes."""
    provider, slash, model = key.partition("/") if isinstance(key, str) else ("", "", "")
    if not (provider.strip() and slash and model.strip()):
        raise refusal(
            under("prices", str(key)),
            'named "provider/model"',
            key,
            'write e.g. "openai/gpt-4o", or "openai/*" for every model of a provider',
        )
    return provider_name(provider), model.strip().lower()


def entry(name: str, spec: object, *, source: str = "own") -> CustomPrice:
    """Return one price; raises ConfigError for everything that is wrong with it."""
    title = under("prices", name)
    if not isinstance(spec, Mapping):
        raise refusal(title, "a table", spec, "write { input = 0.9, output = 0.9 }")
    refusals = Refusals()
    _check_names(refusals, title, spec, {*KINDS, *_META})
    for kind in ("input", "output"):
        with refusals.collect():
            if kind not in spec:
                remedy = "give USD per million tokens, 0 if it costs nothing"
                raise refusal(f"{title}.{kind}", "given", None, remedy)
    tiers: dict[str, Prices] = {"": _prices(refusals, title, spec)}
    extra = spec.get("tiers", {})
    with refusals.collect():
        if not isinstance(extra, Mapping):
            raise refusal(f"{title}.tiers", "a table of service tiers", extra)
        for tier, change in extra.items():
            of_tier = under(f"{title}.tiers", str(tier))
            with refusals.collect():
                if not isinstance(change, Mapping):
                    raise refusal(of_tier, "a table", change, "write { input = 0.45 }")
                _check_names(refusals, of_tier, change, {*KINDS, "bands"})
                tiers[tier] = {**tiers[""], **_prices(refusals, of_tier, change)}
    noted = spec.get("date", "")
    noted = noted.isoformat() if isinstance(noted, date) else noted
    source = spec.get("source", source)
    for kind, text in (("date", noted), ("source", source)):
        with refusals.collect():
            if not isinstance(text, str):
                raise refusal(f"{title}.{kind}", "a text", text)
    refusals.raise_all()
    return CustomPrice(tiers, source, noted)


def _check_names(
    refusals: Refusals, title: str, spec: Mapping[str, Any], allowed: set[str]
) -> None:
    for name, value in spec.items():
        with refusals.collect():
            if name not in allowed:
                raise unknown(under(title, str(name)), value, str(name), sorted(allowed))


def _prices(refusals: Refusals, title: str, spec: Mapping[str, Any]) -> Prices:
    """Return the steps of each kind of price in a table and its bands."""
    table: dict[str, list[tuple[int, Fraction]]] = {}
    for kind in [kind for kind in KINDS if kind in spec]:
        with refusals.collect():
            table[kind] = [(-1, _rate(f"{title}.{kind}", kind, spec[kind]))]
    bands = spec.get("bands", ())
    if not isinstance(bands, list | tuple) or not all(isinstance(b, Mapping) for b in bands):
        with refusals.collect():
            remedy = "write [{ above = 200_000, input = 1.8, output = 1.8 }]"
            raise refusal(f"{title}.bands", "a list of tables", bands, remedy)
        return table
    below = -1
    for number, band in enumerate(bands):
        of_band = f"{title}.bands[{number}]"
        _check_names(refusals, of_band, band, {*KINDS, "above"})
        with refusals.collect():
            below = _above(f"{of_band}.above", band.get("above"), below)
            for kind in [kind for kind in KINDS if kind in band]:
                if kind not in spec:
                    raise refusal(
                        f"{of_band}.{kind}",
                        f"a kind that also has a price below {below} tokens",
                        band[kind],
                        f"give {kind} outside of bands too",
                    )
                rate = _rate(f"{of_band}.{kind}", kind, band[kind])
                table.setdefault(kind, []).append((below, rate))
    return table


def _above(name: str, above: object, below: int) -> int:
    if type(above) is int and max(0, below + 1) <= above < 2**63:
        return above
    what = "a whole number of input tokens >= 0, greater than that of the band before"
    raise refusal(name, what, above, "write e.g. above = 200_000")


def _rate(name: str, kind: str, value: object) -> Fraction:
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
        unit = "USD each" if kind in PER_UNIT else "USD per million tokens"
        raise refusal(
            name,
            f"a number from 0 to {MAX_PRICE:,} ({unit})",
            value,
            "a price per token times 1_000_000 is the price per million",
        ) from None
    return Fraction(price) * PICO / (1 if kind in PER_UNIT else 10**6)


def undated(model: str) -> str:
    """Return a model's name without the date of its version, for which an own price holds too."""
    return _DATED.sub("", model)
