"""A directory shows what all its processes have counted, the living and the dead."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import langmeter
from langmeter import ConfigError, Meter, _core, sources
from langmeter.cli.main import main
from langmeter.directory import Directory, DirectoryOptions, fold
from langmeter.directory.files import arenas, locked
from langmeter.directory.keeper import Keeper
from langmeter.errors import SourceError
from tests.support.arenas import call, forked, killed, recorder_in
from tests.support.models import chat_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's")


def test_any_process_answers_for_all(tmp_path: Path) -> None:
    """Four workers make calls; the parent reads the sum, and its own snapshot is its own."""
    meter = Meter(directory=tmp_path)
    chat_model().invoke("hi", config={"callbacks": [meter]})

    def work() -> None:
        for _ in range(3):
            chat_model().invoke("hi", config={"callbacks": [meter]})

    for child in [forked(work) for _ in range(4)]:
        os.waitpid(child, 0)
    everything = langmeter.read(tmp_path)
    assert (everything.totals.calls, meter.snapshot().totals.calls) == (13, 1)
    assert everything.totals.tokens.total == 13 * meter.snapshot().totals.tokens.total
    assert everything.totals.latency.count == 13
    assert langmeter.read(meter) == everything or langmeter.read(meter).totals.calls == 13


def test_a_source_of_a_meter_in_a_directory_is_the_directory(tmp_path: Path) -> None:
    """So exporters, reports and pages that are given one show all processes."""
    meter = Meter(directory=tmp_path)
    meter.snapshot()
    assert isinstance(sources.open(meter), Directory)
    assert sources.open(Meter()) is not None
    assert not isinstance(sources.open(Meter()), Directory)


def test_the_difference_of_two_readings_is_what_came_between(tmp_path: Path) -> None:
    """Also where a process has ended and was folded in between."""
    first = recorder_in(tmp_path)
    call(first)
    before = langmeter.read(tmp_path)
    call(first)
    del first
    fold(tmp_path)
    call(other := recorder_in(tmp_path))
    assert (langmeter.read(tmp_path) - before).totals.calls == 2
    del other


def test_what_a_dead_process_had_in_flight_is_abandoned(tmp_path: Path) -> None:
    """At once for those who read, and after the folding too."""
    from uuid import uuid4

    recorder = recorder_in(tmp_path)
    recorder.run_started(uuid4(), None, 0, "chat", "openai", "gpt-4o")
    assert langmeter.read(tmp_path).in_flight == 1
    del recorder
    for _ in range(2):
        snapshot = langmeter.read(tmp_path)
        assert (snapshot.in_flight, snapshot.totals.outcomes["abandoned"]) == (0, 1)
        fold(tmp_path)


def test_files_are_private_unless_said_otherwise(tmp_path: Path) -> None:
    """Permission bits of the files of processes and of the retired."""
    for name, mode in (("private", None), ("group", 0o640)):
        directory = tmp_path / name
        options = (
            DirectoryOptions(path=directory)
            if mode is None
            else DirectoryOptions(path=directory, mode=mode)
        )
        meter = Meter(directory=options)
        meter.snapshot()
        (path,) = arenas(directory)
        assert stat.S_IMODE(path.stat().st_mode) == (mode or 0o600)
        assert meter.file == path


def test_a_directory_that_cannot_be_used_costs_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The process counts in memory; that is logged once and counted."""
    (tmp_path / "file").write_text("")
    meter = Meter(directory=tmp_path / "file" / "inside")
    for _ in range(3):
        chat_model().invoke("hi", config={"callbacks": [meter]})
    assert meter.snapshot().totals.calls == 3
    assert meter.snapshot().dropped["directory_unavailable"] == 1
    assert meter.file is None
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in messages if "counts in memory" in text] == [
        f"{tmp_path}/file/inside: Not a directory; this process counts in memory, where others do "
        "not see it"
    ]


@pytest.mark.process
def test_a_file_that_cannot_grow_kills_no_process(tmp_path: Path) -> None:
    """What it has no room for is counted in memory: the process' own snapshot has everything."""
    program = (
        "import resource, pathlib, sys\n"
        "from tests.support.arenas import recorder_in\n"
        "from langmeter import _core\n"
        "recorder = recorder_in(pathlib.Path(sys.argv[1]))\n"
        "size = recorder.file.stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "for hook in range(60):\n"
        "    for power in range(37):\n        recorder.in_hook(f'h{hook}', 2**power)\n"
        "assert not recorder.grow_file()\n"
        "(shared, failures) = _core.read_files([recorder.file])\n"
        "assert not failures\n"
        "print(*(sum(s.measure('latency').count for s in each.series())\n"
        "        for each in (recorder.snapshot(), shared)), recorder.snapshot().dropped)\n"
    )
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    own, shared, dropped = done.stdout.split(" ", 2)
    assert int(own) == 60 * 37
    assert 0 < int(shared) < 60 * 37
    assert "durations_lost" not in dropped


