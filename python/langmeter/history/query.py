"""Figures by time: what a history answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from langmeter._base.check import refusal
from langmeter._base.frames import frame
from langmeter._base.spans import Length, Moment, moment_of, seconds_of
from langmeter._core import Distribution
from langmeter.analysis.metrics import (
    Stats,
    component_place,
    defect_place,
    matches,
    model_name,
    reference,
)
from langmeter.errors import ConfigError
from langmeter.history.store import Span, Store, total, unix
from langmeter.snapshot import Snapshot
from langmeter.snapshot.defect_stats import DefectStats
from langmeter.snapshot.snapshot import COMPONENTS
from langmeter.snapshot.stats import CallStats

#: Names that each row of the database has.
_SOURCES: Final = ("host", "version")
_MODELS: Final = ("provider", "model")
_DEFECTS: Final = ("defect_type", "provider", "model", "severity")
_STRATEGIES: Final = ("strategy", "language")
_COMPONENT: Final = "component"

#: A row of a snapshot: what makes of its names the place that a metric may name, its names, and
#: its figures.
_Part: TypeAlias = "tuple[Callable[[Any], str], tuple[str, ...], Stats]"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of one span.

    Attributes:
        start, end: of the span, UTC; at least what was asked for, and whole rows of the finest
            level that the history keeps there.
        labels: what the figure is of, by the names of `by`.
        value: in the unit of the metric: seconds, shares of 1, US dollars, tokens, counts.
        count: observations that the value rests on.
    """

    start: datetime
    end: datetime
    labels: Mapping[str, str]
    value: float
    count: int


class Rows(tuple[Row, ...]):
    """The answer to a query; a tuple of `Row`, in order of their start."""

    __slots__ = ()

    def to_frame(self, library: str | None = None) -> Any:
        """Return a data frame (of pyarrow a table): start, end, the labels, value and count.

        Args:
            library: "pandas", "polars" or "pyarrow"; the first of them that is installed if None.

        Raises:
            ConfigError: another library.
            ImportError: it is not installed.
        """
        names = list(dict.fromkeys(name for row in self for name in row.labels))
        columns: dict[str, list[Any]] = {
            "start": [row.start for row in self],
            "end": [row.end for row in self],
            **{name: [row.labels.get(name) for row in self] for name in names},
            "value": [row.value for row in self],
            "count": [row.count for row in self],
        }
        return frame(columns, library)


