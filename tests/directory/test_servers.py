"""Servers with several workers: any of them answers for all on `/metrics`, killed ones included."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

from prometheus_client.parser import text_string_to_metric_families

import langmeter
from langmeter import Meter
from langmeter.exporters import prometheus
from tests.support.arenas import call, forked, recorder_in
from tests.support.models import chat_model

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's"),
]
ROOT = Path(__file__).parents[2]
_GUNICORN = ["gunicorn", "--workers=4", "--bind=127.0.0.1:{port}"]
SERVERS = {
    "gunicorn": [*_GUNICORN, "tests.support.workers:wsgi"],
    "gunicorn --preload": [*_GUNICORN, "--preload", "tests.support.workers:wsgi"],
    "uvicorn": ["uvicorn", "--workers=4", "--port={port}", "tests.support.workers:asgi"],
}


def fetch(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def calls_in(text: str) -> float:
    """Calls on a page of metrics, by the parser of the official client."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "gen_ai_client_operation_duration_seconds_count"
    )


@contextlib.contextmanager
def served(command: list[str], directory: Path) -> Iterator[str]:
    """Start a server; give its address."""
    pytest.importorskip(command[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command)],
        cwd=ROOT,
        env={**os.environ, "WORKERS_DIRECTORY": str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(URLError, ConnectionError):
                fetch(f"{url}/metrics")
                break
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.parametrize("name", SERVERS)
def test_any_worker_answers_for_all(tmp_path: Path, name: str) -> None:
    """Each scrape has every call so far, also those of a worker that was killed."""
    with served(SERVERS[name], tmp_path) as url, ThreadPoolExecutor(8) as threads:

        def ask(times: int) -> set[int]:
            return set(map(int, threads.map(fetch, [f"{url}/ask"] * times)))

        workers: set[int] = set()
        total = 0
        while len(workers) < 2:  # the system chooses which worker gets a connection
            workers |= ask(50)
            total += 50
        assert {calls_in(fetch(f"{url}/metrics")) for _ in range(12)} == {total}
        victim = next(iter(workers))
        os.kill(victim, signal.SIGKILL)
        while victim in {int(fetch(f"{url}/ask")) for _ in range(20)}:
            total += 20  # it was in the middle of its last answer
        total += 20
        assert {calls_in(fetch(f"{url}/metrics")) for _ in range(12)} == {total}


def _asked(number: int) -> int:
    chat_model().invoke("hi", config={"callbacks": [_meter]})
    return number


_meter = Meter()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_process_pool_is_on_the_page_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """However its processes begin: each has the meter of its module, which counts there."""
    monkeypatch.setenv("LANGMETER_DIR", str(tmp_path))
    monkeypatch.setattr(sys.modules[__name__], "_meter", Meter())
    with ProcessPoolExecutor(3, mp_context=get_context(method)) as pool:
        assert sum(pool.map(_asked, range(60))) == sum(range(60))
        with prometheus.start(0, _meter) as server:
            assert calls_in(fetch(f"{server.url}/metrics")) == 60
    with prometheus.start(0, _meter) as server:
        assert calls_in(fetch(f"{server.url}/metrics")) == 60


#: Seconds that 64 processes count; a minute in `make e2e`.
SECONDS = float(os.environ.get("TEST_SECONDS", "2"))
PROCESSES, THREADS = 64, 8


@pytest.mark.slow
def test_no_call_of_64_processes_is_lost(tmp_path: Path) -> None:
    """Each of them has 8 threads; readers and folders never fail, and no figure falls."""
    begin, end = tmp_path / "begin", threading.Event()
    directory = tmp_path / "d"
    directory.mkdir()
    made = mmap.mmap(-1, 8 * PROCESSES)

    def work(number: int) -> None:
        recorder = recorder_in(directory)
        while not begin.exists():
            time.sleep(0.01)
        ends = time.monotonic() + SECONDS
        calls = [0] * THREADS

        def count(place: int) -> None:
            while time.monotonic() < ends:
                call(recorder, f"m{number % 7}")
                calls[place] += 1

        threads = [threading.Thread(target=count, args=(place,)) for place in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made[8 * number : 8 * number + 8] = struct.pack("<Q", sum(calls))

    children = [forked(partial(work, number)) for number in range(PROCESSES)]
    while len(list(directory.glob("*.arena"))) < PROCESSES:
        time.sleep(0.01)
    seen: dict[int, list[int]] = {}
    foldings = 0

    def look() -> None:
        nonlocal foldings
        readings = seen.setdefault(threading.get_ident(), [])
        while not readings or not end.is_set():
            readings.append(langmeter.read(directory).totals.calls)
            foldings += langmeter.directory.fold(directory).folded

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    begin.touch()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    end.set()
    for reader in readers:
        reader.join()
    foldings += langmeter.directory.fold(directory).folded
    calls = sum(struct.unpack(f"<{PROCESSES}Q", made[:]))
    total = langmeter.read(directory).totals
    readings = sum(map(len, seen.values()))
    print(f"{calls:,} calls in {SECONDS:.0f} s, {total.calls:,} counted, {readings:,} readings")
    assert (total.calls, total.latency.count) == (calls, calls)
    assert total.outcomes["abandoned"] == 0
    assert len(seen) == len(readers)
    for numbers in seen.values():
        assert numbers == sorted(numbers)
        assert numbers[-1] <= calls
    assert foldings == PROCESSES
    assert list(directory.glob("*.arena")) == []
