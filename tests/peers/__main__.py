"""Run the unit tests of langchain-core, langchain and langgraph twice and compare the outcomes.

    python -m tests.peers [--only langgraph]

Each suite comes from the source distribution of the version that is installed here, and runs once
with an inline handler that does nothing and once with a meter, in an environment of its own. Tests
that end otherwise with the meter run again, alone: several of LangGraph's judge times, and fail now
and then on a busy machine with any handler. Exit code 1 when one ends otherwise each time, when a
run is still in flight after its age, or when a counter of `dropped` has no explanation below.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
HOME: Final = ROOT / "target" / "peers"

#: What the suites need beside the packages; their own test groups, less databases and linters.
NEEDS: Final = (
    *("pytest>=9,<10", "pytest-asyncio", "pytest-mock", "pytest-socket", "pytest-benchmark"),
    *("pytest-codspeed", "pytest-dotenv", "pytest-repeat", "pytest-xdist", "syrupy>=5,<6"),
    *("blockbuster", "freezegun", "grandalf", "numpy", "responses", "toml", "httpx", "pyyaml"),
    *("langchain-tests", "langchain-text-splitters", "langchain-openai", "langchain-anthropic"),
    *("langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg[binary]"),
    *("pycryptodome", "redis", "genai-prices"),
)

#: Counters of `dropped` that these suites raise with any exact meter, and why.
EXPLAINED: Final = {
    "clamped": "tests without a provider end within the first bucket of a histogram",
    "duplicate_start": "suites that fix uuid4 use one run id for several runs at once",
    "duplicate_end": "those runs end once each",
    "runs_orphaned": "a reader that raises cancels its agent; LangChain ends no model call then",
    "shared_run_id": "langchain-core tests a parent and a child with one run id",
    "warnings": "a warning of one kind is logged ten times, then counted",
    "end_without_start": "langchain#39633: an inline handler hides on_llm_start of async texts",
}

#: How often tests that differ run again.
RERUNS: Final = 2


@dataclass(frozen=True)
class Suite:
    """Tests of one package: its name, what of its tests is run, and options of pytest."""

    package: str
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()


SUITES: Final = (
    Suite("langchain-core", ("tests/unit_tests",), ("--disable-socket", "--allow-unix-socket")),
    Suite("langchain", ("tests/unit_tests/agents",), ("--disable-socket", "--allow-unix-socket")),
    Suite("langgraph", ("tests/test_pregel.py", "tests/test_pregel_async.py")),
)


def source_of(package: str) -> Path:
    """Return the unpacked source distribution of the installed version, fetched if need be."""
    name = f"{package.replace('-', '_')}-{version(package)}"
    folder = HOME / name
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
        command += [":all:", "--dest", str(HOME), f"{package}=={version(package)}"]
        subprocess.run(command, check=True)
        with tarfile.open(HOME / f"{name}.tar.gz") as archive:
            archive.extractall(HOME, filter="data")
    return folder


def environment() -> Path:
    """Return the Python of an environment with what the suites need, made if need be."""
    python = HOME / "venv" / "bin" / "python"
    ready = HOME / "venv" / "ready"
    wanted = [f"{suite.package}=={version(suite.package)}" for suite in SUITES] + [*NEEDS]
    if not ready.exists() or ready.read_text() != "\n".join(wanted):
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", str(python.parents[1])], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
        ready.write_text("\n".join(wanted))
    return python


def run(
    suite: Suite, handler: str, python: Path, tests: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what the plugin wrote about one run of a suite, or of some tests of it."""
    results = HOME / f"{suite.package}-{handler}.json"
    results.unlink(missing_ok=True)
    here = Path(__file__).parent
    command = [str(python), "-m", "pytest", "-p", "peer_plugin", "-p", "no:cacheprovider"]
    command += ["-q", "-o", "addopts=", "--tb=no", *suite.options, *(tests or suite.paths)]
    environ = {
        **os.environ,
        "PEER_HANDLER": handler,
        "PEER_RESULTS": str(results),
        "LANGSMITH_TRACING": "false",
        "NO_DOCKER": "true",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "python"), str(here))),
    }
    done = subprocess.run(
        command,
        check=False,
        cwd=source_of(suite.package),
        env=environ,
        capture_output=True,
        text=True,
    )
    if not results.exists():
        raise SystemExit(f"{suite.package} with {handler} did not run:\n{done.stdout[-4000:]}")
    found: dict[str, Any] = json.loads(results.read_text())
    return found


def main() -> int:
    """Compare every suite; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("--only", choices=[suite.package for suite in SUITES])
    options = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    python = environment()
    wrong = 0
    for suite in SUITES:
        if options.only not in (None, suite.package):
            continue
        floor, ours = (run(suite, handler, python) for handler in ("empty", "meter"))
        wrong += report(suite, floor, ours, unequal(suite, floor, ours, python))
    return bool(wrong)


def unequal(
    suite: Suite, floor: dict[str, Any], ours: dict[str, Any], python: Path
) -> dict[str, tuple[str, str]]:
    """Return outcomes with either handler, of the tests that end otherwise in each of the runs."""

    def compared(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
        pairs = {
            test: (before.get(test, "missing"), after.get(test, "missing"))
            for test in {**before, **after}
        }
        return {test: pair for test, pair in pairs.items() if len(set(pair)) > 1}

    differing = compared(floor["outcomes"], ours["outcomes"])
    for _ in range(RERUNS):
        if not differing:
            break
        tests = sorted(differing)
        again = compared(*(run(suite, h, python, tests)["outcomes"] for h in ("empty", "meter")))
        # Only what differs in the same way: a test that fails with either handler is unsteady.
        differing = {test: pair for test, pair in differing.items() if again.get(test) == pair}
    return differing


def report(
    suite: Suite,
    floor: dict[str, Any],
    ours: dict[str, Any],
    differing: dict[str, tuple[str, str]],
) -> int:
    """Print how the runs of a suite compare; returns the number of things that are wrong."""
    before, after = floor["outcomes"], ours["outcomes"]
    unsteady = sum(before.get(test) != after.get(test) for test in {**before, **after})
    unsteady -= len(differing)
    unexplained = {name: n for name, n in ours["dropped"].items() if name not in EXPLAINED}
    counts = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(Counter(after.values()).items()))
    print(f"{suite.package} {version(suite.package)}: {counts}; {ours['calls']:,} model calls")
    if unsteady:
        print(f"  {unsteady} more differed once, and not when they ran again")
    for test, (was, now) in sorted(differing.items()):
        print(f"  {test}: {was} with an empty handler, {now} with a meter")
    if ours["in_flight"][1]:
        print(f"  {ours['in_flight'][1]} runs in flight after their age")
    for name, n in ours["dropped"].items():
        why = EXPLAINED.get(name, f"unexplained; first in {ours['dropped_in'][name]}")
        print(f"  dropped {name}: {n:,} ({why})")
    return len(differing) + bool(ours["in_flight"][1]) + len(unexplained)


if __name__ == "__main__":
    sys.exit(main())