class History:
    """What meters wrote to a database, as figures by time.

    It only reads, except that the tables of an older langmeter are brought forward.

    Args:
        url: path of an SQLite file, or a URL of SQLAlchemy.

    Raises:
        ConfigError: the URL is not one of a known database.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._store = Store(url)

    def __repr__(self) -> str:
        return f"<History {self._store.database.name}>"

    def query(
        self,
        metric: str,
        *,
        by: str | Iterable[str] = (),
        since: Moment = None,
        until: Moment = None,
        step: Length | None = None,
    ) -> Rows:
        """Return a figure by time and by what it is of; nothing where there is no data.

        Args:
            metric: as of rules: "cost", "calls", "error_rate", "latency.p95", "success_rate" and
                so on; `"latency.p95[openai/*]"` is of these models alone.
            by: names: provider, model; or a label, e.g. team; or component; for attempts at defects
                defect_type, severity, provider, model; and host or version beside any of them.
            since: begin: a datetime, "2026-10-14", "7d" or a timedelta before now; None for all.
            until: end; None for now.
            step: length of a row, e.g. "1h", whole seconds, counted from midnight UTC (more than a
                day: from 1970-01-01); None for one row in all.

        Raises:
            ConfigError: an argument is not one of these.
            SourceError: the database does not answer, or is not a history.
        """
        try:
            measured, where = reference(metric)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        names = tuple(dict.fromkeys((by,) if isinstance(by, str) else by))
        parts = _Parts(names, where, of_defects=measured.of_defects)
        seconds = None if step is None else _whole(step)
        labels: dict[tuple[str, ...], Mapping[str, str]] = {}
        rows = []
        for start, end, spans in _steps(self._read(since, until, seconds), seconds):
            groups: dict[tuple[str, ...], list[Stats]] = {}
            for span in spans:
                for key, stats in parts.of(span):
                    groups.setdefault(key, []).append(stats)
            for key in sorted(groups):
                figure = measured.read(_merged(groups[key]))
                if figure is not None:
                    if key not in labels:
                        labels[key] = MappingProxyType(dict(zip(names, key, strict=True)))
                    rows.append(Row(start, end, labels[key], figure.value, figure.count))
        parts.check()
        return Rows(rows)

    def between(self, since: Moment, until: Moment) -> Snapshot:
        """Return what was counted in a span, as one snapshot; moments are as of `query`."""
        return total(span.snapshot for span in self._read(since, until, None))

    def snapshot(self) -> Snapshot:
        """Return all that was counted."""
        return self.between(None, None)

    def _read(self, since: Moment, until: Moment, step: int | None) -> Iterator[Span]:
        now = datetime.now(UTC)
        begin, end = moment_of("since", since, now), moment_of("until", until, now)
        if begin is not None and end is not None and begin >= end:
            raise refusal("since", "before until", since)
        last = unix(end)
        if end is not None and end.microsecond and last is not None:
            last += 1
        return self._store.read(unix(begin), last, step)


class _Parts:
    """Finds in snapshots the rows that a query is about, and their labels."""

    def __init__(self, names: tuple[str, ...], where: str, *, of_defects: bool) -> None:
        self._where = where
        own = tuple(name for name in names if name not in _SOURCES)
        known: tuple[str, ...] = _MODELS
        self._rows: Callable[[Snapshot], Iterable[_Part]] = self._models
        self._label = ""
        if of_defects:
            known, self._rows = _DEFECTS, self._attempts
            if own and set(own) <= set(_STRATEGIES):
                known, self._rows = _STRATEGIES, self._strategies
            if not set(own) <= set(known):
                allowed = "defect_type, severity, provider, model; or strategy, language"
                raise refusal("by", allowed, names)
        elif own == (_COMPONENT,) or (not own and " " in where):
            known, self._rows = (_COMPONENT,), self._components
        elif len(own) == 1 and own[0] not in _MODELS:
            known, self._rows, self._label = own, self._labelled, own[0]
        elif not set(own) <= set(_MODELS):
            raise refusal("by", "provider and model, component, or one label", names)
        #: Where each name stands among the values of a row, those of its database row last.
        self._places = tuple((*known, *_SOURCES).index(name) for name in names)
        self._labels: set[str] = set()

    def of(self, span: Span) -> Iterator[tuple[tuple[str, ...], Stats]]:
        """Return the rows of a snapshot that the query is about, by the values of its names."""
        sources = span.host, span.version
        for place, own, stats in self._rows(span.snapshot):
            if not self._where or matches(self._where, place(own)):
                values = own + sources
                yield tuple([values[number] for number in self._places]), stats

    def check(self) -> None:
        """Raise ConfigError where snapshots have other labels: this one is most likely misspelt."""
        if self._label and self._labels and self._label not in self._labels:
            allowed = "provider, model, component, host, version, or a label"
            raise refusal("by", f"{allowed} ({', '.join(sorted(self._labels))})", self._label)

    def _models(self, snapshot: Snapshot) -> Iterator[_Part]:
        for s in snapshot._native.series():
            if s.kind == "model":
                yield model_name, (s.a, s.b), CallStats("", s.counters, (), s.measure)

    def _labelled(self, snapshot: Snapshot) -> Iterator[_Part]:
        for s in snapshot._native.series():
            if s.kind == "label":
                self._labels.add(s.a)
                if s.a == self._label:
                    yield " ".join, (s.b,), CallStats("", s.counters, (), s.measure)

    def _components(self, snapshot: Snapshot) -> Iterator[_Part]:
        for s in snapshot._native.series():
            if s.kind in COMPONENTS:
                place = component_place((s.kind, s.a))
                yield " ".join, (place,), CallStats("", s.counters, (), s.measure)

    def _attempts(self, snapshot: Snapshot) -> Iterator[_Part]:
        return ((defect_place, key, stats) for key, stats in snapshot.defects.items())

    def _strategies(self, snapshot: Snapshot) -> Iterator[_Part]:
        return ((" ".join, key, stats) for key, stats in snapshot.defect_strategies.items())


def _merged(stats: Sequence[Stats]) -> Stats:
    """Return the sum of rows of one kind."""
    if len(stats) == 1:
        return stats[0]
    attempts = [one for one in stats if isinstance(one, DefectStats)]
    if attempts:
        return DefectStats.merged(attempts)
    calls = [one for one in stats if isinstance(one, CallStats)]
    counters = tuple(map(sum, zip(*(one._counters for one in calls), strict=True)))

    def distribution(name: str) -> Distribution:
        return sum((one._distribution(name) for one in calls), Distribution())

    return CallStats("", counters, (), distribution)


def _steps(
    spans: Iterable[Span], step: int | None
) -> Iterator[tuple[datetime, datetime, list[Span]]]:
    """Divide rows by the step that they end in; a row longer than its step widens it."""
    for number, each in groupby(spans, lambda span: step and (span.ended - 1) // step):
        group = list(each)
        start = min(span.started for span in group)
        end = max(span.ended for span in group)
        if step is not None and number is not None:
            start, end = min(start, number * step), max(end, (number + 1) * step)
        yield _moment(start), _moment(end), group


def _moment(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _whole(step: Length) -> int:
    seconds = seconds_of("step", step)
    if seconds != int(seconds):
        raise refusal("step", "whole seconds", step, "write 1m, 1h or 1d")
    return int(seconds)
