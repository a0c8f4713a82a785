"""Processes that end while they write a history."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from langmeter import Meter
from langmeter.history import HistoryOptions
from langmeter.history.store import Store
from tests.support.models import call
from tests.support.written import NOW, count, run

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
