"""Figures as people read them, and rows of them as a plain text table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, TypeVar

from langmeter._base.text import printable, shorten, text_width

if TYPE_CHECKING:
    from langmeter.snapshot import Anomaly, CallStats, ComponentStats, Snapshot

_Key = TypeVar("_Key", bound=tuple[str, str])
_Stats = TypeVar("_Stats", bound="ComponentStats | CallStats")

#: What stands where there is no figure.
NOTHING = "-"
#: Columns that the longest name takes; rows of models and of components, of labels, failures and
#: anomalies that are shown.
WIDEST = 48
MOST = 40
FEW = 10
#: What is counted as dropped and was no loss: an event that had been counted before.
_IGNORED = ("duplicate_start", "duplicate_end")


def duration(seconds: float) -> str:
    """Format seconds with three digits: `812 µs`, `34.5 ms`, `1.20 s`, `5 m 03 s`, `2 h 05 m`."""
    if math.isnan(seconds):
        return NOTHING
    if seconds >= 99.95:
        whole = round(seconds)
        if whole < 3600:
            return f"{whole // 60} m {whole % 60:02d} s"
        minutes = round(seconds / 60)
        if minutes < 1440:
            return f"{minutes // 60} h {minutes % 60:02d} m"
        hours = round(seconds / 3600)
        return f"{hours // 24:,} d {hours % 24:02d} h"
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


def counted(n: int, noun: str) -> str:
    """A count of something: `1 call`, `1,234 calls`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def label(name: str) -> str:
    """Escape a name as `printable` does, and cut its middle out beyond `WIDEST` columns."""
    return shorten(printable(name), WIDEST)


def lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None
) -> Iterator[str]:
    """Lay out a table: first column to the left, the others to the right, two spaces between.

    A table wider than `width` columns becomes several, one below the other, each with the first
    column and as many of the others as fit; None for one table whatever its width.
    """
    cells = [header, *rows]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    for part, places in enumerate(_parts(widths, width)):
        if part:
            yield ""
        for number, row in enumerate(cells):
            padding = [" " * (widths[place] - text_width(row[place])) for place in places]
            first, *others = zip(places, padding, strict=True)
            texts = [row[first[0]] + first[1], *(space + row[place] for place, space in others)]
            yield "  ".join(texts).rstrip()
            if number == 0:
                yield "  ".join("-" * widths[place] for place in places)


def _parts(widths: Sequence[int], width: int | None) -> Iterator[list[int]]:
    """Divide the columns of a table into groups that fit; the first column is in each."""
    group, used = [0], widths[0]
    for place in range(1, len(widths)):
        if width is not None and used + 2 + widths[place] > width and len(group) > 1:
            yield group
            group, used = [0], widths[0]
        group.append(place)
        used += 2 + widths[place]
    yield group


#: Columns of `rows`.
HEADER = (
    *("model", "calls", "errors", "in", "out", "cost"),
    *("p50", "p95", "p99", "TTFT p50", "per s"),
)
_QUANTILES = (0.5, 0.95, 0.99)


def rows(snapshot: Snapshot) -> list[tuple[str, ...]]:
    """Figures of the busiest models under `HEADER`, and totals where there are several."""
    shown = [
        _row(label("/".join(filter(None, key)) or "unknown"), stats)
        for key, stats in _busiest(snapshot.models)
    ]
    shown += _more(snapshot.models, len(HEADER))
    if len(shown) > 1:
        shown.append(_row("total", snapshot.totals))
    return shown


def _busiest(series: Mapping[_Key, _Stats], most: int = MOST) -> list[tuple[_Key, _Stats]]:
    return sorted(series.items(), key=lambda item: (-item[1].calls, item[0]))[:most]


def _more(series: Sized, columns: int, most: int = MOST) -> list[tuple[str, ...]]:
    more = len(series) - most
    return [(f"… and {more:,} more", *[""] * (columns - 1))] if more > 0 else []


def _row(name: str, stats: CallStats) -> tuple[str, ...]:
    minute = stats.rates.get(60)
    return (
        name,
        count(stats.calls),
        count(stats.errors),
        count(stats.tokens.input),
        count(stats.tokens.output),
        _cost(stats),
        *(duration(stats.latency.quantile(q)) for q in _QUANTILES),
        duration(stats.time_to_first_token.quantile(0.5)),
        rate(minute.requests) if minute else NOTHING,
    )


def _cost(stats: CallStats) -> str:
    at_least = "≥ " if stats.cost is not None and stats.unpriced_calls else ""
    return at_least + money(stats.cost)


_Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def text(snapshot: Snapshot, width: int | None = None) -> str:
    """Format models, components, and what neither of them shows, as plain text.

    A table wider than `width` columns is divided, see `lines`; without a limit the widest takes
    about 110. A part that has nothing to say is left out.
    """
    blocks = ["\n".join(lines(*table, width)) for table in _tables(snapshot)]
    if not snapshot.models:
        blocks.insert(0, _NO_CALLS)
    if notes := _all_notes(snapshot):
        blocks.append("\n".join(notes))
    return "\n\n".join(blocks)


_NO_CALLS = "no model calls metered"


def html(snapshot: Snapshot) -> str:
    """Format the same as HTML tables and paragraphs, for notebooks; names are escaped."""
    blocks = [_html_table(*table) for table in _tables(snapshot)]
    if not snapshot.models:
        blocks.insert(0, f"<p>{_NO_CALLS}</p>")
    return "\n".join([*blocks, *(f"<p>{escape(note)}</p>" for note in _all_notes(snapshot))])


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', header)}</thead><tbody>{body}</tbody></table>"


