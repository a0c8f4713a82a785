"""Figures by time: what a history answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final

from langmeter._base.check import refusal
from langmeter._base.frames import frame
from langmeter._base.spans import Length, Moment, moment_of, seconds_of
from langmeter.analysis.metrics import add, reference
from langmeter.analysis.parts import Parts
from langmeter.errors import ConfigError
from langmeter.history.store import Span, Store, total, unix
from langmeter.snapshot import Anomaly, Snapshot

#: Names that each row of the database has.
_SOURCES: Final = ("host", "version")


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
    """The database of a history, read as figures by time.

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
            by: names: provider, model, or the keys of a label, e.g. team, alone or with these; or
                component; for attempts at defects defect_type, severity, provider, model; and host
                or version beside any of them.
            since: begin: a datetime, "2026-10-14", "7d" or a timedelta before now; None for all.
            until: end; None for now.
            step: length of a row, e.g. "1h", whole seconds, counted from midnight UTC (more than a
                day: from 1970-01-01); None for one row in all.

        Raises:
            ConfigError: an argument is not one of these.
            SourceError: the database does not answer, or is not a history.
        """
        seconds = None if step is None else _whole(step)
        [rows] = _figures(self._read(since, until, seconds), [metric], by, seconds)
        return rows

    def excerpt(self, since: Moment, until: Moment) -> Excerpt:
        """Return a span that is read once, for several figures; moments are as of `query`."""
        return Excerpt(lambda step: self._read(since, until, step))

    def between(self, since: Moment, until: Moment) -> Snapshot:
        """Return what was counted in a span, as one snapshot; moments are as of `query`."""
        return total(span.snapshot for span in self._read(since, until, None))

    def snapshot(self) -> Snapshot:
        """Return all that was counted."""
        return self.between(None, None)

    def spans(self, since: Moment, until: Moment) -> Iterator[Span]:
        """Return the rows of a span in order of their end; moments are as of `query`."""
        return self._read(since, until, None)

    def _read(self, since: Moment, until: Moment, step: int | None) -> Iterator[Span]:
        now = datetime.now(UTC)
        begin, end = moment_of("since", since, now), moment_of("until", until, now)
        if begin is not None and end is not None and begin >= end:
            raise refusal("since", "before until", since)
        last = unix(end)
        if end is not None and end.microsecond and last is not None:
            last += 1
        return self._store.read(unix(begin), last, step)


class Excerpt:
    """Span of a history whose rows are read once, or once more where a step needs finer ones.

    Made by `History.excerpt`.
    """

    def __init__(self, read: Callable[[int | None], Iterator[Span]]) -> None:
        #: Returns the rows of the span that suffice for a step, None for any.
        self._read = read
        self._spans, self._step = list(read(None)), 0

    def snapshot(self) -> Snapshot:
        """Return what was counted, as one snapshot."""
        return total(span.snapshot for span in self._spans)

    def query(
        self, metrics: Sequence[str], *, by: str | Iterable[str] = (), step: Length
    ) -> list[Rows]:
        """Return each figure by time and by what it is of.

        Arguments and errors are those of `History.query`.
        """
        seconds = _whole(step)
        is_read = self._step and seconds % self._step == 0
        if not is_read and any(span.ended - span.started > seconds for span in self._spans):
            self._spans, self._step = list(self._read(seconds)), seconds
        return _figures(self._spans, metrics, by, seconds)


def _figures(
    spans: Iterable[Span], metrics: Sequence[str], by: str | Iterable[str], step: int | None
) -> list[Rows]:
    """Return the rows of each metric; raises ConfigError for an unknown metric or name."""
    names = tuple(dict.fromkeys((by,) if isinstance(by, str) else by))
    try:
        read = [reference(metric) for metric in metrics]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    # Metrics of the same rows are read together.
    parts: dict[Any, Parts] = {}
    places = [(where, measured.of_defects, measured.of is Anomaly) for measured, where in read]
    for place, (measured, where) in zip(places, read, strict=True):
        parts.setdefault(place, Parts(names, where, measured, _SOURCES))
    labels: dict[tuple[str, ...], Mapping[str, str]] = {}
    rows: list[list[Row]] = [[] for _ in read]
    for start, end, group in _steps(spans, step):
        snapshots = [(span.snapshot, (span.host, span.version)) for span in group]
        sums = {place: each.sums(snapshots) for place, each in parts.items()}
        for listed, place, (measured, _) in zip(rows, places, read, strict=True):
            for key, of_key in sorted(sums[place].items(), key=lambda item: item[0]):
                tallies = [tally for each in of_key if (tally := measured.tally(each)) is not None]
                figure = measured.figure(reduce(add, tallies)) if tallies else None
                if figure is not None:
                    if key not in labels:
                        labels[key] = MappingProxyType(dict(zip(names, key, strict=True)))
                    listed.append(Row(start, end, labels[key], figure.value, figure.count))
    for each in parts.values():
        each.check()
    return [Rows(listed) for listed in rows]


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
