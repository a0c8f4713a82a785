"""The two tables, as text for a terminal and as Markdown for the README."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

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
    for workload, what in (("invoke", "invoke"), ("run", "start + end alone, in the cache")):
        if workload in have:
            over = matrix.added(workload, METER) - matrix.added(workload, EMPTY)
            rows.append(
                Row(
                    f"{what}, added over the empty handler",
                    "at most 8 µs",
                    f"{over * 1e6:.1f} µs",
                    over <= 8e-6,
                )
            )
    return rows


def _amount(seconds: float) -> str:
    micros = seconds * 1e6
    return f"{micros:,.0f}" if micros >= 100 else f"{micros:.{1 if micros >= 10 else 2}f}"


def _matrix(matrix: Matrix) -> list[list[str]]:
    lines = [["added µs (× empty)", *(_TITLES[name] for name in matrix.workloads)]]
    for handler in matrix.handlers:
        line = [handler]
        for workload in matrix.workloads:
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


def conditions() -> str:
    """Versions and the kind of machine."""
    return (
        f"Python {platform.python_version()}, langchain-core {version('langchain-core')}, "
        f"{sys.platform} on {platform.machine()}"
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
                "median": matrix.usual(workload, handler),
                "added": matrix.added(workload, handler),
            }
            for workload, handler in matrix.samples
        ],
        "rows": [
            {"what": r.what, "to reach": r.target, "measured": r.measured, "holds": r.holds}
            for r in rows
        ],
    }
