"""The two tables, as text for a terminal and as Markdown for the README."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benches.model import TOKENS
from benches.peers import EMPTY, METER, NAIVE, NONE, USAGE
from benches.rows import Row
from benches.speed import WORKLOADS, Matrix

_TITLES = {workload.name: workload.title for workload in WORKLOADS}


def targets(matrix: Matrix) -> list[Row]:
    """What the matrix says about the targets; a row for each that was measured."""
    rows = []
    have = {name for name in matrix.workloads if {NONE, EMPTY, METER} <= set(matrix.handlers)}
    for workload, what in (("token", "a streamed token"), ("atoken", "a streamed token, async")):
        if workload in have:
            ratio = matrix.ratio(workload, METER)
            ours, floor = (matrix.added(workload, name) * 1e9 for name in (METER, EMPTY))
            rows.append(
                Row(
                    f"{what}, added",
                    "at most 1.15 × the empty handler",
                    f"{ours:,.0f} ns, empty {floor:,.0f}: × {ratio:.2f}",
                    ratio <= 1.15,
                )
            )
    for workload in ("stream", "astream", "long_stream", "long_astream"):
        if workload in have:
            ratio = matrix.ratio(workload, METER)
            ours, floor = (matrix.added(workload, name) * 1e6 for name in (METER, EMPTY))
            rows.append(
                Row(
                    f"whole {_TITLES[workload]}, added",
                    "at most 1.15 × the empty handler",
                    f"{ours:,.0f} µs, empty {floor:,.0f}: × {ratio:.2f}",
                    ratio <= 1.15,
                )
            )
    if "astream" in have:
        ours = matrix.added("astream", METER)
        floor = matrix.added("astream", EMPTY)
        for peer, part in ((USAGE, 10), (NAIVE, 50)):
            if peer in matrix.handlers:
                times = matrix.added("astream", peer) / max(ours, 1e-9)
                most = matrix.added("astream", peer) / max(floor, 1e-9)
                rows.append(
                    Row(
                        f"astream of {TOKENS}, added",
                        f"at most 1/{part} of {peer}",
                        f"1/{times:.0f} (an empty handler: 1/{most:.0f})",
                        times >= part,
                    )
                )
    for workload in ("invoke", "threads", "tasks", "run"):
        if workload in have:
            over = matrix.over_empty(workload, METER)
            rows.append(
                Row(
                    f"{_TITLES[workload]}, added over the empty handler",
                    "at most 8 µs a call, by the 10th percentile",
                    f"{over.tenth * 1e6:.1f} µs (minimum {over.least * 1e6:.1f}, "
                    f"median {over.median * 1e6:.1f})",
                    over.tenth <= 8e-6,
                )
            )
    return rows


def _amount(seconds: float) -> str:
    micros = seconds * 1e6
    return f"{micros:,.0f}" if micros >= 100 else f"{micros:.{1 if micros >= 10 else 2}f}"


def _matrix(matrix: Matrix) -> list[list[str]]:
    lines = [["added µs (× empty)", *(_TITLES[name] for name in matrix.columns)]]
    for handler in matrix.handlers:
        line = [handler]
        for workload in matrix.columns:
            if handler == NONE:
                line.append(f"({_amount(matrix.best(workload, NONE))} in all)")
            else:
                cell = _amount(matrix.added(workload, handler))
                if EMPTY in matrix.handlers:
                    cell += f" ({matrix.ratio(workload, handler):.2f})"
                line.append(cell)
        lines.append(line)
    return lines


_HOLDS = {True: "yes", False: "NO", None: ""}


def _rows(rows: Sequence[Row]) -> list[list[str]]:
    return [
        ["what", "to reach", "measured", "holds"],
        *([row.what, row.target, row.measured, _HOLDS[row.holds]] for row in rows),
    ]


def _text(lines: list[list[str]], numbers: bool) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines = [lines[0], ["─" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _markdown(lines: list[list[str]], numbers: bool) -> str:
    rule = ["---", *("--:" if numbers else "---" for _ in lines[0][1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _processor() -> str:
    """Model and second-level cache of the processor, where Linux reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
        caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
        size = next(
            (cache / "size").read_text().strip()
            for cache in caches
            if (cache / "level").read_text().strip() == "2"
        )
    except (OSError, StopIteration):
        return platform.machine()
    return f"{model} with {size.removesuffix('K')} KB of L2"


def conditions() -> str:
    """Versions and the kind of machine."""
    return (
        f"Python {platform.python_version()}, langchain-core {version('langchain-core')}, "
        f"{sys.platform} on {_processor()}, {os.cpu_count()} cores"
    )


def render(matrix: Matrix, rows: Sequence[Row], *, markdown: bool) -> str:
    """Both tables; an empty one is left out."""
    form = _markdown if markdown else _text
    parts = []
    if matrix.samples:
        rounds = [len(samples) for samples in matrix.samples.values()]
        parts.append(
            f"What a handler adds to a call, µs: fastest of {min(rounds):,} to {max(rounds):,} "
            f"interleaved rounds. {conditions()}."
        )
        parts.append(form(_matrix(matrix), True))
    if rows:
        parts.append(form(_rows(rows), False))
    return "\n\n".join(parts)


def as_dict(matrix: Matrix, rows: Sequence[Row]) -> dict[str, object]:
    """All figures, times in seconds a unit."""
    return {
        "conditions": conditions(),
        "speed": [
            {
                "workload": workload,
                "handler": handler,
                "rounds": len(matrix.samples[workload, handler]),
                "best": matrix.best(workload, handler),
                "over empty": matrix.over_empty(workload, handler)._asdict(),
                "added": matrix.added(workload, handler),
            }
            for workload, handler in matrix.samples
        ],
        "rows": [
            {"what": r.what, "to reach": r.target, "measured": r.measured, "holds": r.holds}
            for r in rows
        ],
    }
