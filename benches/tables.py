"""The tables: `python -m benches tables [--smoke] [--only NAMES] [--json FILE] [--markdown]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benches import limits, memory, money, processes
from benches.catalogue import catalogue
from benches.peers import peers
from benches.report import as_dict, render, targets
from benches.rows import Row
from benches.speed import WORKLOADS, Matrix, measure

# Each in a process of its own: what, in full, in short form.
_ALONE: dict[str, tuple[Callable[..., list[Row]], tuple[int, ...], tuple[int, ...]]] = {
    "snapshot": (limits.snapshot, (100, 200), (10, 5)),
    "snapshot of many": (limits.many, (1_000, 20), (50, 2)),
    "soak": (memory.soak, (5_000_000,), (20_000,)),
    "idle": (memory.idle, (), ()),
    "in-flight": (memory.in_flight, (50_000,), (1_000,)),
    "abandoned": (memory.abandoned, (10_000,), (500,)),
    "exact": (limits.exact, (64, 10_000), (64, 50)),
    "executor": (limits.executor, (4,), (1,)),
    "forked": (processes.forked, (1_000, 20), (20, 2)),
    "tracked": (processes.tracked, (1_000,), (20,)),
    "budgets": (money.budgets, (100, 4_000), (1, 100)),
    "catalogue": (catalogue, (9,), (1,)),
    "first": (money.first_call, (), ()),
    "construct": (money.construct, (50,), (3,)),
    "count": (money.count, (30,), (1,)),
    "import": (limits.import_time, (20,), (2,)),
}
_NAMES = [*(workload.name for workload in WORKLOADS), *_ALONE]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches tables", description="What langmeter costs, beside its peers."
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="all of it in short form: the counts are asserted, the times mean nothing",
    )
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated, of {', '.join(_NAMES)}")
    parser.add_argument("--seconds", type=float, default=20, help="for each kind of call (20)")
    parser.add_argument("--runs", type=int, help="of the memory soak (5,000,000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--alone", choices=_ALONE, help=argparse.SUPPRESS)
    parser.add_argument("numbers", nargs="*", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else _NAMES
    unknown = sorted({*options.only} - {*_NAMES})
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _alone(name: str, numbers: tuple[int, ...]) -> list[Row]:
    """The rows of a benchmark that has a fresh process to itself."""
    command = [sys.executable, "-m", "benches.tables", "--alone", name, *map(str, numbers)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"benches: {name} failed; see above")
    return [Row(**row) for row in json.loads(told.stdout)]


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for and print the tables. A missed target is not an error."""
    options = _options(arguments)
    if options.alone:
        rows = _ALONE[options.alone][0](*options.numbers)
        print(json.dumps([vars(row) for row in rows]))
        return
    matrix, rows = Matrix(), []
    workloads = [workload for workload in WORKLOADS if workload.name in options.only]
    if workloads:
        matrix = measure(
            workloads,
            list(peers()),
            seconds=0 if options.smoke else options.seconds,
            rounds=2 if options.smoke else 30,
            progress=_say,
        )
        rows = targets(matrix)
    for name, (measure_alone, full, short) in _ALONE.items():
        if name in options.only:
            numbers = short if options.smoke else full
            if name == "soak" and options.runs:
                numbers = (options.runs,)
            _say(name)
            # In short form one process for nearly all: the others show that all would start.
            together = options.smoke and name not in ("import", "tracked")
            rows += measure_alone(*numbers) if together else _alone(name, numbers)
    if options.smoke:
        rows = [replace(row, holds=None) for row in rows]
    print(render(matrix, rows, markdown=options.markdown))
    if options.smoke:
        print("\nShort form: every count was asserted; the times mean nothing.")
    if options.json:
        options.json.write_text(json.dumps(as_dict(matrix, rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
