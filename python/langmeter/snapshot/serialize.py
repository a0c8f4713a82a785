"""The series of a snapshot as plain data, for `to_dict`; `parse` reads them back."""

from __future__ import annotations

from typing import Any, Final

from langmeter import _core
from langmeter._base.money import usd
from langmeter.snapshot.by_label import MODEL, LabelRow, keys_in

#: Versions of the dict, JSON and binary forms: that of a snapshot without declared labels, which an
#: older langmeter reads too, and that of one with them.
FORMATS: Final = (3, _core.SNAPSHOT_FORMAT)
#: Counter → its place in `SeriesStats.counters`.
COUNTER_INDEX: Final = {name: place for place, name in enumerate(_core.COUNTERS)}
#: Parts of a sliding window.
WINDOW: Final = ("window_s", "covered_ns", "requests", "input_tokens", "output_tokens", "errors")


#: Distributions of tokens, which stand in place of microseconds. (`attempts_to_fix` is written in
#: millionths, as format 3 has it.)
TOKENS: Final = ("input_tokens", "output_tokens")
#: Part of a series → the whole that it is counted in. `calls` are all ended runs, `made` those that
#: the response cache did not answer; a distribution stands for how many durations it holds.
WHOLES: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("billed_calls", "retried_calls", "streamed", "truncated", "queue_time", "answered"), "made"
    ),
    **dict.fromkeys(
        (
            "time_to_first_token",
            "time_to_first_chunk",
            "time_to_first_visible_token",
            "longest_gap",
            "stream_duration",
            "time_per_output_token",
        ),
        "streamed",
    ),
    "repriced_calls": "unpriced_calls",
    **dict.fromkeys(("cached", "audio_input", "image_input", "video_input"), "input"),
    **dict.fromkeys(("reasoning", "audio_output", "image_output", "video_output"), "output"),
    **dict.fromkeys(("cached_audio", "cached_image"), "cache_read"),
    **dict.fromkeys(("unpriced_total", "estimated"), "total"),
    **dict.fromkeys(("cost_unanswered", "retried_cost"), "cost"),
    **dict.fromkeys(("input_tokens", "output_tokens"), "answered"),
    "failed_latency": "timed",
    "recovered": "error",
    "self_time": "calls",
    "inter_token_latency": "token_events",
    "repriced_total": "unpriced_total",
    "cache_write_1h": "cache_write",
}
#: Sums that are parts or wholes in `WHOLES`: what they add, and what they take away.
_SUMS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "calls": (_core.OUTCOMES, ()),
    "made": (_core.OUTCOMES, ("cache_hit",)),
    "answered": (("priced_calls", "unpriced_calls"), ("repriced_calls",)),
    "cached": (("cache_read", "cache_write"), ()),
    "cost_unanswered": (("cost_error", "cost_cancelled"), ()),
}


def amounts(s: _core.SeriesStats) -> dict[str, int]:
    """Return every part and whole of `WHOLES` by name, and `timed`, how many have a latency."""
    known = dict(zip(_core.COUNTERS, s.counters, strict=True))
    timed = {name: s.measure(name).count for name in _core.MEASURES}
    sums = {
        name: sum(known[part] for part in plus) - sum(known[part] for part in minus)
        for name, (plus, minus) in _SUMS.items()
    }
    # The counter of the same name is a time.
    return {**known, **timed, **sums, "timed": timed["latency"]}


def discrepancies(s: _core.SeriesStats) -> dict[str, int]:
    """Return by how much a series contradicts itself, by part; empty for nearly all.

    A part is ahead of its whole where the provider's figures are, and where a snapshot could not
    wait for a call that was ending. `latency` is how many more calls were timed than ended; it is
    negative where calls ended that had not begun here.
    """
    if s.kind in ("error", "hook", *ATTEMPTS):
        return {}
    known = amounts(s)
    ended = known["made" if s.kind in ("model", "label") else "calls"]
    apart = {"latency": known["timed"] - ended} if known["timed"] != ended else {}
    for part, whole in WHOLES.items():
        if known[part] > known[whole]:
            apart[part] = known[part] - known[whole]
    counted = (known["calls"], known["input"], known["output"], known["error"])
    for seconds, _, *counts in s.rates:
        for name, n, most in zip(WINDOW[2:], counts, counted, strict=True):
            if n > most:
                apart[f"{name}_{seconds}s"] = n - most
    return apart


