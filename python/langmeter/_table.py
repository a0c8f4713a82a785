"""Figures as people read them, and rows of them as a plain text table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langmeter.snapshot import ModelStats, Snapshot

#: What stands where there is no figure.
NOTHING = "-"


def duration(seconds: float) -> str:
    """Seconds in the unit that shows three digits: `812 µs`, `34.5 ms`, `1.20 s`, `5 m 03 s`."""
    if math.isnan(seconds):
        return NOTHING
    if seconds >= 99.95:
        whole = round(seconds)
        return f"{whole // 60} m {whole % 60:02d} s"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * scale or unit == "µs":
            value = seconds / scale
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def count(n: int) -> str:
    """A count with separators, above ten million in millions: `12,345`, `34.6 M`."""
    return f"{n:,}" if n < 10_000_000 else f"{n / 1e6:,.1f} M"


def money(usd: Decimal | None) -> str:
    """US dollars with four digits that count; `-` while unpriced."""
    if usd is None:
        return NOTHING
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if abs(usd) >= 100 else f"${usd:.{max(2, 3 - usd.adjusted())}f}"


def rate(per_second: float) -> str:
    """Events per second with about three digits."""
    if per_second == 0:
        return "0"
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.2f}"


def lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, widest: int = 40
) -> Iterable[str]:
    """Lay out a table: first column to the left, the others to the right, two spaces between.

    A first cell wider than `widest` is cut in the middle, where names of models differ least.
    """
    cells = [list(header), *(list(row) for row in rows)]
    for row in cells:
        row[0] = _cut(row[0], widest)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)


def _cut(text: str, widest: int) -> str:
    if len(text) <= widest:
        return text
    head = (widest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (widest - 1 - head) :]}"


#: Columns of `rows`.
HEADER = (
    *("model", "calls", "errors", "in", "out", "cost"),
    *("p50", "p95", "p99", "TTFT p50", "per s"),
)
_QUANTILES = (0.5, 0.95, 0.99)


def rows(snapshot: Snapshot) -> list[tuple[str, ...]]:
    """Figures of each model under `HEADER`, the busiest first; totals where there are several."""
    busiest = sorted(snapshot.models.items(), key=lambda item: (-item[1].calls, item[0]))
    shown = [_row("/".join(filter(None, key)) or "unknown", stats) for key, stats in busiest]
    if len(shown) > 1:
        shown.append(_row("total", snapshot.totals))
    return shown


def _row(name: str, stats: ModelStats) -> tuple[str, ...]:
    minute = stats.rates.get(60)
    return (
        name,
        count(stats.calls),
        count(stats.errors),
        count(stats.tokens.input),
        count(stats.tokens.output),
        money(stats.cost),
        *(duration(stats.latency.quantile(q)) for q in _QUANTILES),
        duration(stats.time_to_first_token.quantile(0.5)),
        rate(minute.requests) if minute else NOTHING,
    )


def text(snapshot: Snapshot) -> str:
    """Models, components, and what neither of them shows, as plain text of about 110 columns."""
    shown = rows(snapshot)
    blocks = ["\n".join(lines(HEADER, shown)) if shown else "no model calls metered"]
    if snapshot.components:
        blocks.append("\n".join(_components(snapshot)))
    notes = []
    if snapshot.in_flight:
        notes.append(f"in flight: {snapshot.in_flight:,}")
    outcomes = snapshot.totals.outcomes.items()
    others = {name: n for name, n in outcomes if n and name not in ("ok", "error")}
    if others:
        notes.append("neither ok nor error: " + _named(others))
    if snapshot.dropped:
        notes.append("dropped: " + _named(snapshot.dropped))
    if notes:
        blocks.append("\n".join(notes))
    return "\n\n".join(blocks)


def _components(snapshot: Snapshot) -> Iterable[str]:
    busiest = sorted(snapshot.components.items(), key=lambda item: (-item[1].calls, item[0]))
    shown = (
        (
            f"{kind} {name}",
            count(stats.calls),
            count(stats.errors),
            *(duration(stats.latency.quantile(q)) for q in _QUANTILES),
        )
        for (kind, name), stats in busiest
    )
    return lines(("component", "calls", "errors", "p50", "p95", "p99"), shown)


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items()))
