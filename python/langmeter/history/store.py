"""Operations on the database of a history: append, roll up, delete, read.

Each is one transaction. An interval is appended once, however often it is tried; it becomes part of
its hour and its day once, because the same statement marks it and reads it.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sql

from langmeter.errors import SourceError
from langmeter.history.schema import DAY, HEAD, HOUR, INTERVAL, SIZES, Database, spans
from langmeter.snapshot import Snapshot

#: Of zlib: 9 takes twice as long and saves 1 %.
_COMPRESSION: Final = 6
#: How long rows are kept by level, seconds; None for ever.
Keep = tuple[float | None, float | None, float | None]
#: Rows that are decoded ahead.
_AHEAD: Final = 64
_KEY: Final = tuple(column.name for column in spans.primary_key)
#: A literal, because a partial index is not used for a parameter.
_UNROLLED: Final = spans.c.rolled == sql.literal_column("0")


@dataclass(frozen=True, slots=True)
class Span:
    """A row: what one process counted in one interval, or many in an hour or a day."""

    level: int
    started: int
    ended: int
    host: str
    version: str
    snapshot: Snapshot
    process: str = ""
    number: int = 0


def encoded(snapshot: Snapshot) -> bytes:
    """Return the bytes of a snapshot as rows hold them."""
    return zlib.compress(snapshot.to_bytes(), _COMPRESSION)


def decoded(data: bytes) -> Snapshot:
    """Inverse of `encoded`; raises SourceError for damaged bytes."""
    try:
        return Snapshot.from_bytes(zlib.decompress(data))
    except (ValueError, zlib.error) as error:
        raise SourceError(f"a row of the history cannot be read: {error}") from error


def counted(snapshot: Snapshot) -> Snapshot | None:
    """Return what a snapshot counted, as rows hold it; None where that is nothing."""
    native = snapshot._native.counted()
    return Snapshot(native) if native.series() or native.dropped else None


def interval_of(snapshot: Snapshot, seconds: int, latest: float = math.inf) -> tuple[int, int]:
    """Return begin and end of the row of a snapshot, Unix seconds, whole intervals of UTC.

    It ends at `latest` at the latest, Unix seconds.

    They are rounded outward, but for a tenth of an interval: a timer that is late by milliseconds
    does not make a minute two.
    """
    begin, end = (n / 1e9 for n in (snapshot._native.started_at, snapshot._native.taken_at))
    end = max(min(end, latest), begin)
    tolerance = min(seconds / 10, max(end - begin, 0) / 2)
    started = math.floor((begin + tolerance) / seconds) * seconds
    ended = math.ceil((end - tolerance) / seconds) * seconds
    return started, max(ended, started + seconds)


class Store:
    """The rows of one history."""

    def __init__(self, url: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self.database = Database(url, timeout)
        self._ready = False

    def append(self, rows: Iterable[Span]) -> int:
        """Add rows of intervals, those that are there already excepted; returns how many.

        Makes or migrates the tables first. Raises SourceError for a newer schema, and what the
        database raises.
        """
        added = 0
        try:
            with self.database.writing() as connection:
                if not self._ready:
                    self.database.migrate(connection)
                for row in rows:
                    key = _key(row)
                    if connection.scalar(sql.select(spans.c.ended).where(key)) is None:
                        connection.execute(spans.insert().values(**_values(row), rolled=0))
                        added += 1
            self._ready = True
        except Exception:
            self._ready = False  # the file may be another one by the next time
            raise
        return added

    def roll_up(self, now: float, keep: Keep) -> bool:
        """Add the intervals of the oldest finished hour to their hour and day; delete old rows.

        Does nothing while another process does it. Returns whether there was such an hour.
        """
        with self.database.writing() as connection:
            if not self.database.lock(connection, wait=False):
                return False
            finished = _floor(now, SIZES[HOUR])
            unrolled = sql.and_(_UNROLLED, spans.c.ended <= finished)
            first = connection.scalar(sql.select(sql.func.min(spans.c.ended)).where(unrolled))
            if first is not None:
                end = int(_ceil(first, SIZES[HOUR]))
                hour = sql.and_(unrolled, spans.c.ended > end - SIZES[HOUR], spans.c.ended <= end)
                self._roll_up_hour(connection, hour, end)
            _delete(connection, now, keep)
            return first is not None

    def _check(self) -> None:
        """Bring the tables of an older langmeter forward; SourceError where there are none."""
        with self.database.reading() as connection:
            revision = self.database.revision(connection)
        if revision is None:
            raise SourceError(f"{self.database.name} is not a history")
        if revision != HEAD:
            with self.database.writing() as connection:
                self.database.migrate(connection)
        self._ready = True

    def _roll_up_hour(
        self, connection: sql.Connection, hour: sql.ColumnElement[bool], end: int
    ) -> None:
        # Where the other rows of its time have been deleted, a late row goes too: what is kept
        # has no gaps, so that one moment says where rows of a level begin. A late row from before
        # everything else is kept as any other.
        late = end <= _kept_from(connection, INTERVAL)
        day = _ceil(end, SIZES[DAY])
        levels = (DAY,) if day <= _kept_from(connection, HOUR) else (HOUR, DAY)
        change = spans.delete().where(hour) if late else spans.update().where(hour).values(rolled=1)
        # One statement marks and reads: a row that is appended meanwhile is not marked.
        columns = (spans.c.host, spans.c.version, spans.c.started, spans.c.data)
        rows = connection.execute(change.returning(*columns)).all()
        for source in sorted({(row.host, row.version) for row in rows}):
            parts = [row for row in rows if (row.host, row.version) == source]
            started = min(row.started for row in parts)
            snapshot = total(decoded(row.data) for row in parts)
            for level in levels:
                ended = int(_ceil(end, SIZES[level]))
                _merge(connection, Span(level, started, ended, *source, snapshot))

    def read(self, since: int | None, until: int | None, step: int | None) -> Iterator[Span]:
        """Return the rows that make up a span, each figure in one of them, in order of their end.

        The span is widened to whole rows of the finest level that is kept there. Rows of hours and
        days are read where they suffice for `step` seconds; None for any length.

        Raises SourceError where there is no history, or its schema is newer.
        """
        if self.database.is_missing:
            raise SourceError(f"there is no history at {self.database.name}")
        try:
            if not self._ready:
                self._check()
            with self.database.reading() as connection:
                query = sql.select(spans).where(_chosen(connection, since, until, step))
                rows = connection.execute(query.order_by(spans.c.ended, spans.c.level)).all()
            return _spans(rows)
        except sql.exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise SourceError(f"{self.database.name} cannot be read: {cause}") from error


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of snapshots, of neighbours first: each addition copies its result."""
    parts = list(snapshots)
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [*(a + b for a, b in pairs), *(parts[-1:] if len(parts) % 2 else ())]
    return parts[0] if parts else Snapshot()


