"""What folds, reads, looks after or recovers the files of a directory may be killed at any step.

A step is a call of a C function: each of the system, and each of ours.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import langmeter
from langmeter import Snapshot, _core
from langmeter.directory import DirectoryOptions, fold
from langmeter.directory.files import ARENA, UNFINISHED, arenas, new_arena, read_retired
from langmeter.directory.keeper import Keeper
from langmeter.directory.notes import notes, write_notes
from langmeter.directory.unwritten import Row, identity, save, unwritten
from langmeter.snapshot.state import State
from tests.support.arenas import call
from tests.support.steps import is_killed_at, steps_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's"),
    pytest.mark.alone,
    pytest.mark.process,
    pytest.mark.slow,
]

#: Calls of each process: three that have ended, the last of which wrote a history, and a living.
CALLS = (1, 2, 3)
LIVING = 4
ALL = sum(CALLS) + LIVING
HISTORY = identity("sqlite:////metrics.db")


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of processes that have ended, and of one that a lock makes a living one."""
    directory = tmp_path_factory.mktemp("dead")
    for calls in (*CALLS, LIVING):
        recorder = _core.Recorder()
        arena = new_arena(directory) if calls < LIVING else directory / f"1-living{ARENA}"
        recorder.attach(arena, 0o600)
        for number in range(calls):
            call(recorder)
            if number == 0 and calls == CALLS[-1]:
                first = Snapshot(recorder.snapshot())
                row = Row(HISTORY, "host", "1", "process", 1, 60, 60, 120, first, first)
                save(arena, row, 0o600)
        if calls == CALLS[0]:
            anomaly = (2, 3, "openai", "gpt-4o", "latency", 1, 2, 10, 10)
            write_notes(arena, notes([anomaly], ["team"], State()), 0o600)
        del recorder
    return directory


@contextmanager
def copied(dead: Path, to: Path) -> Iterator[Path]:
    """Give a directory with these files, of which one is that of a living process."""
    for path in dead.iterdir():
        os.link(path, to / path.name)
    # A minute makes them old, which a busy machine takes for one test: the young one is of later.
    for name, age in (("2-young", -3600), ("3-old", 100)):
        unfinished = to / f"{name}{UNFINISHED}"
        unfinished.write_bytes(bytes(100))
        os.utime(unfinished, (time.time() - age,) * 2)
    with open(to / f"1-living{ARENA}", "rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        yield to
    shutil.rmtree(to)


def is_whole(directory: Path) -> None:
    """Check that a reader fails at nothing, and sees each call once."""
    snapshot = langmeter.read(directory)
    assert (snapshot.totals.calls, snapshot.totals.latency.count) == (ALL, ALL)
    assert (len(snapshot.anomalies), snapshot._native.labels) == (1, ["team"])


def is_folded(directory: Path) -> None:
    """Check that a folding ends what another began."""
    folding = fold(directory)
    assert (folding.busy, folding.living, folding.refused) == (False, 1, ())
    is_whole(directory)
    assert [path.name for path in arenas(directory)] == [f"1-living{ARENA}"]
    retired = read_retired(directory)
    assert (retired.processes, retired.snapshot.totals.calls) == (len(CALLS), sum(CALLS))
    (left,) = unwritten(directory)
    rest = {path.name for path in directory.iterdir()}
    assert rest == {"retired", "lock", f"1-living{ARENA}", f"2-young{UNFINISHED}", left.name}


def listed(directory: Path) -> dict[str, tuple[int, int]]:
    """Time and size of each file."""
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.iterdir()
    }


def test_a_folding_killed_at_any_step_is_ended_by_the_next(dead: Path, tmp_path: Path) -> None:
    """Readers see each call once at every moment."""
    directory = tmp_path / "d"
    directory.mkdir()
    with copied(dead, directory):
        steps = steps_of(partial(fold, directory))
        is_folded(directory)
    assert steps > 150
    for step in range(steps - 5):  # the last ones are those of the watching itself
        directory.mkdir()
        with copied(dead, directory):
            assert is_killed_at(step, partial(fold, directory)), step
            is_whole(directory)
            is_folded(directory)


