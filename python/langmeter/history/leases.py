"""Leases and states of alerts: of the processes that write one history, one judges each rule."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sql

from langmeter.history.schema import INTERVAL, alerts, spans
from langmeter.history.store import Store, decoded
from langmeter.history.writer import at_database
from langmeter.snapshot import Snapshot

#: Seconds after which a rule may be taken from a process that says nothing more.
LEASE: Final = 30
#: Seconds by which a row may be late.
_LATE: Final = 600
#: Seconds that a statement may take.
_TIMEOUT: Final = 2.0


class Leases:
    """Leases of the rules of one process.

    Args:
        url: path or URL of the history.
        process: gives the name of the process in the rows of the history, whose figures are known.
    """

    def __init__(self, url: str | os.PathLike[str], process: Any) -> None:
        self._store = Store(url, timeout=_TIMEOUT)
        self._process = process
        self._holder = ""
        self._pid = 0
        self._seen: set[tuple[str, int]] | None = None
        self._saved: dict[str, str] = {}

    def hold(self, titles: Iterable[str], now: float) -> dict[str, list[dict[str, Any]]]:
        """Take or renew the leases of rules, by their titles.

        Returns the states of the alerts of those that this process holds.
        """
        if self._pid != os.getpid():  # a forked child holds nothing
            self._pid, self._holder = os.getpid(), f"{os.getpid()}-{secrets.token_hex(4)}"
            self._seen, self._saved = None, {}
        until, wanted = int(now) + LEASE, sorted(titles)
        free = sql.or_(alerts.c.holder == self._holder, alerts.c.until < int(now))
        named = alerts.c.rule.in_(wanted)
        with at_database(), self._store.database.writing() as connection:
            self._store.database.migrate(connection)
            change = sql.update(alerts).where(named, free).values(holder=self._holder, until=until)
            rows = connection.execute(change.returning(alerts.c.rule, alerts.c.state)).all()
            held = {rule: json.loads(state) for rule, state in rows}
            if len(held) < len(wanted):
                there = set(connection.scalars(sql.select(alerts.c.rule).where(named)))
                for rule in [rule for rule in wanted if rule not in there]:
                    values = {"rule": rule, "holder": self._holder, "until": until, "state": "[]"}
                    connection.execute(alerts.insert().values(**values))
                    held[rule] = []
        return held

    def save(self, states: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write the states that have changed of rules that this process holds."""
        texts = {rule: json.dumps(state) for rule, state in states.items()}
        changed = {rule: text for rule, text in texts.items() if self._saved.get(rule) != text}
        if not changed:
            return
        with at_database(), self._store.database.writing() as connection:
            for rule, text in changed.items():
                mine = sql.and_(alerts.c.rule == rule, alerts.c.holder == self._holder)
                connection.execute(sql.update(alerts).where(mine).values(state=text))
        self._saved |= changed

    def release(self) -> None:
        """Give back what this process holds."""
        if not self._holder or self._pid != os.getpid():
            return
        with at_database(), self._store.database.writing() as connection:
            mine = alerts.c.holder == self._holder
            connection.execute(sql.update(alerts).where(mine).values(until=0))

    def news(self, since: float, now: float) -> Iterator[tuple[float, float, Snapshot]]:
        """Return begin, end and figures of the intervals of other processes not returned before.

        Args:
            since: Unix seconds; what ended before is too old.
            now: Unix seconds; after the first time, what is late by more than 10 minutes is left.
        """
        if self._seen is not None:
            since = max(since, now - _LATE)
        place = (spans.c.process, spans.c.number)
        others = sql.and_(
            spans.c.level == INTERVAL,
            spans.c.ended > int(since),
            spans.c.process != self._process(),
        )
        with at_database(), self._store.database.reading() as connection:
            keys = {
                (row.process, row.number)
                for row in connection.execute(sql.select(*place).where(others))
            }
            new = keys - (self._seen or set())
            rows = []
            for process in sorted({process for process, _ in new}):
                first = min(number for name, number in new if name == process)
                chosen = sql.and_(others, place[0] == process, place[1] >= first)
                columns = (*place, spans.c.started, spans.c.ended, spans.c.data)
                several = connection.execute(sql.select(*columns).where(chosen)).all()
                rows += [row for row in several if (row.process, row.number) in new]
        self._seen = keys
        rows.sort(key=lambda row: row.ended)
        for row in rows:
            yield row.started, row.ended, decoded(row.data)
