"""Instructions of the core's hot functions, counted by callgrind.

They are the same whatever else the machine does. `python -m benches.instructions` prints a line an
operation. The price of one is the difference between two runs of different length, so start-up does
not count. Needs valgrind; says so where it is absent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Operation, what it is, repetitions of the shorter and the longer run.
OPERATIONS = (
    ("record", "record on a held handle", 1_000, 11_000),
    ("token", "token event, without reading the clock", 1_000, 11_000),
    ("run", "start + end, without reading the clock", 1_000, 6_000),
    ("budgets", "the same held to two budgets that block", 1_000, 6_000),
)


def _build() -> Path:
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "langmeter-core"]
    subprocess.run([*command, "--example", "instructions"], cwd=ROOT, check=True)
    return ROOT / "target/release/examples/instructions"


def _instructions(program: Path, operation: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program)]
    done = subprocess.run(
        [*command, operation, str(times)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise RuntimeError(f"callgrind printed no total:\n{done.stderr}")
    return int(found.group(1))


def main() -> int:
    """Print instructions per operation; 0 also where valgrind is absent."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instruction counts (apt-get install valgrind)")
        return 0
    program = _build()
    print(f"{'operation of the core':<42}{'instructions':>13}")
    for operation, title, few, many in OPERATIONS:
        counted = _instructions(program, operation, many) - _instructions(program, operation, few)
        print(f"{title:<42}{counted / (many - few):>13.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
