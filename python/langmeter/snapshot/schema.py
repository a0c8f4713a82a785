"""JSON schema of a snapshot, for readers in other languages; `parse` holds more than it can say."""

from __future__ import annotations

from dataclasses import MISSING
from dataclasses import fields as fields_of
from typing import Any, Final

from langmeter import _core
from langmeter.snapshot import parse, serialize
from langmeter.snapshot.by_label import MODEL
from langmeter.snapshot.state import KINDS, MAX_PARTS

_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
_WHOLE: Final = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
_SIGNED: Final = {"type": "integer", "minimum": -(2**63) + 1, "maximum": 2**63 - 1}
_TEXT: Final = {"type": "string"}
_SECONDS: Final = {"type": "number", "minimum": 0}
_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
#: Keys or values of a label: one, or the list of those that are crossed.
_ONE_OR_ALL: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 2}]}
_USD: Final = {"type": ["string", "null"], "pattern": r"^-?\d+(\.\d+)?$"}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of `Snapshot.to_dict` and `to_json`, of its formats."""
    fields = {
        "langmeter": _TEXT,
        "format": {"enum": [*serialize.FORMATS]},
        "started_at": _TIME,
        "taken_at": _TIME,
        "started_at_unix_nano": _WHOLE,
        "taken_at_unix_nano": _WHOLE,
        "origin": {
            "anyOf": [
                {"type": "array", "items": _WHOLE, "minItems": 2, "maxItems": 2},
                {"type": "null"},
            ]
        },
        "in_flight": _SIGNED,
        "peak_in_flight": _WHOLE,
        "anomalies": _listed(_object({name: _change(name) for name in parse.CHANGE})),
        "dropped": _named(_core.DROPPED, _WHOLE),
        "labels": _listed(_ONE_OR_ALL),
        "models": _listed(_series("model")),
        "components": _listed(_series(*parse.LISTS["components"])),
        "defects": _listed({"anyOf": [_series(kind) for kind in parse.LISTS["defects"]]}),
        "others": _listed({"anyOf": [_series(kind) for kind in parse.LISTS["others"]]}),
        "state": _listed({"$ref": "#/$defs/state"}),
    }
    pair = {"type": "array", "items": _WHOLE, "minItems": 2, "maxItems": 2}
    parts = {
        "counters": _named(_core.COUNTERS, _WHOLE),
        "tallies": _named(_core.TALLIES, {"$ref": "#/$defs/pair"}),
        "pair": pair,
        "distribution": _distribution(),
        "window": _object(dict.fromkeys(serialize.WINDOW, _WHOLE)),
        "state": _state(),
    }
    title = {"$schema": _SCHEMA, "title": "A snapshot of langmeter"}
    return {**title, **_object(fields, "labels", "state"), "$defs": parts}


def _object(fields: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in fields if name not in optional]
    closed = {"additionalProperties": False}
    return {"type": "object", "properties": fields, "required": required, **closed}


def _listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _named(names: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with some of these fields."""
    return _object(dict.fromkeys(names, values), *names)


def _change(name: str) -> dict[str, Any]:
    return _TEXT if name in ("provider", "model", "metric") else _WHOLE


def _series(*kinds: str) -> dict[str, Any]:
    """Return the schema of a series of these kinds, whose names are the same."""
    (kind, *_) = kinds
    parts = () if kind == "label" else serialize.NAMES.get(kind, (("name",), ()))
    names = [name for part in parts for name in part]
    fields: dict[str, Any] = {} if kind == "model" else {"kind": {"enum": list(kinds)}}
    fields |= dict.fromkeys(names, _TEXT)
    if kind == "label":
        fields |= {"key": _ONE_OR_ALL, "value": _ONE_OR_ALL, **dict.fromkeys(MODEL, _TEXT)}
    fields |= {"calls": _WHOLE, "errors": _WHOLE}
    if kind in ("model", "label", *serialize.ATTEMPTS):
        fields["cost_usd"] = _USD
    if kind in serialize.ATTEMPTS:
        fields |= dict.fromkeys(("attempts", "defects", "fixed"), _SIGNED)
        fields["tallies"] = {"$ref": "#/$defs/tallies"}
    fields["counters"] = {"$ref": "#/$defs/counters"}
    durations = {name: {"$ref": "#/$defs/distribution"} for name in _core.MEASURES}
    fields |= durations
    if kind == "model":
        fields |= {"in_flight": _SIGNED, "peak_in_flight": _WHOLE}
    fields["discrepancies"] = {"type": "object", "additionalProperties": _SIGNED}
    fields["rates"] = _listed({"$ref": "#/$defs/window"})
    # Rows of labels that an older langmeter wrote have no model.
    return _object(fields, *durations, "discrepancies", *(MODEL if kind == "label" else ()))


#: Type of a field of the state → its schema.
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "str": _TEXT,
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "Amount": {"type": ["string", "integer"], "pattern": r"^-?\d+(\.\d+)?$"},
    "datetime": {**_TIME, "type": "string"},
    "datetime | None": _TIME,
    "Scope | None": {"type": ["object", "null"], "additionalProperties": _listed(_TEXT)},
}


def _state() -> dict[str, Any]:
    """Return the schema of the state of one recorder."""
    fields: dict[str, Any] = {"origin": _TEXT, "taken_at_unix_nano": _WHOLE}
    for place, kind in KINDS.items():
        optional = [each.name for each in fields_of(kind) if each.default is not MISSING]
        part = _object({each.name: _TYPES[str(each.type)] for each in fields_of(kind)}, *optional)
        fields[place] = {**_listed(part), "maxItems": MAX_PARTS}
    return _object(fields)


def _distribution() -> dict[str, Any]:
    figures = dict.fromkeys(("mean", "p50", "p95", "p99", "max"), _SECONDS)
    hdr = {"type": "string", "contentEncoding": "base64"}
    return _object({"count": {**_WHOLE, "minimum": 1}, **figures, "hdr": hdr})
