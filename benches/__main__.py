"""`python -m benches [--smoke] [PART ...]`, or one part with options of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benches import (
    alerts,
    anomalies,
    budgets,
    defects,
    directory,
    exporters,
    history,
    instructions,
    live,
    native_loop,
    providers,
    regression,
    streams,
    tables,
)


def _hooks(arguments: list[str]) -> None:
    # In a process of its own: pytest wants to rewrite langmeter, which is imported here.
    short = ["--benchmark-disable"] if "--smoke" in arguments else []
    command = [sys.executable, "-m", "pytest", "--no-cov", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *short, "benches/test_hooks.py"], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _instructions(arguments: list[str]) -> None:
    # In short form nothing is counted: `make gates` does that. The loops that it counts run once.
    if "--smoke" not in arguments:
        instructions.main(arguments)
        return
    for operation in native_loop.OPERATIONS:
        native_loop.main(operation, 61)


#: What there is to measure, in the order of a whole run.
PARTS: dict[str, Callable[[list[str]], None]] = {
    "instructions": _instructions,
    "hooks": _hooks,
    "tables": tables.main,
    "streams": streams.main,
    "regression": regression.main,
    "anomalies": anomalies.main,
    "defects": defects.main,
    "history": history.main,
    "directory": directory.main,
    "budgets": budgets.main,
    "alerts": alerts.main,
    "exporters": exporters.main,
    "live": live.main,
    "providers": providers.main,
}


def main(arguments: list[str]) -> None:
    """Run every part, or those that are named; options go to the one that they follow."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    if names and names[0] in PARTS and not set(names) <= set(PARTS):
        names = names[:1]  # what follows belongs to it
    if len(names) == 1 and names[0] in PARTS:
        PARTS[names[0]](arguments[arguments.index(names[0]) + 1 :])
        return
    options = [argument for argument in arguments if argument not in names]
    if not set(names) <= set(PARTS) or not set(options) <= {"--smoke"}:
        raise SystemExit(f"usage: python -m benches [--smoke] [{' | '.join(PARTS)} ...]")
    for name in names or PARTS:
        print(f"\n── {name}", flush=True)
        PARTS[name](options)


if __name__ == "__main__":
    main(sys.argv[1:])