@pytest.mark.process
def test_a_full_file_system_kills_no_process(tmp_path: Path) -> None:
    """One of 4 MiB, as a small /dev/shm: a write beyond it would be SIGBUS."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "langmeter-test", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        program = (
            "import pathlib, sys\n"
            "from tests.support.arenas import call, recorder_in\n"
            "recorder = recorder_in(pathlib.Path(sys.argv[1]))\n"
            "for n in range(300):\n    call(recorder, f'm{n}')\n"
            "assert not recorder.grow_file()\n"
            "models = [s for s in recorder.snapshot().series() if s.kind == 'model']\n"
            "print(sum(s.counters[0] for s in models))\n"
        )
        done = run(program, small)
        assert (done.returncode, done.stdout.strip()) == (0, "300"), done.stderr
        assert 20 < langmeter.read(small).totals.calls < 300
        # There is no room for a file of another process: it counts in memory.
        (small / "rest").write_bytes(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_bsize))
        meter = Meter(directory=small)
        chat_model().invoke("hi", config={"callbacks": [meter]})
        assert (meter.file, meter.snapshot().totals.calls) == (None, 1)
        assert list(small.glob("*.new")) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def run(program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with a directory as its argument."""
    return subprocess.run(
        [sys.executable, "-c", program, str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_files_that_are_not_ours_are_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Truncated, foreign and newer ones; the others are read, and each is named once."""
    call(recorder := recorder_in(tmp_path))
    (own,) = arenas(tmp_path)
    data = own.read_bytes()
    (tmp_path / "1-short.arena").write_bytes(data[: 1 << 20])
    (tmp_path / "2-foreign.arena").write_bytes(b"hello")
    (tmp_path / "3-newer.arena").write_bytes(data[:120] + (9).to_bytes(8, "little") + data[128:])
    (tmp_path / "README").write_text("not an arena")
    directory = Directory(tmp_path)
    for _ in range(2):
        assert directory.snapshot().totals.calls == 1
    messages = [record.getMessage() for record in caplog.records]
    assert [text.partition(str(tmp_path))[2] for text in messages] == [
        "/1-short.arena: truncated: it is shorter than its header says",
        "/2-foreign.arena: not a file of a langmeter recorder: it is too short",
        "/3-newer.arena: made by a newer langmeter (file version 9, this one reads 1); "
        "upgrade langmeter",
    ]
    folding = fold(tmp_path)
    assert (folding.folded, folding.living, len(folding.refused)) == (0, 1, 3)
    assert len(arenas(tmp_path)) == 4
    del recorder


def test_a_damaged_file_of_the_retired_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Reading on without it would let every counter fall."""
    (tmp_path / "retired").write_bytes(b'{"format": 1, "folded": [], "processes": 0}\nLMTR')
    with pytest.raises(SourceError, match="retired: not a file of langmeter"):
        langmeter.read(tmp_path)
    (tmp_path / "retired").write_bytes(b'{"format": 2}\n')
    with pytest.raises(SourceError, match="newer langmeter"):
        langmeter.read(tmp_path)


@pytest.mark.process
def test_a_child_does_not_keep_its_parents_file_alive(tmp_path: Path) -> None:
    """Neither a forked one, which closes the lock, nor a program that was started."""
    program = (
        "import os, subprocess, sys\n"
        "from langmeter import Meter\n"
        "meter = Meter(directory=sys.argv[1])\n"
        "meter.snapshot()\n"
        "print(meter.file.name, flush=True)\n"
        "subprocess.Popen(['sleep', '60'])\n"
        "if os.fork() == 0:\n    print(meter.file.name, flush=True)\n"
        "    os.execvp('sleep', ['sleep', '60'])\n"
        "os.read(0, 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        parent, child = (tmp_path / process.stdout.readline().strip() for _ in range(2))
        assert parent != child
        assert _core.is_held(parent)
        process.kill()
        process.wait()
        for _ in range(500):
            if not (_core.is_held(parent) or _core.is_held(child)):
                break
            time.sleep(0.01)
        held = _core.is_held(parent), _core.is_held(child)
        os.killpg(process.pid, signal.SIGKILL)
    # `exec` closed the child's own file too.
    assert held == (False, False)


def test_a_forked_child_counts_into_a_file_of_its_own(tmp_path: Path) -> None:
    """Its calls are counted once, and its parent's file is not touched."""
    meter = Meter(directory=tmp_path)
    chat_model().invoke("hi", config={"callbacks": [meter]})
    before = _core.read_files(arenas(tmp_path))[0]

    def work() -> None:
        chat_model().invoke("hi", config={"callbacks": [meter]})
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forked(work), 0)
    own, other = sorted(arenas(tmp_path), key=lambda path: path != meter.file)
    assert _core.read_files([own])[0].series()[0].counters == before.series()[0].counters
    assert langmeter.Snapshot(_core.read_files([other])[0]).totals.calls == 1


def test_elsewhere_than_on_linux_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to use in its place."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match=r"directory must be left out on darwin.*OTLP"):
        Meter(directory="x")


@pytest.mark.parametrize("directory", ["", 7, b"x"])
def test_bad_directories_are_refused(directory: object) -> None:
    """The message shows what to write."""
    with pytest.raises(ConfigError, match=r'the path of a directory.*write "/run/langmeter"'):
        Meter(directory=directory)  # type: ignore[arg-type]


def test_the_variable_is_langmeter_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the keyword and the file have it."""
    monkeypatch.setenv("LANGMETER_DIR", str(tmp_path / "a"))
    meter = Meter()
    meter.snapshot()
    assert meter.file is not None
    assert meter.file.parent == tmp_path / "a"
    off = Meter(directory=False)
    off.snapshot()
    assert off.file is None


def test_a_killed_process_is_folded_by_a_living_one(tmp_path: Path) -> None:
    """By its periodic task; nothing changes for those who read."""
    meter = Meter(directory=tmp_path)

    def work() -> None:
        call(recorder_in(tmp_path))
        time.sleep(60)

    child = forked(work)
    while langmeter.read(tmp_path).totals.calls < 1:
        time.sleep(0.01)
    killed(child)
    chat_model().invoke("hi", config={"callbacks": [meter]})
    (keeper,) = [each for each in meter._services.observers if type(each).__name__ == "Keeper"]
    keeper.tick()
    assert arenas(tmp_path) == [meter.file]
    assert langmeter.read(tmp_path).totals.calls == 2


def test_a_folder_without_a_meter_is_an_error_that_names_it(tmp_path: Path) -> None:
    """An empty sum would look like a service without traffic."""
    with pytest.raises(SourceError, match="no meter counts into this directory"):
        langmeter.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        langmeter.read(sources.open(Directory(tmp_path / "none")))


def test_the_command_fold_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0; 1 where files were left alone; 2 where there is no such directory."""
    call(recorder_in(tmp_path))
    living = recorder_in(tmp_path)
    assert main(["fold", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 file folded, 1 in use\n"
    (tmp_path / "1-foreign.arena").write_bytes(b"hello")
    assert main(["fold", str(tmp_path)]) == 1
    assert "left alone" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["fold", str(tmp_path / "none")])
    del living


def test_a_folding_that_another_does_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing, and the command says so after its wait."""
    call(recorder_in(tmp_path))
    monkeypatch.setattr("langmeter.cli.fold._TIMEOUT", 0.05)
    with locked(tmp_path, 1, 0o600) as mine:
        assert mine
        assert fold(tmp_path).busy
        assert main(["fold", str(tmp_path)]) == 1
    assert "another process has been folding" in capsys.readouterr().err
    assert fold(tmp_path).folded == 1


def test_files_that_their_maker_did_not_finish_are_removed_after_a_minute(tmp_path: Path) -> None:
    """Before that they may be those of a process that is just beginning."""
    old, young = tmp_path / "1-a.new", tmp_path / "2-b.new"
    for path in (old, young):
        path.write_bytes(bytes(100))
    os.utime(old, (time.time() - 61,) * 2)
    fold(tmp_path)
    assert not old.exists()
    assert young.exists()


def test_what_a_keeper_cannot_do_is_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file of the retired stops no task and no call."""
    meter = Meter(directory=tmp_path)
    chat_model().invoke("hi", config={"callbacks": [meter]})
    (tmp_path / "retired").write_bytes(b"damaged")
    (keeper,) = [each for each in meter._services.observers if isinstance(each, Keeper)]
    for _ in range(30):
        keeper.tick()
    assert [r.getMessage() for r in caplog.records if "cannot be folded" in r.getMessage()] != []
    assert meter.snapshot().dropped["directory_unavailable"] == 1