#: The two names of a series, by its kind; those of a label see `by_label`.
NAMES: Final = {
    "model": (("provider",), ("model",)),
    "error": (("who",), ("how",)),
    "defect": (("defect_type", "severity"), ("provider", "model")),
    "strategy": (("strategy",), ("language",)),
}
#: Kinds of series that count attempts at defects.
ATTEMPTS: Final = ("defect", "strategy")


def names_of(s: _core.SeriesStats) -> dict[str, Any]:
    """Return the names of a series, by what each of them is."""
    names: dict[str, Any] = {}
    if s.kind == "label":
        row = LabelRow.of(s)
        names = {"key": _one_or_all(row.keys), "value": _one_or_all(row.values)}
        return names | dict(zip(MODEL, row.model, strict=False))
    for text, parts in zip((s.a, s.b), NAMES.get(s.kind, (("name",), ())), strict=True):
        texts = text.split(_core.SEPARATOR, len(parts) - 1) if parts else []
        names |= zip(parts, [*texts, *("" for _ in parts)], strict=False)
    return names


def _one_or_all(texts: tuple[str, ...]) -> str | list[str]:
    """Return the key or the value of a label, or the list of those that are crossed."""
    return texts[0] if len(texts) == 1 else list(texts)


def labels_of(snapshot: _core.Snapshot) -> list[str | list[str]]:
    """Return the declared labels."""
    return [_one_or_all(keys_in(name)) for name in snapshot.labels]


def series_to_dict(s: _core.SeriesStats, *, hdr: bool = True) -> dict[str, Any]:
    """Return a series: its names, what people look for, then everything that rebuilds it.

    Without `hdr` the histograms are left out, which are most of the work.
    """
    counters = {name: n for name, n in zip(_core.COUNTERS, s.counters, strict=True) if n}
    result: dict[str, Any] = {} if s.kind == "model" else {"kind": s.kind}
    result |= names_of(s)
    result["calls"] = sum(counters.get(name, 0) for name in _core.OUTCOMES)
    result["errors"] = counters.get("error", 0)
    if s.kind in ("model", "label", *ATTEMPTS):
        priced = counters.get("priced_calls", 0)
        result["cost_usd"] = f"{usd(counters.get('cost', 0)):f}" if priced else None
    if s.kind in ATTEMPTS:
        current = {name: entered - left for name, (entered, left) in s.tallies.items()}
        result["attempts"] = sum(current.get(f"outcome_{name}", 0) for name in _core.FIX_OUTCOMES)
        result["defects"] = current.get("defects", 0)
        result["fixed"] = current.get("defects_fixed", 0)
        result["tallies"] = {name: list(pair) for name, pair in s.tallies.items()}
    result["counters"] = counters
    for name in _core.MEASURES:
        if measure := _distribution(s.measure(name), are_tokens=name in TOKENS):
            result[name] = {**measure, "hdr": s.measure(name).to_hdr()} if hdr else measure
    if s.kind == "model":
        result["in_flight"], result["peak_in_flight"] = s.in_flight, s.peak
    if apart := discrepancies(s):
        result["discrepancies"] = apart
    result["rates"] = [dict(zip(WINDOW, window, strict=True)) for window in s.rates]
    return result


def _distribution(d: _core.Distribution, *, are_tokens: bool) -> dict[str, Any] | None:
    """Return what people look for in a distribution, in seconds or tokens."""
    if not d.count:
        return None
    quantiles = {f"p{q}": d.quantile(q / 100) for q in (50, 95, 99)}
    figures = {"mean": d.mean, **quantiles, "max": d.max}
    if are_tokens:
        figures = {name: round(figure * 1e6, 6) for name, figure in figures.items()}
    return {"count": d.count, **figures}
