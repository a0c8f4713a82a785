"""Snapshots: the figures of a meter up to a moment, immutable and mergeable.

A snapshot is taken while recorders run on. Every counter in it is exact for some moment between the
begin and the end of the call; two counters may be of moments a few microseconds apart. Once the
calls it covers have ended, everything in it is exact.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, overload

from langmeter import _core
from langmeter._base.output import terminal_width
from langmeter._base.text import label_name, plural
from langmeter._core import Distribution
from langmeter.errors import SnapshotError
from langmeter.snapshot import by_label, parse, serialize, table
from langmeter.snapshot.anomaly import Anomaly, anomaly_of
from langmeter.snapshot.counts import Rate, rates_by_window
from langmeter.snapshot.defect_stats import DefectStats
from langmeter.snapshot.state import State
from langmeter.snapshot.stats import (
    CallStats,
    ComponentStats,
    Immutable,
    LabelStats,
    ModelStats,
    Overhead,
    ended_text,
)

#: Newest version of the dict, JSON and binary forms: that of a snapshot with declared labels.
FORMAT = _core.SNAPSHOT_FORMAT


class Snapshot(Immutable):
    """Immutable figures of one recorder, or of many merged. `Snapshot()` is the zero of the sum.

    `a + b` merges threads, processes, hosts; `b - a` is what happened between two snapshots of the
    same counts. Histograms merge bucket by bucket: no percentile is ever averaged.
    """

    #: What is not a sum, by origin: budgets, circuits, decisions, alerts, streams in flight.
    state: State
    _native: _core.Snapshot

    def __init__(self, native: _core.Snapshot | None = None, state: State | None = None) -> None:
        vars(self).update(
            _native=_core.Snapshot() if native is None else native,
            state=State() if state is None else state,
        )

    @cached_property
    def _series(self) -> list[_core.SeriesStats]:
        return self._native.series()

    @cached_property
    def models(self) -> Mapping[tuple[str, str], ModelStats]:
        """`(provider, model)`, as the response names them, to figures."""
        return MappingProxyType(
            {
                (s.a, s.b): ModelStats(
                    s.a, s.b, s.counters, s.rates, s.measure, in_flight=s.in_flight, peak=s.peak
                )
                for s in self._of("model")
            }
        )

    @cached_property
    def components(self) -> Mapping[tuple[str, str], ComponentStats]:
        """`(kind, name)` to figures; kind is chain, node, agent, tool, retriever, llm or fix."""
        return MappingProxyType({(s.kind, s.a): ComponentStats(s) for s in self._of(*COMPONENTS)})

    @cached_property
    def labels(self) -> Mapping[tuple[str, str], LabelStats]:
        """`(key, value)` of labels of one key to figures over all models; `by` has the others."""
        rows = {}
        for names, s in self._label_series.items():
            if len(names) == 1:
                rows[names[0]] = LabelStats(*names[0], s.counters, s.rates, s.measure)
        return MappingProxyType(rows)

    @cached_property
    def label_rows(self) -> Mapping[tuple[tuple[str, str], ...], CallStats]:
        """`((key, value), …)` of every label, crossed or not, to figures over all models."""
        rows = {names: _calls(label_name(*names), s) for names, s in self._label_series.items()}
        return MappingProxyType(rows)

    @cached_property
    def _label_series(self) -> Mapping[tuple[tuple[str, str], ...], _core.SeriesStats]:
        rows = ((by_label.LabelRow.of(s), s) for s in self._of("label"))
        pairs = ((tuple(zip(row.keys, row.values, strict=True)), s) for row, s in rows)
        return by_label.merged(pairs)

    @overload
    def by(self, name: str, /) -> Mapping[str, CallStats]: ...
    @overload
    def by(self, *names: str) -> Mapping[tuple[str, ...], CallStats]: ...
    def by(self, *names: str) -> Mapping[Any, CallStats]:
        """Return figures by the values of a label's keys, and of provider and model if named.

        `by("team")` maps values to figures, `by("team", "model")` and, of a label that crosses
        keys, `by("team", "customer")` tuples of values in the order of the names. The value "" is
        that of the calls without one, `other` that of the calls beyond the cap. `by("provider")`
        and `by("provider", "model")` need no label.

        Raises:
            ValueError: the names are not the keys of one declared label; it says which are.
        """
        series = self._of("label")
        keys = by_label.check_names(names, by_label.declared(self._native, series))
        rows = by_label.merged(by_label.rows_by(series if keys else self._of("model"), names, keys))
        return MappingProxyType(
            {
                values[0] if len(names) == 1 else values: _calls(
                    label_name(*zip(names, values, strict=True)), s
                )
                for values, s in sorted(rows.items())
            }
        )

    @cached_property
    def defects(self) -> Mapping[tuple[str, str, str, str], DefectStats]:
        """`(defect_type, provider, model, severity)` to figures of the attempts at such defects.

        An attempt without a model call has the row `(defect_type, "", "", severity)`.
        """
        rows: dict[tuple[str, str, str, str], DefectStats] = {}
        for s in self._of("defect"):
            names = serialize.names_of(s)
            defect_type, severity, provider, model = names.values()
            name = f"{defect_type} {severity} by {provider}/{model}"
            rows[defect_type, provider, model, severity] = _attempts(s, name)
        return MappingProxyType(rows)

    @cached_property
    def defect_strategies(self) -> Mapping[tuple[str, str], DefectStats]:
        """`(strategy, language)` to figures of the attempts that named one of them."""
        return MappingProxyType(
            {(s.a, s.b): _attempts(s, f"{s.a} {s.b}") for s in self._of("strategy")}
        )

    @cached_property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """`(who, how)` to how often: `("openai/gpt-4o", "RateLimitError 429")`.

        Who is a model or a component, `tool search`; how is the exception's class and, where a
        server answered, its HTTP status. Cancelled runs are among them.
        """
        return MappingProxyType(
            {(s.a, s.b): sum(s.counters[: len(_core.OUTCOMES)]) for s in self._of("error")}
        )

    @cached_property
    def failed_latency(self) -> Mapping[tuple[str, str], Distribution]:
        """`(who, how)` of `failures` to their durations from start to end, seconds."""
        return MappingProxyType({(s.a, s.b): s.measure("latency") for s in self._of("error")})

    @cached_property
    def unpriced(self) -> Mapping[tuple[str, str], int]:
        """`(provider, model)` to tokens of its calls that have no price so far."""
        tokens = {key: stats.unpriced_tokens for key, stats in self.models.items()}
        return MappingProxyType({key: n for key, n in tokens.items() if n})

    @cached_property
    def overhead(self) -> Mapping[str, Overhead]:
        """Time spent inside langmeter's own hooks, by hook."""
        return MappingProxyType({s.a: Overhead(s.measure("latency")) for s in self._of("hook")})

    @cached_property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Change points of models while they were watched, the oldest first."""
        return tuple(map(anomaly_of, self._native.anomalies))

    @property
    def pipeline_runs(self) -> int:
        """Runs at the top that ended: whole pipelines, or model calls of their own."""
        return sum(s.counters[serialize.COUNTER_INDEX["pipelines"]] for s in self._series)

    @property
    def pipeline_seconds(self) -> float:
        """From start to end of those, in all."""
        return sum(s.counters[serialize.COUNTER_INDEX["pipeline_time"]] for s in self._series) / 1e9

    @cached_property
    def _by_kind(self) -> Mapping[str, list[_core.SeriesStats]]:
        """Series by kind; a live page reads those of models ten times a second."""
        groups: dict[str, list[_core.SeriesStats]] = {}
        for s in self._series:
            groups.setdefault(s.kind, []).append(s)
        return groups

    def _of(self, *kinds: str) -> list[_core.SeriesStats]:
        if len(kinds) == 1:
            return self._by_kind.get(kinds[0], [])
        return [s for s in self._series if s.kind in kinds]

    @cached_property
    def totals(self) -> ModelStats:
        """The sum over all models."""
        models = self._of("model")
        zero = (0,) * len(_core.COUNTERS)
        counters = tuple(map(sum, zip(zero, *(s.counters for s in models), strict=True)))
        return ModelStats(
            "",
            "",
            counters,
            self._native.windows,
            lambda name: Distribution.total([s.measure(name) for s in models]),
            name="total",
            in_flight=self.in_flight,
            peak=self.peak_in_flight,
        )

    @cached_property
    def rates(self) -> Mapping[int, Rate]:
        """Events per second over all models by window: 60, 300 and 900 seconds."""
        return rates_by_window(self._native.windows)

    @property
    def in_flight(self) -> int:
        """Model calls that had begun and not ended."""
        return self._native.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most that were in flight at once, in one recorder, since its beginning."""
        return self._native.peak

    @cached_property
    def dropped(self) -> Mapping[str, int]:
        """Counts of what was capped, reaped or refused, by name; empty when nothing was."""
        return MappingProxyType(dict(self._native.dropped))

    @property
    def started_at(self) -> datetime | None:
        """Begin of what is covered, UTC; None in the empty snapshot."""
        return _moment(self._native.started_at)

    @property
    def taken_at(self) -> datetime | None:
        """End of what is covered, UTC; None in the empty snapshot."""
        return _moment(self._native.taken_at)

    def __add__(self, other: Snapshot) -> Snapshot:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return Snapshot(self._native + other._native, self.state + other.state)

    def __sub__(self, other: Snapshot) -> Snapshot:
        """Return what was counted since `other`, an earlier snapshot or a part of a sum.

        It has no state.

        Raises ValueError when `other` is of another recorder (the process was restarted, or another
        meter was made) or counts more than this snapshot.
        """
        if not isinstance(other, Snapshot):
            return NotImplemented
        return Snapshot(self._native - other._native)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return self._native == other._native and self.state == other.state

    def __hash__(self) -> int:
        return hash(self._native)

    def __reduce__(self) -> tuple[Callable[[bytes], Snapshot], tuple[bytes]]:
        return Snapshot.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> Snapshot:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Snapshot:
        return self

    def to_bytes(self) -> bytes:
        """Compact versioned binary form."""
        return self.state.before(self._native.to_bytes())

    @staticmethod
    def from_bytes(data: bytes) -> Snapshot:
        """Inverse of `to_bytes`. Raises ValueError on foreign, damaged or newer bytes."""
        state, rest = State.split(data)
        return Snapshot(_core.Snapshot.from_bytes(rest), state)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers, readable and lossless; durations in seconds.

        Where a series contradicts itself, e.g. because its provider's figures do, `discrepancies`
        says by how much.
        """
        native = self._native
        state = {"state": self.state.to_list()} if self.state else {}
        return {
            "langmeter": _core.__version__,
            "format": serialize.FORMATS[bool(native.labels)],
            "started_at": self.started_at and self.started_at.isoformat(),
            "taken_at": self.taken_at and self.taken_at.isoformat(),
            "started_at_unix_nano": native.started_at,
            "taken_at_unix_nano": native.taken_at,
            "origin": native.origin and list(native.origin),
            "in_flight": native.in_flight,
            "peak_in_flight": native.peak,
            "anomalies": [
                dict(zip(parse.CHANGE, change, strict=True)) for change in native.anomalies
            ],
            "dropped": native.dropped,
            **({"labels": labels} if (labels := serialize.labels_of(native)) else {}),
            "models": [serialize.series_to_dict(s) for s in self._of("model")],
            "components": [serialize.series_to_dict(s) for s in self._of(*COMPONENTS)],
            "defects": [serialize.series_to_dict(s) for s in self._of("defect", "strategy")],
            "others": [serialize.series_to_dict(s) for s in self._of("label", "error", "hook")],
            **state,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Snapshot:
        """Inverse of `to_dict`.

        Raises SnapshotError, a ValueError, for other dicts, and for one that contradicts itself:
        a histogram of more calls than were counted, a part above its whole, a series twice.
        """
        try:
            version = data.get("format")
            if type(version) is int and version in serialize.FORMATS:
                return Snapshot(parse.snapshot(data), State.from_list(data.get("state", [])))
        except SnapshotError:
            raise
        except Exception as exc:  # whatever a foreign structure does to code that reads it
            raise SnapshotError(f"not a langmeter snapshot: {exc!r}") from exc
        if version is None:
            raise SnapshotError("not a langmeter snapshot: field 'format' is missing")
        older = isinstance(version, int) and version < FORMAT
        raise SnapshotError(
            f"snapshot of format {version!r}; this langmeter ({_core.__version__}) reads "
            f"{serialize.FORMATS[0]} and {FORMAT}: "
            + ("it was written by an older one, " if older else "upgrade it to read this snapshot")
            + (f"read it with langmeter {data.get('langmeter', version)}" if older else "")
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> Snapshot:
        """Inverse of `to_json`. Raises SnapshotError, a ValueError, for other texts."""
        try:
            data = json.loads(
                text,
                object_pairs_hook=parse.without_duplicates,
                parse_constant=parse.not_a_number,
            )
        except SnapshotError:
            raise
        except UnicodeDecodeError as exc:
            raise SnapshotError(f"not a langmeter snapshot: not a JSON text ({exc})") from exc
        except (ValueError, TypeError, RecursionError) as exc:
            raise SnapshotError(f"not a langmeter snapshot: {exc}") from exc
        return Snapshot.from_dict(data)

    def __repr__(self) -> str:
        models, totals = plural(len(self.models), "model"), self.totals
        tokens = plural(totals.tokens.total, "token")
        return (
            f"<Snapshot of {models}: {ended_text(totals)}, {tokens}, {self.in_flight:,} in flight>"
        )

    def table(self, width: int | None = None) -> str:
        """Return the figures as plain text tables.

        Args:
            width: columns that there are; a wider table is divided into several, one below the
                other. None for no limit: the widest table takes about 110 columns.
        """
        return table.text(self, width)

    def __str__(self) -> str:
        """Return the tables, divided where standard output is a terminal that is narrower."""
        return self.table(terminal_width(sys.stdout))

    def _repr_html_(self) -> str:
        """Return the tables as HTML; notebooks display it."""
        return table.html(self)


#: Kinds of series that are components.
COMPONENTS = ("llm", "chain", "node", "agent", "tool", "retriever", "fix")


def _calls(name: str, s: _core.SeriesStats) -> CallStats:
    return CallStats(name, s.counters, s.rates, s.measure)


def _attempts(s: _core.SeriesStats, name: str) -> DefectStats:
    return DefectStats(name, s.counters, s.tallies, s.measure)


def _moment(unix_nano: int) -> datetime | None:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC) if unix_nano else None
