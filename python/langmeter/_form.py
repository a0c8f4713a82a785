"""The series of a snapshot as plain data: for `to_dict` and back, and for merging."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from langmeter import _core

#: What `_core.Snapshot.from_parts` takes of a series.
Part: TypeAlias = tuple[str, str, str, list[int], list[str], list[Any], int, int]

#: Counter → its place in `SeriesStats.counters`.
PLACE = {name: place for place, name in enumerate(_core.COUNTERS)}
_WINDOW = ("window_s", "covered_ns", "requests", "input_tokens", "output_tokens", "errors")


def usd(pico_dollars: int) -> Decimal:
    """Pico-dollars as US dollars."""
    # By text, because arithmetic would round to the precision of the caller's context.
    return Decimal(f"{pico_dollars}E-12") if pico_dollars else Decimal(0)


#: The two names of a series, by its kind.
_NAMES = {"model": ("provider", "model"), "label": ("key", "value"), "error": ("who", "how")}


def series_to_dict(s: _core.SeriesStats) -> dict[str, Any]:
    """One series: the labels, what people look for, then everything that rebuilds it."""
    counters = {name: n for name, n in zip(_core.COUNTERS, s.counters, strict=True) if n}
    first, second = _NAMES.get(s.kind, ("name", ""))
    shown: dict[str, Any] = {} if s.kind == "model" else {"kind": s.kind}
    shown[first] = s.a
    if second:
        shown[second] = s.b
    shown["calls"] = sum(counters.get(name, 0) for name in _core.OUTCOMES)
    shown["errors"] = counters.get("error", 0)
    if s.kind in ("model", "label"):
        priced = counters.get("priced_calls", 0)
        shown["cost_usd"] = f"{usd(counters.get('cost', 0)):f}" if priced else None
    shown["counters"] = counters
    for name in _core.MEASURES:
        if found := _distribution(s.measure(name)):
            shown[name] = found
    if s.kind == "model":
        shown["in_flight"], shown["peak_in_flight"] = s.in_flight, s.peak
    shown["rates"] = [dict(zip(_WINDOW, window, strict=True)) for window in s.rates]
    return shown


def _distribution(d: _core.Distribution) -> dict[str, Any] | None:
    if not d.count:
        return None
    return {
        "count": d.count,
        "mean": d.mean,
        "p50": d.quantile(0.5),
        "p95": d.quantile(0.95),
        "p99": d.quantile(0.99),
        "max": d.max,
        "hdr": d.to_hdr(),
    }


def number(n: Any) -> Any:
    """`n` itself; TypeError for a boolean, which Python would take for 0 or 1."""
    if isinstance(n, bool):
        raise TypeError(f"{n!r} where a number belongs")
    return n


def series_from_dict(shown: Mapping[str, Any]) -> Part:
    """Inverse of `series_to_dict`; whatever is no such dict raises as it happens to."""
    kind = shown.get("kind", "model")
    first, second = _NAMES.get(kind, ("name", ""))
    a, b = shown[first], shown[second] if second else ""
    counters = [0] * len(_core.COUNTERS)
    for name, n in shown["counters"].items():
        counters[PLACE[name]] = number(n)
    hdrs = [shown[name]["hdr"] if name in shown else "" for name in _core.MEASURES]
    rates = [tuple(number(window[name]) for name in _WINDOW) for window in shown["rates"]]
    in_flight, peak = number(shown.get("in_flight", 0)), number(shown.get("peak_in_flight", 0))
    return (kind, a, b, counters, hdrs, rates, in_flight, peak)