def _key(row: Span) -> sql.ColumnElement[bool]:
    return sql.and_(*(spans.c[name] == getattr(row, name) for name in _KEY))


def _values(row: Span) -> dict[str, object]:
    names = (*_KEY, "started")
    return {**{name: getattr(row, name) for name in names}, "data": encoded(row.snapshot)}


def _span(row: sql.Row[Any]) -> Span:
    return Span(
        row.level,
        row.started,
        row.ended,
        row.host,
        row.version,
        decoded(row.data),
        row.process,
        row.number,
    )


def _spans(rows: Sequence[sql.Row[Any]]) -> Iterator[Span]:
    """Decode rows as they are needed; many of them ahead, in threads, for that needs no GIL."""
    if len(rows) < _AHEAD:
        yield from map(_span, rows)
        return
    with ThreadPoolExecutor(2, thread_name_prefix="langmeter-history") as threads:
        for place in range(0, len(rows), _AHEAD):
            yield from threads.map(_span, rows[place : place + _AHEAD])


def _merge(connection: sql.Connection, row: Span) -> None:
    """Add to the row of an hour or a day; make it where it is not there."""
    key = _key(row)
    known = connection.execute(sql.select(spans.c.started, spans.c.data).where(key)).one_or_none()
    if known is None:
        started = min(row.started, row.ended - SIZES[row.level])
        values = {**_values(row), "started": started}
        connection.execute(spans.insert().values(**values, rolled=1))
        return
    data = encoded(decoded(known.data) + row.snapshot)
    started = min(row.started, known.started)
    connection.execute(spans.update().where(key).values(started=started, data=data))


