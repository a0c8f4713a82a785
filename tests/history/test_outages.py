"""Databases that fail while a history is written: locked, full, vanished, ended connections."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from langmeter import Meter, Snapshot
from langmeter.history import HistoryOptions
from langmeter.history.importing import add_snapshot
from langmeter.history.store import Store, total
from langmeter.history.writer import Writer
from tests.support.histories import difference
from tests.support.models import call
from tests.support.written import NOW, count, run


class Differences:
    """Gives prepared differences, one at each call."""

    def __init__(self, snapshots: Iterable[Snapshot] = ()) -> None:
        self.snapshots = list(snapshots)

    def take(self) -> Snapshot | None:
        return self.snapshots.pop(0) if self.snapshots else Snapshot()

    @property
    def taken(self) -> Snapshot:
        return Snapshot()


def minutes(number: int, calls: int = 1) -> list[Snapshot]:
    starts = [NOW + 60 * n for n in range(number)]
    return [difference(start, start + 60, [0.1] * calls) for start in starts]


def test_a_locked_database_is_written_later(tmp_path: Path) -> None:
    """The pipeline goes on; flush and close return what waits, and later all of it is there."""
    file = tmp_path / "metrics.db"
    meter = Meter(history=file)
    call(meter)
    assert meter.flush() is None
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    call(meter, 2)
    rest = meter.flush(0.1)
    assert rest is not None
    assert rest.totals.calls == 2
    call(meter, 3)
    rest = meter.flush(0.1)
    assert rest is not None
    lock.execute("ROLLBACK")
    lock.close()
    assert meter.flush(60) is None
    assert count(str(file)) == 6
    meter.close()


def test_what_close_returns_is_not_written_later(tmp_path: Path) -> None:
    """So that its user can add it, and it counts once."""
    file = tmp_path / "metrics.db"
    meter = Meter(history=file)
    call(meter)
    assert meter.flush() is None
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    assert meter._history is not None
    thread = meter._history._thread
    call(meter, 2)
    rest = meter.close(0.05)
    assert rest is not None
    assert meter._services.subscriptions == []
    lock.execute("ROLLBACK")
    lock.close()
    assert thread is not None
    thread.join(60)
    written = count(str(file))
    assert written in (1, 3)  # a writing that had begun when it was closed may still succeed
    if written == 1:
        assert add_snapshot(file, rest)
        assert count(str(file)) == 3
    assert meter.close() is None


def _limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


_FULL = """
import resource, sys, signal
from langmeter import Meter
from langmeter.history import History, HistoryOptions
from tests.support.models import chat_model

meter, model = Meter(history=sys.argv[1]), chat_model()
model.invoke("hello", config={"callbacks": [meter]})
rest = meter.flush(1)
assert rest is not None and rest.totals.calls == 1, rest
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
model.invoke("hello", config={"callbacks": [meter]})
assert meter.flush(60) is None
print(History(sys.argv[1]).snapshot().totals.calls)
"""


@pytest.mark.process
def test_a_full_disk_is_written_later(tmp_path: Path) -> None:
    """A file that cannot grow is what a full disk is to SQLite."""
    done = run(_FULL, str(tmp_path / "metrics.db"), preexec_fn=_limited(8192))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"
    assert "figures are kept and written later" in done.stderr


def test_a_read_only_database_keeps_what_waits(tmp_path: Path) -> None:
    """It is returned, and is what was counted."""
    file = tmp_path / "metrics.db"
    Store(file).append([])
    meter = Meter(history=f"sqlite:///file:{file}?mode=ro&uri=true")
    call(meter, 2)
    rest = meter.close(0.5)
    assert rest is not None
    assert rest.totals.calls == 2
    assert rest.totals.latency == meter.snapshot().totals.latency
    assert count(str(file)) == 0


@pytest.mark.parametrize("tables", ["span, alert, version", "span, version", "span"])
def test_a_database_that_vanishes_is_made_again(
    url: str, execute: Callable[[str], list[Any]], tables: str
) -> None:
    """What was in it is gone, whole or in part; what comes later is written."""
    meter = Meter(history=url)
    call(meter, 3)
    assert meter.flush() is None
    for table in tables.split(", "):
        execute(f"DROP TABLE langmeter_{table}")
    call(meter, 2)
    assert meter.flush(60) is None
    assert count(url) == 2
    meter.close()


def test_a_file_that_vanishes_is_made_again(tmp_path: Path) -> None:
    """The deleted file of a database is not written any longer."""
    file = tmp_path / "metrics.db"
    meter = Meter(history=file)
    call(meter, 3)
    assert meter.flush() is None
    for each in tmp_path.glob("metrics.db*"):
        each.unlink()
    call(meter, 2)
    assert meter.flush(60) is None
    assert count(str(file)) == 2
    meter.close()


def test_connections_that_the_server_ends_cost_nothing(
    url: str, execute: Callable[[str], list[Any]]
) -> None:
    """No connection is held between two writings."""
    if "postgresql" not in url:
        pytest.skip("a server")
    meter = Meter(history=url)
    for expected in (1, 2):
        call(meter)
        assert meter.flush() is None
        assert count(url) == expected
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        assert execute(f"SELECT count(*) FROM pg_stat_activity WHERE {others}") == [(0,)]
    meter.close()


def test_what_waits_is_merged_and_not_lost(tmp_path: Path) -> None:
    """Beyond the bound neighbours are one row: coarser times, every figure."""
    file = tmp_path / "metrics.db"
    Store(file).append([])
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    source = Differences(minutes(50, calls=2))
    writer = Writer(HistoryOptions(url=file, max_pending=4))
    writer._store = Store(file, timeout=0.01)
    writer.observe(source)
    for _ in range(50):
        writer._collect()
        writer._write_all()
        assert len(writer._pending) <= 4
    waiting = [pending.snapshot for pending in writer._pending]
    assert total(waiting).totals.calls == 100
    lock.execute("ROLLBACK")
    lock.close()
    assert writer.close(60) is None
    rows = list(Store(file).read(None, None, 60))
    assert sum(row.snapshot.totals.calls for row in rows) == 100
    assert (rows[0].started, rows[-1].ended) == (NOW, NOW + 3000)


def test_a_row_whose_answer_was_lost_is_not_merged(tmp_path: Path) -> None:
    """A commit that failed may have been one: the same row is tried again, under its number."""
    file = tmp_path / "metrics.db"
    writer = Writer(HistoryOptions(url=file, max_pending=2))
    append = writer._store.append

    def lost(rows: Any) -> int:
        append(rows)
        raise ConnectionError("the answer was lost")

    writer._store.append = lost  # type: ignore[method-assign]
    source = Differences(minutes(9))
    writer.observe(source)
    for _ in range(9):
        writer._collect()
        writer._write_all()
    writer._store.append = append  # type: ignore[method-assign]
    assert writer.close(60) is None
    assert count(str(file)) == 9
