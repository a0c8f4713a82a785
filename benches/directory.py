"""`python -m benches directory [--smoke]`: counting into a file beside memory, and reading many."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from inspect import cleandoc
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import UUID

import langmeter
from langmeter import _core
from langmeter.directory import fold
from langmeter.directory.files import new_arena
from langmeter.exporters.pages import Pages
from langmeter.testing import ManualClock

MODELS = 100
_USAGE = (100, 10, 110, *[0] * 16)


def _call(recorder: _core.Recorder, run: UUID, model: str) -> None:
    recorder.run_started(run, None, 0, "chat", "openai", model)
    recorder.token(run)
    recorder.run_ended(run, 0, 0, "openai", model, _USAGE, 100)


def _loop(recorder: _core.Recorder, calls: int) -> float:
    """Return the seconds that so many calls of eight models took."""
    runs = [UUID(int=number + 1) for number in range(1000)]
    begun = perf_counter()
    for number in range(calls):
        _call(recorder, runs[number % 1000], f"model-{number % 8}")
    return perf_counter() - begun


def recording(rounds: int) -> Iterator[tuple[str, ...]]:
    """Nanoseconds of a start, a token and an end in a loop, of interleaved rounds."""
    yield ("where", "least", "median", "ratio of least", "ratio of medians", "target")
    calls = 20_000 if rounds > 3 else 100
    with ExitStack() as stack:
        recorders = {"memory": _core.Recorder()}
        for folder in ("/dev/shm", tempfile.gettempdir()):
            if os.path.isdir(folder):
                directory = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
                recorders[f"a file in {folder}"] = recorder = _core.Recorder()
                recorder.attach(new_arena(Path(directory)), 0o600)
        took: dict[str, list[float]] = {name: [] for name in recorders}
        for number in range(rounds):
            names = list(recorders)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                took[name].append(1e9 * _loop(recorders[name], calls) / calls)
        base = took["memory"]
        for name, times in took.items():
            least, middle = min(times) / min(base), median(times) / median(base)
            figures = (f"{min(times):,.0f}", f"{median(times):,.0f}", f"{least:.3f}")
            yield (name, *figures, f"{middle:.3f}", "-" if name == "memory" else "0.97 to 1.03")


def _filled(directory: Path, processes: int) -> list[_core.Recorder]:
    """Recorders with 100 models each, all of whose distributions of streamed calls are filled."""
    recorders = []
    for process in range(processes):
        clock = ManualClock()
        recorder = _core.Recorder(clock=clock)
        recorder.attach(new_arena(directory), 0o600)
        for number in range(MODELS * 4):
            run = UUID(int=number + 1)
            recorder.run_started(run, None, 0, "chat", "openai", f"model-{number % MODELS}")
            for _ in range(4):
                clock.advance(0.05 + (number * 7919 + process) % 97 / 100)
                recorder.token(run)
            recorder.run_ended(run, 0, 0, usage=_USAGE, cost=100)
        recorders.append(recorder)
    return recorders


def reading(rounds: int) -> Iterator[tuple[str, ...]]:
    """Milliseconds of a reading of so many processes with 100 models each, streamed calls."""
    yield ("processes", "files, MB", "read, median", "least", "after folding", "target")
    for processes in (4, 64) if rounds > 3 else (2,):
        with tempfile.TemporaryDirectory() as folder:
            recorders = _filled(Path(folder), processes)
            size = sum(path.stat().st_blocks * 512 for path in Path(folder).iterdir())
            took = [_reading(folder) for _ in range(rounds)]
            recorders.clear()
            fold(folder)
            after = median(_reading(folder) for _ in range(rounds))
        target = "60" if processes == 64 else "-"
        figures = f"{size / 1e6:,.0f}", f"{median(took):.1f}", f"{min(took):.1f}", f"{after:.1f}"
        yield (str(processes), *figures, target)


def _reading(folder: str) -> float:
    begun = perf_counter()
    langmeter.read(folder)
    return 1e3 * (perf_counter() - begun)


def scraping(rounds: int) -> Iterator[tuple[str, ...]]:
    """Milliseconds of a scrape of so many processes with 100 models each, the fastest."""
    yield ("processes", "read", "scrape", "lines", "more than read, us a line", "target")
    for processes in (4, 64) if rounds > 3 else (2,):
        with tempfile.TemporaryDirectory() as folder:
            recorders = _filled(Path(folder), processes)
            pages = Pages(folder, None, "", "released")
            lines = pages.answer("GET", "/metrics", "", "").body.count(b"\n")
            read = min(_reading(folder) for _ in range(rounds))
            scrape = min(_scraping(pages) for _ in range(rounds))
            recorders.clear()
        more = 1e3 * (scrape - read) / lines
        yield (str(processes), f"{read:.1f}", f"{scrape:.1f}", f"{lines:,}", f"{more:.1f}", "15")


def _scraping(pages: Pages) -> float:
    begun = perf_counter()
    pages.answer("GET", "/metrics", "", "")
    return 1e3 * (perf_counter() - begun)


def together(rounds: int) -> Iterator[tuple[str, ...]]:
    """Events a second (a start, a token, an end) of processes with threads, all counted."""
    yield ("processes", "threads of each", "events a second", "of them counted", "target")
    seconds = 3.0 if rounds > 3 else 0.05
    for processes, threads in ((os.cpu_count() or 1, 1), (64, 8)) if rounds > 3 else ((2, 2),):
        with tempfile.TemporaryDirectory() as folder:
            reading_end, writing_end = os.pipe()
            begun = perf_counter()
            children = []
            for _ in range(processes):
                child = os.fork()
                if child == 0:
                    os.write(writing_end, f"{_busy(folder, threads, seconds)}\n".encode())
                    os._exit(0)
                children.append(child)
            os.close(writing_end)
            for child in children:
                os.waitpid(child, 0)
            took = perf_counter() - begun
            with os.fdopen(reading_end) as lines:
                made = sum(map(int, lines))
            counted = langmeter.read(folder).totals.calls
        figures = f"{3 * made / took:,.0f}", f"{counted:,} of {made:,} calls"
        yield (str(processes), str(threads), *figures, "1,000,000" if threads == 1 else "-")


def _busy(folder: str, threads: int, seconds: float) -> int:
    recorder = _core.Recorder()
    recorder.attach(new_arena(Path(folder)), 0o600)
    made = [0] * threads
    ends = perf_counter() + seconds

    def work(place: int) -> None:
        runs = [UUID(int=number * threads + place + 1) for number in range(100)]
        while perf_counter() < ends:
            for run in runs:
                _call(recorder, run, "model")
            made[place] += len(runs)

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(made)


_TABLES = {table.__name__: table for table in (recording, reading, scraping, together)}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches directory", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short form; its times mean nothing")
    parser.add_argument("--only", choices=_TABLES, help="one table")
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        print("files of recorders are Linux's: nothing to measure")
        return
    for name, table in _TABLES.items():
        if options.only in (None, name):
            print(f"\n{cleandoc(table.__doc__ or '')}\n")
            for number, row in enumerate(table(2 if options.smoke else 21)):
                print(f"| {' | '.join(row)} |", flush=True)
                if number == 0:
                    print(f"|{' --: |' * len(row)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