def _tables(snapshot: Snapshot) -> Iterator[_Table]:
    """Return the header and the rows of each table that has any."""
    if models := rows(snapshot):
        yield HEADER, models
    if snapshot.labels:
        yield _labels(snapshot)
    if snapshot.components:
        yield _components(snapshot)
    if snapshot.failures:
        yield _failures(snapshot)


def _all_notes(snapshot: Snapshot) -> list[str]:
    return [*_changes(snapshot), *_money_notes(snapshot), *_notes(snapshot)]


def _money_notes(snapshot: Snapshot) -> Iterable[str]:
    totals = snapshot.totals
    unpriced = [n for stats in snapshot.models.values() if (n := stats.unpriced_calls)]
    if unpriced:
        yield (
            f"unpriced: {counted(sum(unpriced), 'call')} of {counted(len(unpriced), 'model')}; "
            "ask `langmeter prices MODEL`, or set own prices in a PriceBook"
        )
    wasted = {outcome: totals.cost_of(outcome) for outcome in ("error", "cancelled")}
    named = ", ".join(f"{outcome} {money(usd)}" for outcome, usd in wasted.items() if usd)
    if named:
        yield f"of the cost, for calls that gave no answer: {named}"
    if totals.billed is not None:
        yield f"billed, as providers say: {money(totals.billed)} for {_calls(totals.billed_calls)}"
    if totals.tokens.estimated:
        of, estimated = totals.tokens.total, totals.tokens.estimated
        yield f"estimated: {count(estimated)} of {count(of)} tokens; no provider told them"
    if totals.tokens.saved:
        yield f"saved by the response cache: {counted(totals.tokens.saved, 'token')}"


def _notes(snapshot: Snapshot) -> Iterable[str]:
    totals = snapshot.totals
    if snapshot.in_flight or snapshot.peak_in_flight > 1:
        yield f"in flight: {snapshot.in_flight:,}, at most {snapshot.peak_in_flight:,}"
    outcomes = totals.outcomes.items()
    others = {name: n for name, n in outcomes if n and name not in ("ok", "error")}
    if others:
        yield "neither ok nor error: " + _named(others)
    if totals.retried_calls:
        spent = f" for {money(totals.retried_cost)}" if totals.retried_cost else ""
        yield f"made again: {_calls(totals.retried_calls)}{spent}"
    if totals.recovered:
        yield f"recovered by a retry or a fallback: {_calls(totals.recovered)}"
    if totals.truncated:
        yield f"truncated at the limit of their length: {counted(totals.truncated, 'answer')}"
    if totals.stalls:
        yield f"streams that stopped for long: {counted(totals.stalls, 'time')}"
    dropped = dict(snapshot.dropped)
    ignored = {name: dropped.pop(name) for name in _IGNORED if name in dropped}
    if dropped:
        yield "dropped: " + _named(dropped)
    if ignored:
        yield "ignored: " + _named(ignored)


def _calls(n: int) -> str:
    return counted(n, "call")


def _labels(snapshot: Snapshot) -> _Table:
    """As the models, without what is not measured by label."""
    width = HEADER.index("p99") + 1
    shown = [
        _row(label_name(key, value), stats)[:width]
        for (key, value), stats in _busiest(snapshot.labels, FEW)
    ]
    header = ("label", *HEADER[1:width])
    return header, [*shown, *_more(snapshot.labels, width, FEW)]


def label_name(key: str, value: str) -> str:
    """Format a label: `team=search`; `team=(none)` is the row of the calls without a value."""
    return label(f"{key}={value or '(none)'}")


def _failures(snapshot: Snapshot) -> _Table:
    most = sorted(snapshot.failures.items(), key=lambda item: (-item[1], item[0]))[:FEW]
    shown = [(f"{label(who)}: {label(how)}", count(n)) for (who, how), n in most]
    return ("failure", "times"), [*shown, *_more(snapshot.failures, 2, FEW)]


def _changes(snapshot: Snapshot) -> Iterable[str]:
    """The latest anomalies."""
    for change in snapshot.anomalies[-FEW:]:
        name = label("/".join(filter(None, (change.provider, change.model))) or "unknown")
        before, after = (_figure(change, value) for value in (change.before, change.after))
        when = f"{change.at:%Y-%m-%d %H:%M:%S} UTC"
        yield f"changed: {label(change.metric)} of {name}, {before} to {after}, at {when}"


def _figure(change: Anomaly, value: float) -> str:
    """A figure in the unit of its metric."""
    if change.metric == "latency":
        return duration(value)
    if change.metric == "cost_per_call":
        return money(Decimal(f"{value:.6f}"))
    return f"{value:.1%}" if change.metric == "error_rate" else f"{value:,.1f}"


def _components(snapshot: Snapshot) -> _Table:
    shown: list[tuple[str, ...]] = [
        (
            label(f"{kind} {name}"),
            count(stats.calls),
            count(stats.errors),
            *(duration(stats.latency.quantile(q)) for q in _QUANTILES),
        )
        for (kind, name), stats in _busiest(snapshot.components)
    ]
    header = ("component", "calls", "errors", "p50", "p95", "p99")
    return header, [*shown, *_more(snapshot.components, len(header))]


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label(name)} {n:,}" for name, n in sorted(counts.items()))
