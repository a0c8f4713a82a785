"""What a process that is killed had not written to its history is written once, by another."""

from __future__ import annotations

import os
import sys
import time

import pytest

from tests.support.models import call

pytest.importorskip("sqlalchemy")


from collections.abc import Callable
from pathlib import Path

from langmeter import Meter
from langmeter.cli.main import main
from langmeter.directory import fold
from langmeter.directory.files import arenas
from langmeter.directory.unwritten import UNWRITTEN, WRITTEN, unwritten
from langmeter.errors import SourceError
from langmeter.history import History, HistoryOptions
from langmeter.history.recovery import recover_all
from langmeter.history.store import Store
from tests.support.arenas import forked, killed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's")


def dead_worker(directory: Path, work: Callable[[], Meter]) -> None:
    """Run a worker that is killed once it has done its work."""

    def run() -> None:
        meter = work()
        while not list(directory.glob(f"*{WRITTEN}")):  # its thread notes that it begins
            time.sleep(0.01)
        (directory / "ready").touch()
        time.sleep(60)
        del meter

    child = forked(run)
    while not (directory / "ready").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child has failed"
        time.sleep(0.01)
    (directory / "ready").unlink()
    killed(child)


def written(url: Path) -> int:
    return History(url).snapshot().totals.calls


@pytest.mark.parametrize("flushed", [0, 3])
def test_a_killed_worker_is_in_the_history_whole_and_once(tmp_path: Path, flushed: int) -> None:
    """With what it had written itself, and what not; however often that is tried."""
    directory, url = tmp_path / "d", tmp_path / "metrics.db"
    directory.mkdir()

    def work() -> Meter:
        meter = Meter(directory=directory, history=url)
        if flushed:
            call(meter, flushed)
            assert meter.flush() is None
        call(meter, 4)
        return meter

    dead_worker(directory, work)
    assert (written(url) if url.exists() else 0) == flushed
    assert fold(directory).folded == 1
    (left,) = unwritten(directory)
    assert [path.suffix for path in directory.iterdir() if path.suffix in (WRITTEN, ".state")] == []
    copy = left.read_bytes()
    for _ in range(2):
        assert recover_all(directory, url) == 1
        assert written(url) == flushed + 4
        assert unwritten(directory) == []
        left.write_bytes(copy)  # as a crash between the two leaves it
    rows = list(Store(url).read(None, None, 60))
    assert len({row.process for row in rows}) == 1
    assert all(row.ended - row.started <= 120 for row in rows)


def test_a_row_whose_writing_was_cut_off_is_written_once(tmp_path: Path) -> None:
    """A process may die before its commit or after it: only the database knows."""
    directory = tmp_path / "d"
    directory.mkdir()
    for is_committed in (False, True):
        url = tmp_path / f"metrics{is_committed}.db"

        def work(url: Path = url, is_committed: bool = is_committed) -> Meter:
            meter = Meter(directory=directory, history=url)
            store = meter._history._store  # type: ignore[union-attr]
            append = store.append

            def cut_off(rows: object) -> int:
                if is_committed:
                    append(rows)  # type: ignore[arg-type]
                raise ConnectionError

            store.append = cut_off  # type: ignore[method-assign]
            call(meter, 3)
            assert meter.flush(0.5) is not None
            call(meter, 2)
            return meter

        dead_worker(directory, work)
        fold(directory)
        assert recover_all(directory, url) == 1
        assert written(url) == 5


def test_a_living_worker_writes_for_those_who_were_killed(tmp_path: Path) -> None:
    """With its own rows; what is of another history stays."""
    directory = tmp_path / "d"
    directory.mkdir()
    for name in ("metrics.db", "other.db"):

        def work(name: str = name) -> Meter:
            meter = Meter(directory=directory, history=tmp_path / name)
            call(meter, 2)
            return meter

        dead_worker(directory, work)
    fold(directory)
    assert len(unwritten(directory)) == 2
    options = HistoryOptions(url=tmp_path / "metrics.db", interval=1)
    meter = Meter(directory=directory, history=options)
    call(meter, 1)
    deadline = time.monotonic() + 60
    while len(unwritten(directory)) == 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    meter.close()
    assert written(tmp_path / "metrics.db") == 3
    assert not (tmp_path / "other.db").exists()
    (path,) = unwritten(directory)
    assert path.suffix == UNWRITTEN


def test_fold_writes_what_is_left_to_a_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one it says what waits."""
    directory, url = tmp_path / "d", tmp_path / "metrics.db"
    directory.mkdir()

    def work() -> Meter:
        meter = Meter(directory=directory, history=url)
        call(meter, 2)
        return meter

    dead_worker(directory, work)
    assert main(["fold", str(directory)]) == 0
    assert "1 killed worker not yet in their history" in capsys.readouterr().out
    assert main(["fold", str(directory), "--history", str(url)]) == 0
    assert "1 killed worker written to the history" in capsys.readouterr().out
    assert written(url) == 2
    assert main(["fold", str(directory)]) == 0
    assert capsys.readouterr().out == f"{directory}: 0 files folded, 0 in use\n"


def test_what_ends_as_it_should_leaves_nothing_unwritten(tmp_path: Path) -> None:
    """Nor does a process that has counted nothing."""
    directory, url = tmp_path / "d", tmp_path / "metrics.db"

    def work() -> None:
        meter = Meter(directory=directory, history=url)
        call(meter, 2)
        assert meter.close() is None
        Meter(directory=directory, history=url).snapshot()

    os.waitpid(forked(work), 0)
    fold(directory)
    if unwritten(directory):  # a row that is there already
        recover_all(directory, url)
    assert written(url) == 2
    assert arenas(directory) == []


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    """And stays where it is."""
    path = tmp_path / f"1-a{UNWRITTEN}"
    for data, why in (
        (b"", "not a file of langmeter"),
        (b"[]\n", "not a file of langmeter"),
        (b'{"format": 2}\n', "newer langmeter"),
        (b'{"format": 1, "size": 3}\nabc', "not a file of langmeter"),
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=f"{path.name}.*{why}"):
            recover_all(tmp_path, tmp_path / "metrics.db")
        assert path.exists()
