"""Where the time of a pipeline goes, and what a faster part of it would give.

The recorder keeps the runs under a root until that ends. Then it adds to each component and model
its part of the root's critical path, and what the root would have lost had that one been twice as
fast. Here these sums become a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from langmeter._base.text import (
    MAX_ROWS,
    NOTHING,
    format_count,
    format_duration,
    plural,
    render_table,
    short_name,
)
from langmeter.snapshot import ComponentStats, Distribution, ModelStats, Snapshot

#: Kinds of components that have no row: models stand for `llm`, and a fix is not a run.
_ABSENT: Final = ("llm", "fix")
#: Part of the pipelines' time that may be missing without a word: less than the table can show.
_UNSEEN: Final = 0.0005

_HEADER: Final = (
    *("component", "calls", "p50", "p95", "self", "self p50", "self p95"),
    *("critical", "2x saves", "a run"),
)
_KEY: Final = (
    "self: time in it and no run under it. critical: its part of the pipelines' critical paths.\n"
    "2x saves: what the pipelines would take less, were its own time halved; and one of them."
)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A component or a model, and its part in the time of the pipelines it ran in.

    Attributes:
        kind: chain, node, agent, tool, retriever; or model, in place of the runs that called it.
        name: the component's, or `provider/model`.
        calls: ended runs, whatever their outcome,
        abandoned: calls among them without an end event.
        latency: start to end, seconds.
        self_time: own time of a run, seconds: without what ran under it, parallel runs once.
        self_seconds: own time of all runs.
        critical_seconds: its time on the critical paths of all root runs,
        critical_share: as a part of 1 of the time of all root runs; nan when that is 0.
        saved_seconds: what all root runs would have taken less, had its own time been half as long,
        saved_per_run: for a root run, mean; nan when there was none,
        saved_share: and as a part of 1 of their time; nan when that is 0.
    """

    kind: str
    name: str
    calls: int
    abandoned: int
    latency: Distribution
    self_time: Distribution
    self_seconds: float
    critical_seconds: float
    critical_share: float
    saved_seconds: float
    saved_per_run: float
    saved_share: float


def bottlenecks(snapshot: Snapshot) -> tuple[Bottleneck, ...]:
    """Everything that took time: the greatest part of the critical path first, then own time."""
    seconds, runs = snapshot.pipeline_seconds, snapshot.pipeline_runs
    rows = [
        _bottleneck(kind, name, stats, seconds, runs)
        for (kind, name), stats in snapshot.components.items()
        if kind not in _ABSENT
    ]
    rows += [
        _bottleneck("model", "/".join(filter(None, key)) or "unknown", stats, seconds, runs)
        for key, stats in snapshot.models.items()
    ]
    timed = (one for one in rows if one.calls)
    return tuple(
        sorted(timed, key=lambda b: (-b.critical_seconds, -b.self_seconds, b.kind, b.name))
    )


def _bottleneck(
    kind: str, name: str, stats: ComponentStats | ModelStats, seconds: float, runs: int
) -> Bottleneck:
    saved = stats.saved_if_twice_seconds
    return Bottleneck(
        kind,
        name,
        stats.calls,
        stats.outcomes["abandoned"],
        stats.latency,
        stats.self_time,
        stats.self_seconds,
        stats.critical_seconds,
        _part(stats.critical_seconds, seconds),
        saved,
        _part(saved, runs),
        _part(saved, seconds),
    )


def _part(n: float, of: float) -> float:
    return n / of if of else float("nan")


def unattributed(snapshot: Snapshot) -> float:
    """Seconds of root runs that no component's critical path accounts for.

    They are of trees of more than 512 runs, or whose runs had made room for later ones.
    """
    attributed = sum(one.critical_seconds for one in bottlenecks(snapshot))
    return max(0.0, round(snapshot.pipeline_seconds - attributed, 9))


def text(snapshot: Snapshot, width: int | None = None) -> str:
    """Format the table as plain text; one line when no pipeline has ended.

    A table wider than `width` columns is divided; without a limit it takes about 110.
    """
    seconds, runs = snapshot.pipeline_seconds, snapshot.pipeline_runs
    if not runs:
        return "no pipeline has ended: there is no time to account for"
    title = f"where the time went: {plural(runs, 'pipeline')}, {format_duration(seconds)}"
    if runs > 1:
        title += f" in all, {format_duration(seconds / runs)} each"
    rows_all = bottlenecks(snapshot)
    rows = [_row(one) for one in rows_all[:MAX_ROWS]]
    blocks = [title, "\n".join(render_table(_HEADER, rows, width)), _KEY]
    blocks += ["\n".join(notes)] if (notes := list(_notes(snapshot, rows_all))) else []
    return "\n\n".join(blocks)


def _row(one: Bottleneck) -> tuple[str, ...]:
    return (
        f"{one.kind} {short_name(one.name)}",
        format_count(one.calls),
        *(format_duration(one.latency.quantile(q)) for q in (0.5, 0.95)),
        _time(one.self_seconds),
        *(format_duration(one.self_time.quantile(q)) for q in (0.5, 0.95)),
        _percent(one.critical_share),
        _percent(one.saved_share),
        _time(one.saved_per_run),
    )


def _time(seconds: float) -> str:
    return format_duration(seconds) if seconds else NOTHING


def _percent(share: float) -> str:
    return NOTHING if share != share else f"{share:.1%}"


def _notes(snapshot: Snapshot, found: tuple[Bottleneck, ...]) -> Iterable[str]:
    if len(found) > MAX_ROWS:
        yield f"and {len(found) - MAX_ROWS:,} more, each with less of the critical path"
    if abandoned := [one for one in found if one.abandoned]:
        named = ", ".join(
            f"{one.kind} {short_name(one.name)} {one.abandoned:,} of {one.calls:,}"
            for one in abandoned[:MAX_ROWS]
        )
        yield f"abandoned, their time not known: {named}"
    missing = unattributed(snapshot)
    if missing > _UNSEEN * snapshot.pipeline_seconds:
        yield (
            f"unattributed: {format_duration(missing)} "
            f"({missing / snapshot.pipeline_seconds:.1%}) of pipelines too large to follow"
        )


def to_dict(snapshot: Snapshot) -> dict[str, Any]:
    """The table as plain lists, dicts, strings and numbers; seconds, None for no figure."""
    return {
        "pipeline_runs": snapshot.pipeline_runs,
        "pipeline_seconds": snapshot.pipeline_seconds,
        "unattributed_seconds": unattributed(snapshot),
        "bottlenecks": [_shown(one) for one in bottlenecks(snapshot)],
    }


def _shown(one: Bottleneck) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "calls": one.calls,
        "abandoned": one.abandoned,
        **{
            f"{name}_p{q}": _figure(distribution.quantile(q / 100))
            for name, distribution in (("latency", one.latency), ("self_time", one.self_time))
            for q in (50, 95)
        },
        "self_seconds": one.self_seconds,
        "critical_seconds": one.critical_seconds,
        "critical_share": _figure(one.critical_share),
        "saved_seconds": one.saved_seconds,
        "saved_per_run": _figure(one.saved_per_run),
        "saved_share": _figure(one.saved_share),
    }


def _figure(n: float) -> float | None:
    return None if n != n else n


def to_json(snapshot: Snapshot, *, indent: int | None = None) -> str:
    """`to_dict` as JSON."""
    return json.dumps(to_dict(snapshot), indent=indent, ensure_ascii=False, allow_nan=False)
