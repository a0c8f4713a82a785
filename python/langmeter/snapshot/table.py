"""The report of a snapshot: its figures as plain text tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, TypeVar

from langmeter._base.text import (
    MAX_ROWS,
    MAX_SHORT_ROWS,
    NOTHING,
    format_amount,
    format_count,
    format_duration,
    format_rate,
    format_usd,
    format_used,
    label_name,
    plural,
    render_table,
    short_name,
)

if TYPE_CHECKING:
    from langmeter.snapshot import Anomaly, CallStats, ComponentStats, Snapshot

_Key = TypeVar("_Key", bound="tuple[str, str] | tuple[tuple[str, str], ...]")
_Stats = TypeVar("_Stats", bound="ComponentStats | CallStats")

#: Dropped events that lost nothing: they had been counted before.
IGNORED = ("duplicate_start", "duplicate_end")


#: Columns of `rows`.
HEADER = (
    *("model", "calls", "errors", "in", "out", "cost"),
    *("p50", "p95", "p99", "TTFT p50", "per s"),
)
_QUANTILES = (0.5, 0.95, 0.99)


def rows(snapshot: Snapshot) -> list[tuple[str, ...]]:
    """Figures of the busiest models under `HEADER`, and totals where there are several."""
    lines = [
        _row(short_name("/".join(filter(None, key)) or "unknown"), stats)
        for key, stats in _busiest(snapshot.models)
    ]
    lines += _more(snapshot.models, len(HEADER))
    if len(lines) > 1:
        lines.append(_row("total", snapshot.totals))
    return lines


def _busiest(series: Mapping[_Key, _Stats], most: int = MAX_ROWS) -> list[tuple[_Key, _Stats]]:
    return sorted(series.items(), key=lambda item: (-item[1].calls, item[0]))[:most]


def _more(series: Sized, columns: int, most: int = MAX_ROWS) -> list[tuple[str, ...]]:
    more = len(series) - most
    return [(f"… and {more:,} more", *[""] * (columns - 1))] if more > 0 else []


def _row(name: str, stats: CallStats) -> tuple[str, ...]:
    minute = stats.rates.get(60)
    return (
        name,
        format_count(stats.calls),
        format_count(stats.errors),
        format_count(stats.tokens.input),
        format_count(stats.tokens.output),
        _cost(stats),
        *(format_duration(stats.latency.quantile(q)) for q in _QUANTILES),
        format_duration(stats.time_to_first_token.quantile(0.5)),
        format_rate(minute.requests) if minute else NOTHING,
    )


def _cost(stats: CallStats) -> str:
    at_least = "≥ " if stats.cost is not None and stats.unpriced_calls else ""
    return at_least + format_usd(stats.cost)


_Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def text(snapshot: Snapshot, width: int | None = None) -> str:
    """Format models, components, and what neither of them shows, as plain text.

    A table wider than `width` columns is divided, see `render_table`; without a limit the widest
    takes about 110. A part that has nothing to say is left out.
    """
    blocks = ["\n".join(render_table(*table, width)) for table in _tables(snapshot)]
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
    if snapshot.state.budgets:
        yield _budgets(snapshot)
    if snapshot.defects:
        yield _defects(snapshot)
    if snapshot.label_rows:
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
            f"unpriced: {plural(sum(unpriced), 'call')} of {plural(len(unpriced), 'model')}; "
            "ask `langmeter prices MODEL`, or set own prices in a PriceBook"
        )
    wasted = {outcome: totals.cost_of(outcome) for outcome in ("error", "cancelled")}
    named = ", ".join(f"{outcome} {format_usd(usd)}" for outcome, usd in wasted.items() if usd)
    if named:
        yield f"spent on failed and cancelled calls: {named}"
    if totals.billed is not None:
        billed = format_usd(totals.billed)
        yield f"billed, as providers say: {billed} for {_calls(totals.billed_calls)}"
    if totals.tokens.estimated:
        estimated, total = map(format_count, (totals.tokens.estimated, totals.tokens.total))
        yield f"estimated: {estimated} of {total} tokens; no provider told them"
    if totals.tokens.saved:
        yield f"saved by the response cache: {plural(totals.tokens.saved, 'token')}"


def _notes(snapshot: Snapshot) -> Iterable[str]:
    totals = snapshot.totals
    if snapshot.in_flight or snapshot.peak_in_flight > 1:
        yield f"in flight: {snapshot.in_flight:,}, at most {snapshot.peak_in_flight:,}"
    outcomes = totals.outcomes.items()
    others = {name: n for name, n in outcomes if n and name not in ("ok", "error")}
    if others:
        yield "other outcomes: " + _named(others)
    if totals.retried_calls:
        spent = f" for {format_usd(totals.retried_cost)}" if totals.retried_cost else ""
        yield f"retried: {_calls(totals.retried_calls)}{spent}"
    if totals.recovered:
        yield f"recovered by a retry or a fallback: {_calls(totals.recovered)}"
    if totals.truncated:
        yield f"truncated at the limit of their length: {plural(totals.truncated, 'answer')}"
    if totals.stalls:
        yield f"stalls of streams: {totals.stalls:,}"
    dropped = dict(snapshot.dropped)
    ignored = {name: dropped.pop(name) for name in IGNORED if name in dropped}
    if dropped:
        yield "dropped: " + _named(dropped)
    if ignored:
        yield "ignored: " + _named(ignored)


def _calls(n: int) -> str:
    return plural(n, "call")


def _labels(snapshot: Snapshot) -> _Table:
    """Columns of the table of models, without those that are not measured by label."""
    width = HEADER.index("p99") + 1
    labels = snapshot.label_rows
    lines = [
        _row(label_name(*names), stats)[:width] for names, stats in _busiest(labels, MAX_SHORT_ROWS)
    ]
    header = ("label", *HEADER[1:width])
    return header, [*lines, *_more(labels, width, MAX_SHORT_ROWS)]


def _defects(snapshot: Snapshot) -> _Table:
    """Attempts by defect type and severity, and by model."""
    rows = sorted(snapshot.defects.items(), key=lambda row: (-row[1].attempts, row[0]))
    lines = [
        (
            short_name(" ".join(filter(None, (defect_type, severity))) or "(none)"),
            short_name("/".join(filter(None, (provider, model))) or "(none)"),
            format_count(stats.attempts),
            f"{format_count(stats.fixed)} of {format_count(stats.closed)}",
            _share(stats.success_rate),
            format_usd(stats.cost),
            format_usd(stats.cost_per_fixed),
        )
        for (defect_type, provider, model, severity), stats in rows[:MAX_ROWS]
    ]
    header = ("defect", "model", "attempts", "fixed", "rate", "cost", "a fix")
    return header, [*lines, *_more(snapshot.defects, len(header))]


def _budgets(snapshot: Snapshot) -> _Table:
    """Budgets as of the snapshot, those with the greatest part used first."""
    rows = sorted(snapshot.state.budgets, key=lambda each: (-each.share, each.name))
    lines = [
        (
            short_name(each.name),
            *map(format_amount, (each.used, each.limit)),
            format_used(each.share),
            format_amount(each.reserved),
            NOTHING if each.resets is None else f"{each.resets:%Y-%m-%d %H:%M}",
        )
        for each in rows[:MAX_SHORT_ROWS]
    ]
    header = ("budget", "used", "limit", "share", "reserved", "resets (UTC)")
    return header, [*lines, *_more(rows, len(header), MAX_SHORT_ROWS)]


def _share(share: float) -> str:
    return NOTHING if share != share else f"{share:.0%}"  # nan


def _failures(snapshot: Snapshot) -> _Table:
    most = sorted(snapshot.failures.items(), key=lambda item: (-item[1], item[0]))[:MAX_SHORT_ROWS]
    lines = [(f"{short_name(who)}: {short_name(how)}", format_count(n)) for (who, how), n in most]
    return ("failure", "times"), [*lines, *_more(snapshot.failures, 2, MAX_SHORT_ROWS)]


def _changes(snapshot: Snapshot) -> Iterable[str]:
    """The latest anomalies."""
    for change in snapshot.anomalies[-MAX_SHORT_ROWS:]:
        name = short_name("/".join(filter(None, (change.provider, change.model))) or "unknown")
        before, after = (_figure(change, value) for value in (change.before, change.after))
        when = f"{change.at:%Y-%m-%d %H:%M:%S} UTC"
        yield f"changed: {short_name(change.metric)} of {name}, {before} to {after}, at {when}"


def _figure(change: Anomaly, value: float) -> str:
    """A figure in the unit of its metric."""
    if change.metric == "latency":
        return format_duration(value)
    if change.metric in ("cost_per_call", "cost_per_fixed"):
        return format_usd(Decimal(f"{value:.6f}"))
    is_share = change.metric in ("error_rate", "success_rate")
    return f"{value:.1%}" if is_share else f"{value:,.1f}"


def _components(snapshot: Snapshot) -> _Table:
    lines: list[tuple[str, ...]] = [
        (
            short_name(f"{kind} {name}"),
            format_count(stats.calls),
            format_count(stats.errors),
            *(format_duration(stats.latency.quantile(q)) for q in _QUANTILES),
        )
        for (kind, name), stats in _busiest(snapshot.components)
    ]
    header = ("component", "calls", "errors", "p50", "p95", "p99")
    return header, [*lines, *_more(snapshot.components, len(header))]


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{short_name(name)} {n:,}" for name, n in sorted(counts.items()))
