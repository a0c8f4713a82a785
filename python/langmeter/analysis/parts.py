"""Rows of a snapshot that a metric is about, and the names that they are grouped by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from langmeter import _core
from langmeter._base.check import refusal
from langmeter.analysis.metrics import (
    Metric,
    component_place,
    defect_place,
    matches,
    model_name,
)
from langmeter.snapshot import Anomaly, Snapshot
from langmeter.snapshot.by_label import declared, rows_by
from langmeter.snapshot.snapshot import COMPONENTS
from langmeter.snapshot.stats import CallStats

__all__ = ["Parts"]

_MODELS: Final = ("provider", "model")
_DEFECTS: Final = ("defect_type", "provider", "model", "severity")
_STRATEGIES: Final = ("strategy", "language")
_COMPONENT: Final = "component"

#: A row of a snapshot: what makes of its names the place that a metric may name, its names, and
#: its figures, native ones of series.
_Part: TypeAlias = "tuple[Callable[[Any], str], tuple[str, ...], Any]"


class Parts:
    """Finds in snapshots the rows that a metric is about, and their labels.

    Args:
        names: what rows are grouped by.
        where: place of the metric; "" for all.
        metric: what is read of the rows.
        sources: names that come with each snapshot, e.g. host; `names` may have them.

    Raises:
        ConfigError: the names are not of such rows.
    """

    def __init__(
        self, names: tuple[str, ...], where: str, metric: Metric, sources: tuple[str, ...] = ()
    ) -> None:
        self._where = where
        own = tuple(name for name in names if name not in sources)
        known: tuple[str, ...] = _MODELS
        self._rows: Callable[[Snapshot], Iterable[_Part]] = self._models
        self._keys: frozenset[str] = frozenset()
        if metric.of_defects:
            known, self._rows = _DEFECTS, self._attempts
            if own and set(own) <= set(_STRATEGIES):
                known, self._rows = _STRATEGIES, self._strategies
            if not set(own) <= set(known):
                allowed = "defect_type, severity, provider, model; or strategy, language"
                raise refusal("by", allowed, names)
        elif metric.of is Anomaly:
            self._rows = self._changes
            if not set(own) <= set(known):
                raise refusal("by", "provider and model", names)
        elif own == (_COMPONENT,) or (not own and " " in where):
            known, self._rows = (_COMPONENT,), self._components
        elif _COMPONENT in own:
            raise refusal("by", "component alone, or without it provider, model or a label", names)
        elif not set(own) <= set(_MODELS):
            self._keys = frozenset(own) - frozenset(_MODELS)
            known, self._rows = own, self._labelled
        #: Where each name stands among the values of a row, those of its database row last.
        self._places = tuple((*known, *sources).index(name) for name in names)
        self._known = known
        self._labels: set[frozenset[str]] = set()

    def of(
        self, snapshot: Snapshot, sources: tuple[str, ...] = ()
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Return the rows of a snapshot that the metric is about, by the values of their names."""
        for key, row in self._chosen(snapshot, sources):
            yield key, _stats([row])

    def sums(
        self, snapshots: Iterable[tuple[Snapshot, tuple[str, ...]]]
    ) -> dict[tuple[str, ...], list[Any]]:
        """Return the figures of several snapshots by the values of their names.

        Rows that have the same are added natively where they can be; others are listed.
        """
        groups: dict[tuple[str, ...], list[Any]] = {}
        for snapshot, sources in snapshots:
            for key, row in self._chosen(snapshot, sources):
                groups.setdefault(key, []).append(row)
        native = _core.SeriesStats
        return {
            key: [_stats(rows)] if isinstance(rows[0], native) else rows
            for key, rows in groups.items()
        }

    def _chosen(
        self, snapshot: Snapshot, sources: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        where, places = self._where, self._places
        for place, own, row in self._rows(snapshot):
            if not where or matches(where, place(own)):
                values = own + sources
                yield tuple([values[number] for number in places]), row

    def check(self) -> None:
        """Raise ConfigError where snapshots have other labels: this one is most likely misspelt."""
        if self._keys and self._labels and self._keys not in self._labels:
            labels = sorted(", ".join(sorted(keys)) for keys in self._labels)
            allowed = "component, host, version, provider, model, or the keys of a label"
            raise refusal("by", f"{allowed} ({'; '.join(labels)})", ", ".join(sorted(self._keys)))

    def _models(self, snapshot: Snapshot) -> Iterator[_Part]:
        for s in snapshot._native.series():
            if s.kind == "model":
                yield model_name, (s.a, s.b), s

    def _changes(self, snapshot: Snapshot) -> Iterator[_Part]:
        for change in snapshot.anomalies:
            yield model_name, (change.provider, change.model), change

    def _labelled(self, snapshot: Snapshot) -> Iterator[_Part]:
        series = [s for s in snapshot._native.series() if s.kind == "label"]
        self._labels.update(declared(snapshot._native, series))
        for values, s in rows_by(series, self._known, self._keys):
            yield self._label_place, values, s

    def _label_place(self, values: tuple[str, ...]) -> str:
        """Return the values of a label's keys, without provider and model."""
        pairs = zip(self._known, values, strict=True)
        return " ".join(value for name, value in pairs if name in self._keys)

    def _components(self, snapshot: Snapshot) -> Iterator[_Part]:
        for s in snapshot._native.series():
            if s.kind in COMPONENTS:
                place = component_place((s.kind, s.a))
                yield " ".join, (place,), s

    def _attempts(self, snapshot: Snapshot) -> Iterator[_Part]:
        return ((defect_place, key, stats) for key, stats in snapshot.defects.items())

    def _strategies(self, snapshot: Snapshot) -> Iterator[_Part]:
        return ((" ".join, key, stats) for key, stats in snapshot.defect_strategies.items())


def _stats(rows: list[Any]) -> Any:
    """Return the figures of rows, of native ones their sum."""
    row = rows[0]
    if not isinstance(row, _core.SeriesStats):
        return row
    whole = row if len(rows) == 1 else _core.SeriesStats.merged(rows)
    return CallStats("", whole.counters, (), whole.measure)