def _delete(connection: sql.Connection, now: float, keep: Keep) -> None:
    """Delete rows that are too old, whole rows of the level above at a time."""
    for level, above in ((INTERVAL, SIZES[HOUR]), (HOUR, SIZES[DAY]), (DAY, SIZES[DAY])):
        seconds = keep[level]
        if seconds is not None:
            old = spans.c.ended <= _floor(now - seconds, above)
            connection.execute(
                spans.delete().where(spans.c.level == level, spans.c.rolled == 1, old)
            )


def _chosen(
    connection: sql.Connection, since: int | None, until: int | None, step: int | None
) -> sql.ColumnElement[bool]:
    """Return the condition of the rows that make up a span, each figure in one of them."""
    hours = _kept_from(connection, INTERVAL)
    days = _kept_from(connection, HOUR)
    # Days alone are there before `days`, and no intervals before `hours`.
    begin = -math.inf if since is None else float(since)
    end = math.inf if until is None else float(until)
    begin = _floor(begin, SIZES[DAY] if begin < days else SIZES[HOUR] if begin < hours else 1)
    end = _ceil(end, SIZES[DAY] if end <= days else SIZES[HOUR] if end <= hours else 1)

    def whole(level: int, low: float, high: float, kept: float) -> tuple[float, float]:
        """Return the part of a span that rows of a level make up."""
        if step is None or step % SIZES[level] == 0:
            low, high = _ceil(low, SIZES[level]), _floor(high, SIZES[level])
        else:
            high = min(high, kept)
        return (low, high) if low < high else (low, low)

    first, last = whole(DAY, begin, end, days)
    chosen = [_between(DAY, first, last)]
    for low, high in ((begin, first), (last, end)) if first < last else ((begin, end),):
        from_hour, to_hour = whole(HOUR, low, high, hours)
        chosen.append(_between(HOUR, from_hour, to_hour))
        pieces = ((low, from_hour), (to_hour, high)) if from_hour < to_hour else ((low, high),)
        chosen += [_between(INTERVAL, *piece) for piece in pieces]
    # What is in no hour and no day yet, wherever these are read.
    chosen.append(sql.and_(_UNROLLED, _between(INTERVAL, begin, end)))
    if math.isfinite(end):  # an interval that the end of the span cuts
        cut = [spans.c.level == INTERVAL, spans.c.ended > int(end), spans.c.started < int(end)]
        chosen.append(sql.and_(*cut, *(() if end > hours else (_UNROLLED,))))
    return sql.or_(*chosen)


def _kept_from(connection: sql.Connection, level: int) -> float:
    """Return the moment from which on rows of a level are whole; minus infinity for always.

    Before it rows of the level have been deleted, and those of a level above it remain: it is the
    end of the last of these that lies before the first row of the levels below it.
    """
    moment, first = -math.inf, math.inf
    for below, above in ((INTERVAL, HOUR), (HOUR, DAY))[level:]:
        rolled = sql.and_(spans.c.level == below, spans.c.rolled == 1)
        begin = connection.scalar(sql.select(sql.func.min(spans.c.ended)).where(rolled))
        first = first if begin is None else min(first, begin)
        alone = _between(above, -math.inf, _floor(first - 1, SIZES[above]))
        last = connection.scalar(sql.select(sql.func.max(spans.c.ended)).where(alone))
        moment = moment if last is None else max(moment, last)
    return moment


def _between(level: int, low: float, high: float) -> sql.ColumnElement[bool]:
    if low >= high:
        return sql.false()
    limits = [spans.c.ended > int(low)] if math.isfinite(low) else []
    limits += [spans.c.ended <= int(high)] if math.isfinite(high) else []
    return sql.and_(spans.c.level == level, *limits)


def _floor(value: float, size: int) -> float:
    return value if math.isinf(value) else math.floor(value / size) * size


def _ceil(value: float, size: int) -> float:
    return value if math.isinf(value) else math.ceil(value / size) * size


def unix(moment: datetime | None) -> int | None:
    """Return a moment in whole Unix seconds; None for None."""
    return None if moment is None else math.floor(moment.timestamp())
