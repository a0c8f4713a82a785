"""Instructions and cache misses, counted by valgrind: the same whatever else the machine does.

What an operation costs is the difference between a longer and a shorter run, so start-up does not
count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: The caches of an EPYC up to Zen 3: first level of 32 KB, second of 512 KB, eight-way.
_CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=524288,8,64")
_DETERMINISTIC = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


class Misses(NamedTuple):
    """What cachegrind counted; `second_level` are misses of the second level, code and data."""

    instructions: float
    second_level: float


def is_installed() -> bool:
    """Whether valgrind is there. Raises SystemExit under CI where it is not."""
    if shutil.which("valgrind") is not None:
        return True
    if os.environ.get("CI"):
        raise SystemExit("valgrind is not installed, and CI needs it: run `make valgrind` first")
    print("valgrind is not installed: nothing is counted (make valgrind)", file=sys.stderr)
    return False


def _run(options: Sequence[str], command: Sequence[str]) -> str:
    process = subprocess.run(
        ["valgrind", *options, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **_DETERMINISTIC},
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"valgrind {' '.join(command)} failed:\n{process.stderr}")
    return process.stderr


def total(command: Sequence[str]) -> int:
    """Instructions of a whole program."""
    report = _run(["--tool=callgrind", "--callgrind-out-file=/dev/null"], command)
    count = re.search(r"Collected : (\d+)", report)
    if count is None:
        raise SystemExit(f"callgrind printed no total:\n{report}")
    return int(count.group(1))


def inside(library: str, command: Sequence[str]) -> int:
    """Instructions of a program that run inside the shared library of this name."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        _run(["--tool=callgrind", f"--callgrind-out-file={out}"], command)
        return _self_cost(out.read_text(), library)


def _self_cost(profile: str, library: str) -> int:
    """Sum of the cost lines of one object file, without what it calls."""
    names: dict[str, str] = {}
    costs: Counter[str] = Counter()
    current, skip = "", False
    for line in profile.splitlines():
        if line.startswith("ob="):
            number, _, name = line[3:].partition(" ")
            current = names.setdefault(number, name) if name else names[number]
        elif line.startswith("cob="):
            number, _, name = line[4:].partition(" ")
            if name:
                names.setdefault(number, name)
        elif line.startswith("calls="):
            skip = True  # the next line is the cost of what is called
        elif line and line[0] in "+-*0123456789":
            if not skip:
                costs[current] += int(line.split()[1])
            skip = False
    cost = sum(cost for name, cost in costs.items() if Path(name).name == library)
    if not cost:
        raise SystemExit(f"callgrind saw nothing of {library}")
    return cost


def misses(command: Sequence[str]) -> Misses:
    """Instructions and second-level misses of a whole program, on caches that are always equal."""
    report = _run(
        ["--tool=cachegrind", "--cache-sim=yes", "--cachegrind-out-file=/dev/null", *_CACHES],
        command,
    )

    def count(name: str) -> int:
        number = re.search(rf"{name}:\s+([\d,]+)", report)
        if number is None:
            raise SystemExit(f"cachegrind printed no {name}:\n{report}")
        return int(number.group(1).replace(",", ""))

    return Misses(count(r"I\s+refs"), count("LLi misses") + count("LLd misses"))
