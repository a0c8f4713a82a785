"""The writer of a history: real meters, real databases, and what goes wrong with them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import langmeter
from langmeter import ConfigError, Meter, MeterConfig, Snapshot
from langmeter.cli import main as cli
from langmeter.history import History, HistoryOptions
from langmeter.history.importing import add_snapshot
from langmeter.history.store import Store, total
from langmeter.history.writer import Writer
from tests.support.histories import difference
from tests.support.models import chat_model
from tests.support.waiting import eventually

NOW = 1_800_000_000


def call(meter: Meter, times: int = 1) -> None:
    model = chat_model()
    for _ in range(times):
        model.invoke("hello", config={"callbacks": [meter]})


def count(url: str) -> int:
    return History(url).snapshot().totals.calls


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


# --- a meter -------------------------------------------------------------------------------------


def test_a_meter_writes_at_its_interval_and_at_the_end(url: str) -> None:
    """Differences are appended while it runs; close() adds the last one."""
    meter = Meter(history=HistoryOptions(url=url, interval=1))
    call(meter, 3)
    assert eventually(lambda: Path(url).exists() or "postgresql" in url)
    assert eventually(lambda: _count(url) == 3)
    call(meter, 2)
    assert meter.close() is None
    assert count(url) == 5
    assert History(url).snapshot().totals.tokens == meter.snapshot().totals.tokens
    rows = list(Store(url).read(None, None, 1))
    assert {row.host for row in rows} == {socket.gethostname()}
    assert {row.process.split("-")[0] for row in rows} == {str(os.getpid())}
    call(meter)  # counted, and written no more
    assert meter.close() is None
    assert count(url) == 5


def _count(url: str) -> int:
    try:
        return count(url)
    except langmeter.SourceError:
        return 0


def test_intervals_begin_at_whole_minutes(tmp_path: Path, monkeypatch: Any) -> None:
    """Of UTC, so that the rows of several processes have the same spans."""
    meter = Meter(history=tmp_path / "metrics.db")
    (observer,) = meter._services.subscriptions
    monkeypatch.setattr("langmeter.monitors.differences.time", lambda: NOW + 13.0)
    assert observer._first() == 47.0
    meter.close()


def test_flush_writes_what_was_counted_up_to_now(url: str) -> None:
    """Without waiting for the interval; twice is once."""
    meter = Meter(history=url)
    assert meter.flush() is None  # before the first call
    call(meter, 2)
    assert meter.flush() is None
    assert count(url) == 2
    assert meter.flush() is None
    assert count(url) == 2
    assert all(row.snapshot.totals.calls for row in Store(url).read(None, None, 1))
    meter.close()


def test_a_meter_without_a_history_has_nothing_to_write() -> None:
    """And loads none of it."""
    meter = Meter()
    assert meter.flush() is None
    assert meter.close() is None


def test_a_restart_is_a_new_process(url: str) -> None:
    """The rows of two meters add up; no figure is negative."""
    for times in (3, 2):
        meter = Meter(history=url)
        call(meter, times)
        assert meter.close() is None
    assert count(url) == 5
    calls: dict[str, int] = {}
    for row in Store(url).read(None, None, 60):
        calls[row.process] = calls.get(row.process, 0) + row.snapshot.totals.calls
    assert sorted(calls.values()) == [2, 3]


def test_a_meter_that_goes_ends_its_thread(tmp_path: Path) -> None:
    """Its last interval is lost without close(), and nothing else stays behind."""
    meter = Meter(history=tmp_path / "metrics.db")
    call(meter)
    assert meter._history is not None
    thread = meter._history._thread
    assert thread is not None
    assert thread.is_alive()
    del meter
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": ""}, "url must be a path or a URL of a database"),
        ({"url": 3}, "url must be a path or a URL of a database"),
        ({"interval": 0}, "interval must be a whole number from 1 to 3,600"),
        ({"interval": 7}, "interval must be a part of 3,600"),
        ({"keep_intervals": "soon"}, "keep_intervals must be a length of time"),
        ({"max_pending": 1}, "max_pending must be a whole number from 2"),
        ({"exit_timeout": -1}, "exit_timeout must be seconds from 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """When they are made, not when they are used."""
    with pytest.raises(ConfigError, match=message):
        HistoryOptions(**{"url": "metrics.db", **options})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "url must be a file"),
        ("sqlite:///:memory:", "url must be a file"),
        ("nosuch://user:secret@host/db", "url must be of a known database"),
        ("post gres://user:secret@host:port/db", "url must be"),
    ],
)
def test_a_wrong_url_is_refused_by_the_meter(url: str, message: str) -> None:
    """A setting is checked at once; no password is in the message."""
    with pytest.raises(ConfigError, match=message) as caught:
        Meter(history=url)
    assert "secret" not in str(caught.value)


def test_a_file_says_where_the_history_is(tmp_path: Path) -> None:
    """As a path beside it, or a table; False switches it off."""
    file = tmp_path / "langmeter.toml"
    file.write_text('history = "metrics.db"\n')
    beside = tmp_path / "metrics.db"
    load = MeterConfig.load
    assert load(file, environ={}).history == HistoryOptions(url=str(beside))
    assert load(file, environ={}, history=False).history is None
    file.write_text('[history]\nurl = "metrics.db"\nkeep_hours = "forever"\ninterval = 30\n')
    options = HistoryOptions(url=str(beside), keep_hours=None, interval=30)
    assert load(file, environ={}).history == options
    shorter = load(file, environ={"LANGMETER_HISTORY_INTERVAL": "10"}).history
    assert shorter == HistoryOptions(url=str(beside), keep_hours=None, interval=10)
    url = "postgresql://host/database"
    assert load(environ={"LANGMETER_HISTORY": url}).history == HistoryOptions(url=url)
    with pytest.raises(ConfigError, match=r"_INTERVAL must be a part of 3,600, got 7"):
        load(file, environ={"LANGMETER_HISTORY_INTERVAL": "7"})
    with pytest.raises(ConfigError, match="url must be a path or a URL of a database"):
        load(environ={"LANGMETER_HISTORY_INTERVAL": "10"})


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Neither by `langmeter config` nor by a repr."""
    url = "postgresql://user:secret@host/database"
    monkeypatch.setenv("LANGMETER_HISTORY", url)
    assert cli.main(["config"]) == 0
    assert "postgresql://user:***@host/database" in capsys.readouterr().out
    config = MeterConfig.load()
    assert "user:***@host" in repr(config)
    assert config.history is not None
    assert config.history.url == url


