"""Read a snapshot from plain data, and refuse what no recorder can have written.

Every message names the field, what it must be, and what it is. Figures that follow from others
(calls from outcomes, quantiles from histograms) have to agree with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NoReturn, TypeAlias

from langmeter import _core
from langmeter.errors import SnapshotError
from langmeter.snapshot import serialize
from langmeter.snapshot.by_label import MODEL

#: What `_core.Snapshot.from_parts` takes of a series.
_Part: TypeAlias = tuple[
    str, str, str, list[int], list[str], list[Any], int, int, dict[str, tuple[int, int]]
]

_MOST: Final = 2**64 - 1
_MOST_SIGNED: Final = 2**63 - 1
#: Lists of series → the kinds in them.
LISTS: Final[dict[str, tuple[str, ...]]] = {
    "models": ("model",),
    "components": ("llm", "chain", "node", "agent", "tool", "retriever", "fix"),
    "defects": serialize.ATTEMPTS,
    "others": ("label", "error", "hook"),
}
#: Parts of an anomaly: times in Unix nanoseconds, figures in 1e-12.
CHANGE: Final = (
    *("at_unix_nano", "detected_at_unix_nano", "provider", "model", "metric"),
    *("before_1e12", "after_1e12", "calls_before", "calls_after"),
)
#: Figures of a distribution that follow from its histogram, and how far a reader's rounding may
#: have moved them: by at most the widest bucket.
_DERIVED: Final = ("mean", "p50", "p95", "p99", "max")
_ROUNDING: Final = 0.011
_MICROSECOND: Final = 2e-6
_REMEDY: Final = "write the text again with Snapshot.to_json()"
#: Characters of a value in a message.
_SHOWN: Final = 80


def snapshot(data: Mapping[str, Any]) -> _core.Snapshot:
    """Return the snapshot; raises SnapshotError, or what a foreign structure happens to raise."""
    listed = [
        (f"{name}[{place}]", series, *_series(f"{name}[{place}]", series, kinds))
        for name, kinds in LISTS.items()
        for place, series in enumerate(_list(name, _field("", data, name)))
    ]
    first: dict[tuple[str, ...], str] = {}
    for where, _, part, _ in listed:
        if (there := first.setdefault(part[:3], where)) is not where:
            _refuse(where, f"another series than {there}", part[:3], "join snapshots as a + b")
    origin = _field("", data, "origin")
    if origin is not None:
        origin = tuple(
            _whole(f"origin[{place}]", n) for place, n in enumerate(_list("origin", origin))
        )
        if len(origin) != 2:
            _refuse("origin", "two whole numbers or null", origin)
    started, taken = (
        _whole(name, _field("", data, name))
        for name in ("started_at_unix_nano", "taken_at_unix_nano")
    )
    if started > taken:
        _refuse("taken_at_unix_nano", f"at least started_at_unix_nano ({started})", taken)
    for name, nanoseconds in (("started_at", started), ("taken_at", taken)):
        _same_moment(name, data.get(name), nanoseconds)
    if listed and not taken:
        _refuse("taken_at_unix_nano", "a time, because there are figures", taken)
    _check_windows(listed, taken - started)
    in_flight = _signed("in_flight", _field("", data, "in_flight"))
    native = _core.Snapshot.from_parts(
        [part for _, _, part, _ in listed],
        in_flight=in_flight,
        peak=_whole("peak_in_flight", _field("", data, "peak_in_flight")),
        anomalies=_anomalies(_list("anomalies", _field("", data, "anomalies"))),
        started_at=started,
        taken_at=taken,
        dropped={
            name: _whole(f"dropped.{name}", n)
            for name, n in _mapping("dropped", _field("", data, "dropped")).items()
        },
        origin=origin,
        labels=_labels(data),
    )
    derived = {(s.kind, s.a, s.b): s for s in native.series()}
    for where, given, part, _ in listed:
        if part[:3] in derived:
            _check(where, given, derived[part[:3]], max(0, in_flight))
        elif given.get("calls") or given.get("errors"):  # nothing was counted
            _refuse(f"{where}.calls", "0, as its counters have it", given.get("calls"))
    return native


def _joined(names: list[str]) -> str:
    """Return the name of a series of one or two: the recorder sets a separator before a second."""
    first, *more = names or [""]
    return _core.SEPARATOR.join([first, *more]) if any(more) else first


def _series(
    where: str, series: object, kinds: tuple[str, ...]
) -> tuple[_Part, list[tuple[int, ...]]]:
    """Return one series as `from_parts` takes it, and its windows."""
    given = _mapping(where, series)
    kind = given.get("kind", "model")
    if kind not in kinds:
        _refuse(f"{where}.kind", f"one of {', '.join(kinds)}", kind)
    a, b = _names(where, given, kind)
    counters = [0] * len(_core.COUNTERS)
    for name, n in _mapping(f"{where}.counters", _field(where, given, "counters")).items():
        if name not in serialize.COUNTER_INDEX:
            _refuse(f"{where}.counters", "counters that are known", name, "upgrade langmeter")
        counters[serialize.COUNTER_INDEX[name]] = _whole(f"{where}.counters.{name}", n)
    hdrs = [
        _text(f"{where}.{name}", _mapping(f"{where}.{name}", given[name]), "hdr")
        if name in given
        else ""
        for name in _core.MEASURES
    ]
    rates = [
        tuple(
            _whole(f"{where}.rates[{place}].{name}", _field(where, window, name))
            for name in serialize.WINDOW
        )
        for place, window in enumerate(_list(f"{where}.rates", _field(where, given, "rates")))
    ]
    counted = kind in ("model", "label")
    windows = tuple(window[0] for window in rates)
    if windows not in ((), _core.WINDOWS) or (windows and not counted):
        allowed = f"windows of {', '.join(map(str, _core.WINDOWS))} s" if counted else "empty"
        _refuse(f"{where}.rates", allowed, windows)
    in_flight = _signed(f"{where}.in_flight", given.get("in_flight", 0))
    peak = _whole(f"{where}.peak_in_flight", given.get("peak_in_flight", 0))
    return (kind, a, b, counters, hdrs, rates, in_flight, peak, _tallies(where, given)), rates


def _names(where: str, given: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Return the two names of a series."""
    if kind != "label":
        parts = serialize.NAMES.get(kind, (("name",), ()))
        a, b = (_joined([_text(where, given, name) for name in each]) for each in parts)
        return a, b
    keys, values = (
        _one_or_all(f"{where}.{name}", _field(where, given, name)) for name in ("key", "value")
    )
    if len(keys) != len(values):
        _refuse(f"{where}.value", f"{len(keys)} texts, one for each key", values)
    # A row that an older langmeter wrote has neither.
    model = [_text(where, given, name) for name in MODEL if any(each in given for each in MODEL)]
    return _core.SEPARATOR.join(keys), _core.SEPARATOR.join([*values, *model])