def test_a_folding_that_ends_another_may_be_killed_too(dead: Path, tmp_path: Path) -> None:
    """Three times in a row, at steps of a chance."""
    chance = random.Random(3)
    directory = tmp_path / "d"
    directory.mkdir()
    with copied(dead, directory):
        steps = steps_of(partial(fold, directory))
    for _ in range(50):
        directory.mkdir()
        with copied(dead, directory):
            for _ in range(3):
                is_killed_at(chance.randrange(steps), partial(fold, directory))
                is_whole(directory)
            is_folded(directory)


def test_a_reader_killed_at_any_step_changes_nothing(dead: Path, tmp_path: Path) -> None:
    """No file, no lock."""
    directory = tmp_path / "d"
    directory.mkdir()
    with copied(dead, directory):
        fold(directory)
        before = listed(directory)
        work = partial(langmeter.read, directory)
        for step in range(steps_of(work) - 5):
            assert is_killed_at(step, work), step
            assert listed(directory) == before
        is_folded(directory)


def test_what_looks_after_a_directory_may_be_killed_at_any_step(dead: Path, tmp_path: Path) -> None:
    """It writes notes, lets its file grow, and folds; what it has counted stays."""
    directory = tmp_path / "d"
    options = DirectoryOptions(path=directory)

    class Notes:
        def take(self) -> Snapshot:
            return notes([], ["tier"], State())

    def work() -> None:
        recorder, taken = _core.Recorder(), Notes()
        recorder.attach(new_arena(directory), 0o600)
        call(recorder)
        Keeper(recorder, options, taken.take)._observe(recorder)

    directory.mkdir()
    with copied(dead, directory):
        steps = steps_of(work)
    seen = set()
    for step in range(0, steps - 5, 3):
        directory.mkdir()
        with copied(dead, directory):
            assert is_killed_at(step, work), step
            calls = langmeter.read(directory).totals.calls
            seen.add(calls)
            folding = fold(directory)
            assert (folding.living, folding.refused) == (1, ())
            assert langmeter.read(directory).totals.calls == calls
            assert len(arenas(directory)) == 1
    assert seen == {ALL, ALL + 1}


def test_a_recovery_killed_at_any_step_writes_each_row_once(dead: Path, tmp_path: Path) -> None:
    """A history gets what a killed process had not written, and no call twice."""
    pytest.importorskip("sqlalchemy")
    from langmeter.history import History
    from langmeter.history.recovery import identity_of, recover_all
    from langmeter.history.store import Store

    url, empty = tmp_path / "metrics.db", tmp_path / "empty.db"
    Store(empty).append([])
    left = tmp_path / "left"
    left.mkdir()
    first = Snapshot(_core.read_files([arenas(dead)[-1]], dead=True)[0])
    row = Row(identity_of(url), "host", "1", "process", 1, 60, 60, 120, first, first, 130.0)
    save(left / "1-a.arena", row, 0o600, ".unwritten")
    calls = 2 * first.totals.calls

    def prepared() -> Path:
        directory = tmp_path / "d"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(left, directory)
        shutil.copy(empty, url)
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{url}{suffix}").unlink(missing_ok=True)
        return directory

    work: Callable[[], object] = partial(recover_all, prepared(), url)
    steps = steps_of(work)
    assert History(url).snapshot().totals.calls == calls
    kills = 0
    for step in range(0, steps, steps // 60):
        directory = prepared()
        kills += is_killed_at(step, work)  # the driver of the database does not always do the same
        recover_all(directory, url)
        assert History(url).snapshot().totals.calls == calls
        assert unwritten(directory) == []
    assert kills > 50