# --- databases that fail -------------------------------------------------------------------------


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


def test_a_newer_schema_is_not_written(url: str, execute: Callable[[str], list[Any]]) -> None:
    """What was counted is returned; reading names the remedy."""
    Store(url).append([])
    execute("UPDATE langmeter_version SET version_num = '9999'")
    meter = Meter(history=url)
    call(meter)
    rest = meter.close(0.5)
    assert rest is not None
    assert rest.totals.calls == 1
    with pytest.raises(langmeter.SourceError, match=r"schema 9999.*upgrade langmeter"):
        History(url).snapshot()


# --- processes -----------------------------------------------------------------------------------


def run(program: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


_EXIT = """
import sys
from langmeter import Meter
from tests.support.models import chat_model

meter = Meter(history=sys.argv[1])
for _ in range(4):
    chat_model().invoke("hello", config={"callbacks": [meter]})
if len(sys.argv) > 2:
    raise SystemExit(int(sys.argv[2]))
"""


@pytest.mark.process
def test_the_end_of_a_process_writes_the_last_interval(url: str) -> None:
    """Without a call of close(), and whatever the exit code."""
    assert run(_EXIT, url).returncode == 0
    assert run(_EXIT, url, "3").returncode == 3
    assert count(url) == 8


_ENDS = """
import os, signal, sys
from tests.support.models import chat_model

for _ in range(3):
    chat_model().invoke("hello")
if sys.argv[1] == "signal":
    os.kill(os.getpid(), signal.SIGTERM)
os._exit(0)
"""


@pytest.mark.process
@pytest.mark.parametrize("how", ["exit", "signal"])
def test_a_program_under_langmeter_run_has_a_history(how: str, tmp_path: Path) -> None:
    """By a variable, without a change; also where it ends without a word."""
    script, file = tmp_path / "script.py", tmp_path / "metrics.db"
    script.write_text(_ENDS)
    environ = {**os.environ, "LANGMETER_HISTORY": str(file), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "langmeter", "run", str(script), how]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == (0 if how == "exit" else -signal.SIGTERM), done.stderr
    assert count(str(file)) == 3


_HANGS = """
import sys
from langmeter import Meter
from langmeter.history import HistoryOptions
from tests.support.models import chat_model

meter = Meter(history=HistoryOptions(url=sys.argv[1], exit_timeout=0.5))
chat_model().invoke("hello", config={"callbacks": [meter]})
"""


@pytest.mark.process
def test_the_end_of_a_process_never_hangs() -> None:
    """Not even with a server that accepts and never answers; the loss is logged."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://user@127.0.0.1:{server.getsockname()[1]}/db"
        done = run(_HANGS, url)
    assert done.returncode == 0, done.stderr
    assert "1 call not written when the process ended" in done.stderr


_KILLED = """
import sys
from langmeter import Meter
from langmeter.history import HistoryOptions
from tests.support.models import chat_model

meter = Meter(history=HistoryOptions(url=sys.argv[1], interval=1))
model, calls = chat_model(), 0
while True:
    for _ in range(5):
        model.invoke("hello", config={"callbacks": [meter]})
        calls += 1
    if calls % 2 == 0:
        assert meter.flush() is None
        print(calls, flush=True)
"""


@pytest.mark.process
@pytest.mark.slow
def test_a_killed_process_leaves_what_it_had_written(url: str) -> None:
    """Whenever it is killed, the database is whole, and lacks one interval at most."""
    expected_least = expected_most = 0
    for lines in (1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            flushed = 0
            for _ in range(lines):
                flushed = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
        flushed = int(rest[-1]) if rest else flushed
        expected_least += flushed
        expected_most += flushed + 20
        assert expected_least <= count(url) <= expected_most
    if "postgresql" not in url:
        connection = sqlite3.connect(url)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    while Store(url).roll_up(NOW * 2, (None, None, None)):
        pass
    assert expected_least <= count(url) <= expected_most


def _metered(_: int) -> int:
    call(_meters[0], 2)
    return os.getpid()


#: The meter that forked processes share.
_meters: list[Meter] = []


@pytest.mark.process
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_of_forked_processes_writes_one_database(url: str) -> None:
    """Each worker is a process of its own in the rows, and none counts for its parent."""
    _meters[:] = [meter := Meter(history=url)]
    call(meter, 5)
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        pids = set(pool.map(_metered, range(12), chunksize=1))
        pool.close()
        pool.join()
    assert meter.close() is None
    assert count(url) == 5 + 24
    rows = list(Store(url).read(None, None, 60))
    assert {int(row.process.split("-")[0]) for row in rows} == pids | {os.getpid()}


def test_calls_in_threads_are_all_written(url: str) -> None:
    """Differences are taken while calls run; their sum is exact."""
    meter = Meter(history=HistoryOptions(url=url, interval=1))
    threads = [threading.Thread(target=call, args=(meter, 100)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            assert meter.flush() is None
            thread.join(0.01)
    assert meter.close() is None
    assert count(url) == 400


@pytest.mark.process
def test_the_history_is_loaded_by_those_who_ask_for_it() -> None:
    """`import langmeter` loads none of it, and a meter without a history its options alone."""
    program = "import sys, langmeter; print(*sys.modules); langmeter.Meter(); print(*sys.modules)"
    before, after = (set(line.split()) for line in run(program).stdout.splitlines())
    assert not {name for name in before if name.startswith("langmeter.history")}
    loaded = {name for name in after if name.startswith(("langmeter.history", "sqlalchemy"))}
    assert loaded == {"langmeter.history", "langmeter.history.options"}
