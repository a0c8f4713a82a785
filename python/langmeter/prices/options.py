"""The option `prices`: the catalogue, own prices beside it, or no prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from langmeter._base.check import refusal
from langmeter._base.options import Rule, ruled
from langmeter.prices.book import PriceBook
from langmeter.prices.card import KINDS, PER_UNIT
from langmeter.prices.own import MAX_PRICE


def _check(name: str, value: object) -> object:
    if isinstance(value, bool | PriceBook):
        return value
    remedy = f"pass PriceBook({value!r})" if isinstance(value, str | Path | dict) else ""
    raise refusal(name, "a PriceBook, True for the catalogue, or False for none", value, remedy)


def _read(name: str, value: object, folder: Path) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return PriceBook(value)  # type: ignore[arg-type]  # it refuses what is not a mapping
    path = folder / value
    try:
        return PriceBook(path)
    except OSError as error:
        what = "true, false, a table of prices or the path of a file that can be read"
        raise refusal(name, what, str(path), error.strerror or str(error)) from None


def _rates() -> dict[str, Any]:
    unit = {True: "USD each.", False: "USD per million tokens."}
    rate = {"anyOf": [{"type": "number", "minimum": 0, "maximum": MAX_PRICE}, {"type": "string"}]}
    return {kind: {**rate, "description": unit[kind in PER_UNIT]} for kind in KINDS}


def _table(extra: dict[str, Any], *required: str) -> dict[str, Any]:
    properties = _rates() | extra
    needs = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **needs}


_BANDS: Final = {
    "type": "array",
    "items": _table({"above": {"type": "integer", "minimum": 0}}, "above"),
    "description": "Prices of the whole call where its input exceeds so many tokens.",
}
_PRICE: Final = _table(
    {
        "bands": _BANDS,
        "tiers": {"type": "object", "additionalProperties": _table({"bands": _BANDS})},
        "source": {"type": "string"},
        "date": {"type": "string"},
    },
    "input",
    "output",
)
#: Rule of the option `prices`.
PRICES: Final = ruled(
    Rule(
        _check,
        {
            "anyOf": [
                {"type": "boolean"},
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": _PRICE,
                    "propertyNames": {"pattern": "^[^/]+/.+$"},
                },
            ]
        },
        _read,
    )
)
