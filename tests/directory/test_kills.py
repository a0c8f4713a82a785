"""Processes that are killed at any point lose no count, and none is counted twice."""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import langmeter
from langmeter import Snapshot, _core
from langmeter.directory import fold
from langmeter.directory.files import arenas
from tests.support.arenas import call, forked, killed, recorder_in
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's"),
    pytest.mark.process,
]


def test_a_process_killed_while_it_counts_loses_at_most_the_event_it_was_in(tmp_path: Path) -> None:
    """50 processes that also grow their files; each tells how many calls it has finished."""
    chance = random.Random(7)
    finished = mmap.mmap(-1, 8)
    call(recorder_in(tmp_path))

    def calls() -> int:
        return int.from_bytes(finished[:], "little")

    def reached(number: int) -> bool:
        return calls() >= number

    def work() -> None:
        recorder = recorder_in(tmp_path)
        for n in range(1_000_000):
            call(recorder, f"m{n // 8 % 900}")
            finished[:] = struct.pack("<Q", n + 1)

    assert fold(tmp_path).folded == 1
    total = 1
    for turn in range(50):
        finished[:] = bytes(8)
        # One in ten is killed before its first call, perhaps before it has made its file.
        least = chance.randrange(1, 2000) if turn % 10 else 0
        child = forked(work)
        assert eventually(partial(reached, least))
        time.sleep(chance.uniform(0, 0.002))
        killed(child)
        done = calls()
        paths = arenas(tmp_path)
        snapshot = Snapshot(_core.read_files(paths)[0]) if paths else Snapshot()
        ok, abandoned = (snapshot.totals.outcomes[name] for name in ("ok", "abandoned"))
        assert ok - done in (0, 1)
        assert abandoned in (0, 1)
        # A call that ended has its duration, but for the one that the process was in.
        assert ok - snapshot.totals.latency.count in (0, 1)
        total += snapshot.totals.calls
        assert fold(tmp_path).folded == len(paths)
        assert langmeter.read(tmp_path).totals.calls == total
    assert total > 25_000


def test_readers_see_no_figure_fall_while_processes_come_and_go(tmp_path: Path) -> None:
    """Two foldings at a time, four processes that count and are killed, one that reads."""
    chance = random.Random(11)
    stop = mmap.mmap(-1, 1)

    def count() -> None:
        recorder = recorder_in(tmp_path)
        while not stop[0]:
            call(recorder)

    def folding() -> None:
        while not stop[0]:
            fold(tmp_path)

    folders = [forked(folding) for _ in range(2)]
    children = [forked(count) for _ in range(4)]
    calls, readings, ends = 0, 0, time.monotonic() + 5
    while time.monotonic() < ends:
        snapshot = langmeter.read(tmp_path)
        assert snapshot.totals.calls >= calls
        calls, readings = snapshot.totals.calls, readings + 1
        if readings % 5 == 0:
            place = chance.randrange(4)
            killed(children[place])
            children[place] = forked(count)
    stop[0] = 1
    for child in folders + children:
        os.waitpid(child, 0)
    assert langmeter.read(tmp_path).totals.calls >= calls > 0
    while arenas(tmp_path):
        fold(tmp_path)
    last = langmeter.read(tmp_path)
    assert last.in_flight == 0
    # Each killed process lost at most the duration of the event it was in.
    assert 0 <= last.totals.outcomes["ok"] - last.totals.latency.count <= readings


def test_two_foldings_at_once_fold_each_file_once(tmp_path: Path) -> None:
    """The second waits for its turn, or says that it did nothing."""
    for _ in range(20):
        call(recorder_in(tmp_path))
    for child in [forked(lambda: fold(tmp_path, timeout=10)) for _ in range(4)]:
        os.waitpid(child, 0)
    assert langmeter.read(tmp_path).totals.calls == 20
    assert arenas(tmp_path) == []
