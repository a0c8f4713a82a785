"""Instructions and cache misses, counted by valgrind: what no neighbour on the machine disturbs.

`python -m benches instructions` prints them: of the core's hot functions, inside the native module
for a token and for a call's start and end, and what a Meter adds to a real `invoke`. It fails where
a figure is more than 10 % above `MEASURED`. `--gate` counts inside the native module alone.
Figures of the native module are of a build without a profile, as CI's is; those of an `invoke` of
one by a profile, as `make bench` measures.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from benches.callgrind import Misses, inside, is_installed, misses, total
from langmeter import _core

ROOT = Path(__file__).resolve().parents[1]
#: A figure may be so much above what was measured.
_ROOM = 1.1
#: The versions that `MEASURED` holds for, where Python and LangChain are counted too.
_PINNED = ("3.11.7", "1.8.3")
#: Figures by what is counted. Lower them when the code gets cheaper.
MEASURED: dict[str, float] = {
    "native call": 9_540,
    "native call in an attempt": 10_160,
    "native token": 690,
    "collected token": 1_075,
    # The largest of four builds by a profile. Python's part of an empty handler's call, which is
    # subtracted, varies by thousands between builds: its caches go by address.
    "invoke, instructions": 10_940,
    "invoke, second-level misses": 1_170,
}
#: Operation of the core, what it is, repetitions of the shorter and the longer run.
_CORE = (
    ("record", "record on a held handle", 1_000, 11_000),
    ("token", "token event, without reading the clock", 1_000, 11_000),
    ("run", "start + end, without reading the clock", 1_000, 6_000),
    ("budgets", "the same held to two budgets that block", 1_000, 6_000),
)
#: The same of the native module. One event in 61 is timed: lengths differ by multiples of it.
_NATIVE = (
    ("call", "native call", "start + end of a call, inside the native module", 610, 3_050),
    ("call in an attempt", "native call in an attempt", "the same in an attempt", 610, 3_050),
    ("token", "native token", "a token, inside the native module", 610, 6_710),
    ("collected token", "collected token", "the same with collect=True", 610, 6_710),
)


def _each(
    count: Callable[[Sequence[str]], float], command: list[str], few: int, many: int
) -> float:
    """What one repetition costs."""
    return (count([*command, str(many)]) - count([*command, str(few)])) / (many - few)


def core() -> None:
    """Print the instructions of the core's operations."""
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "langmeter-core"]
    subprocess.run([*build, "--example", "instructions"], cwd=ROOT, check=True)
    program = str(ROOT / "target/release/examples/instructions")
    for operation, title, few, many in _CORE:
        _show(f"core: {title}", _each(total, [program, operation], few, many), None)


def native() -> bool:
    """Print the instructions inside the native module; whether they are within the gate."""
    assert _core.__file__ is not None
    library = Path(_core.__file__).name
    holds = True
    for operation, name, title, few, many in _NATIVE:
        command = [sys.executable, "-m", "benches.native_loop", operation]
        cost = _each(lambda run: inside(library, run), command, few, many)
        holds &= _show(title, cost, MEASURED[name])
    return holds


def invoke() -> bool:
    """Print what a Meter adds to an `invoke`; whether that is within the gate."""
    pinned = (platform.python_version(), version("langchain-core"))
    figures = {}
    for handler in ("empty", "meter"):
        command = [sys.executable, "-m", "benches.one_invoke", handler]
        few, many = misses([*command, "100"]), misses([*command, "400"])
        figures[handler] = Misses(*((b - a) / 300 for a, b in zip(few, many, strict=True)))
    holds = True
    for place, what in enumerate(("instructions", "second-level misses")):
        added = figures["meter"][place] - figures["empty"][place]
        gate = MEASURED.get(f"invoke, {what}") if pinned == _PINNED else None
        holds &= _show(f"{what} added to an invoke by a Meter", added, gate)
    if pinned != _PINNED:
        names = "Python {} and langchain-core {}".format
        print(f"not held to a gate, which is for {names(*_PINNED)}: this is {names(*pinned)}")
    return holds


def _show(title: str, figure: float, measured: float | None) -> bool:
    most = None if measured is None else measured * _ROOM
    holds = most is None or figure <= most
    gate = "" if most is None else f"  at most {most:,.0f}{'' if holds else ': NO'}"
    print(f"{title:<56}{figure:>10,.1f}{gate}", flush=True)
    return holds


def main(arguments: list[str] | None = None) -> None:
    """Print the table; SystemExit where a gate does not hold, and under CI without valgrind."""
    parser = argparse.ArgumentParser(prog="python -m benches instructions")
    parser.add_argument("--gate", action="store_true", help="what CI holds, and nothing else")
    gate = parser.parse_args(arguments).gate
    if not is_installed():
        return
    holds = native()
    if not gate:
        core()
        holds &= invoke()
    if not holds:
        raise SystemExit("more instructions than the gate allows; see MEASURED in " + __file__)


if __name__ == "__main__":
    main()