def _one_or_all(where: str, value: object) -> list[str]:
    """Return the texts of a label's key or value: one, or the list of those that are crossed."""
    texts = [value] if isinstance(value, str) else _list(where, value)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            _refuse(f"{where}[{place}]", "a text", text)
    if not texts:
        _refuse(where, "a text, or texts", value)
    return texts


def _labels(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the declared labels; a snapshot without labels has no such field."""
    listed = enumerate(_list("labels", data.get("labels", [])))
    return [_core.SEPARATOR.join(_one_or_all(f"labels[{place}]", keys)) for place, keys in listed]


def _tallies(where: str, given: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return what entered each figure of attempts at defects, and what left it."""
    tallies: dict[str, tuple[int, int]] = {}
    for name, pair in _mapping(f"{where}.tallies", given.get("tallies", {})).items():
        if name not in _core.TALLIES:
            _refuse(f"{where}.tallies", "figures that are known", name, "upgrade langmeter")
        field = f"{where}.tallies.{name}"
        counts = [_whole(field, n) for n in _list(field, pair)]
        if len(counts) != 2:
            _refuse(field, "what entered and what left: two whole numbers", pair)
        tallies[name] = counts[0], counts[1]
    return tallies


def _check_windows(listed: list[tuple[str, Any, _Part, Any]], span: int) -> None:
    """Hold what windows cover to their length, or in a difference to the time between."""
    for where, _, _, rates in listed:
        for place, (seconds, covered, *_) in enumerate(rates):
            if covered > max(seconds * 10**9, span):
                _refuse(
                    f"{where}.rates[{place}].covered_ns",
                    f"at most {seconds} s or the time between started_at and taken_at",
                    covered,
                )


def _check(where: str, shown: Mapping[str, Any], s: _core.SeriesStats, in_flight: int) -> None:
    """Hold what a series says of itself to its counters and histograms."""
    again = serialize.series_to_dict(s, hdr=False)
    for name in ("calls", "errors", "cost_usd", "attempts", "defects", "fixed"):
        if name in shown and name in again and shown[name] != again[name]:
            _refuse(f"{where}.{name}", f"{again[name]!r}, as its counters have it", shown[name])
    for name in _core.MEASURES:
        if name in shown:
            _check_distribution(f"{where}.{name}", shown[name], again.get(name, {"count": 0}))
    stated = _mapping(f"{where}.discrepancies", shown.get("discrepancies", {}))
    computed = again.get("discrepancies", {})
    for part in {**computed, **stated}:
        off = computed.get(part, 0) - stated.get(part, 0)
        # Calls that were ending while the snapshot was taken.
        if abs(off) <= (in_flight if serialize.WHOLES.get(part, "made") in _CALLS else 0):
            continue
        known = serialize.amounts(s)
        if part == "latency":
            calls = known["made" if s.kind in ("model", "label") else "calls"]
            _contradiction(
                f"{where}.latency must count the {calls:,} calls that ended", known["timed"]
            )
        if part not in serialize.WHOLES:
            _refuse(f"{where}.rates", "at most what the counters have", part)
        whole = serialize.WHOLES[part]
        _refuse(f"{where}.{part}", f"at most {whole} ({known[whole]:,})", known[part])


_CALLS: Final = ("calls", "made", "streamed", "error", "unpriced_calls")


def _check_distribution(where: str, shown: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    if shown.get("count", again["count"]) != again["count"]:
        _refuse(f"{where}.count", f"{again['count']}, as its histogram has it", shown["count"])
    for name in _DERIVED:
        if name in shown and name in again:
            stated, is_so = shown[name], again[name]
            number = isinstance(stated, int | float) and not isinstance(stated, bool)
            if not number or not abs(stated - is_so) <= _ROUNDING * is_so + _MICROSECOND:
                _refuse(f"{where}.{name}", f"{is_so}, as its histogram has it", stated)


def _anomalies(listed: list[Any]) -> list[Any]:
    changes: list[tuple[Any, ...]] = []
    for place, change in enumerate(listed):
        where = f"anomalies[{place}]"
        given = _mapping(where, change)
        made: tuple[Any, ...] = tuple(
            _text(where, given, name)
            if name in ("provider", "model", "metric")
            else _whole(f"{where}.{name}", _field(where, given, name))
            for name in CHANGE
        )
        if made[0] > made[1]:
            _refuse(f"{where}.detected_at_unix_nano", f"at least at_unix_nano ({made[0]})", made[1])
        if made in changes:
            _refuse(where, f"another anomaly than anomalies[{changes.index(made)}]", made)
        changes.append(made)
    return changes


def _same_moment(name: str, shown: object, nanoseconds: int) -> None:
    """Hold a time that people read to the one that counts, where it is there."""
    if shown is None:
        return
    try:
        moment = datetime.fromisoformat(shown)  # type: ignore[arg-type]
        apart = abs(moment.timestamp() - nanoseconds / 1e9)
    except (TypeError, ValueError, OverflowError):
        apart = float("inf")
    if not apart < 0.001:
        _refuse(name, f"the time of {name}_unix_nano ({nanoseconds})", shown)


# --- fields --------------------------------------------------------------------------------------


def _field(where: str, data: Mapping[str, Any], name: str) -> Any:
    if not isinstance(data, Mapping):
        _refuse(where, "an object", data)
    if name not in data:
        of = f" of {where}" if where else ""
        raise SnapshotError(f"not a langmeter snapshot: field {name!r}{of} is missing")
    return data[name]


def _text(where: str, data: Mapping[str, Any], name: str) -> str:
    value = _field(where, data, name)
    return value if isinstance(value, str) else _refuse(f"{where}.{name}", "a text", value)


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _refuse(where, "an object", value)


def _list(where: str, value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else _refuse(where, "a list", value)


def _whole(where: str, value: object, low: int = 0, high: int = _MOST) -> int:
    if type(value) is int and low <= value <= high:
        return value
    return _refuse(where, f"a whole number from {low:,} to {high:,}", value)


def _signed(where: str, value: object) -> int:
    return _whole(where, value, -_MOST_SIGNED, _MOST_SIGNED)


def _refuse(where: str, allowed: str, value: object, remedy: str = _REMEDY) -> NoReturn:
    _contradiction(f"{where} must be {allowed}", value, remedy)


def _contradiction(rule: str, value: object, remedy: str = _REMEDY) -> NoReturn:
    text = repr(value)
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    raise SnapshotError(f"not a langmeter snapshot: {rule}, got {text}; {remedy}")


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; raises SnapshotError where a field stands twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse(f"field {twice!r}", "there once in its object", names)
    return fields


def not_a_number(text: str) -> NoReturn:
    """Refuse NaN and Infinity, which JSON does not have."""
    _refuse("every number", "finite", text)
