"""Parts of a report about models: money, percentiles, first tokens, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    format_rate,
    format_usd,
    label_name,
    plural,
    short_name,
)
from langmeter.analysis.bottlenecks import bottlenecks, unattributed
from langmeter.analysis.metrics import model_name
from langmeter.report.html.lines import MOST, Lines, percentile_curves
from langmeter.report.html.markup import Child, Markup, Section, figure, paragraphs, section, table
from langmeter.report.html.shapes import bar
from langmeter.snapshot import CallStats, ModelStats, Snapshot

#: Rows of a table of models, and of the other ones.
MODELS: Final = 60
ROWS: Final = 20
_QUANTILES: Final = (0.5, 0.9, 0.95, 0.99, 0.999)


def money(snapshot: Snapshot) -> Section:
    """Return the part about what each model was called for and cost."""
    rows = _by_cost(snapshot.models)
    totals = snapshot.totals
    if not rows:
        return section("models", "Models and money", "No call has ended.")
    whole = float(totals.cost or 0)
    header = ("model", "share of cost", "cost", "a call", "calls", "errors", "in", "out", "cached")
    lines = [
        (short_name(model_name(key)), bar(_part(stats.cost, whole)), *_figures(stats))
        for key, stats in rows[:MODELS]
    ]
    models = table(
        "Calls, tokens and US dollars by model",
        header,
        lines,
        ("all models", "", *_figures(totals)) if len(rows) > 1 else None,
        class_="models",
    )
    dearest = rows[0][0]
    content: list[Child] = [
        figure(
            "Cost by model",
            "What the calls of each model cost by its price when they ended; cached is the part of "
            "the input that came from a prompt cache. “≥” marks a cost that misses unpriced calls.",
            models,
            paragraphs(_more(len(rows), MODELS, "model")),
            action=whole > 0
            and f"Start at the top: {short_name(model_name(dearest))} takes "
            f"{_part(snapshot.models[dearest].cost, whole):.0%} of the money. What would make it "
            "cost less is listed under Advice.",
        )
    ]
    if snapshot.label_rows:
        content.append(_labels(snapshot))
    return section("models", "Models and money", content, paragraphs(_spent(totals)))


def _figures(stats: CallStats) -> tuple[str, ...]:
    tokens, cost = stats.tokens, stats.cost
    at_least = "≥ " if cost is not None and stats.unpriced_calls else ""
    each = None if cost is None or not stats.priced_calls else cost / stats.priced_calls
    cached = f"{tokens.cache_read / tokens.input:.0%}" if tokens.input else NOTHING
    return (
        at_least + format_usd(cost),
        format_usd(each),
        format_count(stats.calls),
        format_count(stats.errors),
        format_count(tokens.input),
        format_count(tokens.output),
        cached,
    )


def _labels(snapshot: Snapshot) -> Markup:
    rows = sorted(snapshot.label_rows.items(), key=lambda row: (-(row[1].cost or 0), row[0]))
    lines = [(label_name(*key), *_figures(stats)) for key, stats in rows[:ROWS]]
    header = ("label", "cost", "a call", "calls", "errors", "in", "out", "cached")
    return figure(
        "Cost by label",
        "The same calls by the labels of their metadata, over all models.",
        table("Calls, tokens and US dollars by label", header, lines),
        paragraphs(_more(len(rows), ROWS, "label")),
        action="Charge each team or customer its row; “(none)” are calls without the label.",
    )


def _spent(totals: ModelStats) -> Iterator[str]:
    """Yield what part of the money is of a kind that people ask about."""
    for outcome, text in (("error", "failed"), ("cancelled", "were cancelled")):
        if spent := totals.cost_of(outcome):
            yield f"Of the cost, {format_usd(spent)} went to calls that {text}."
    if totals.retried_calls:
        cost = f", for {format_usd(totals.retried_cost)}" if totals.retried_cost else ""
        yield f"Made again by retries: {plural(totals.retried_calls, 'call')}{cost}."
    if totals.billed is not None:
        calls = plural(totals.billed_calls, "call")
        yield f"Billed, as providers state it: {format_usd(totals.billed)} for {calls}."
    if totals.tokens.estimated:
        share = totals.tokens.estimated / max(totals.tokens.total, 1)
        yield f"Estimated, because a provider sent no usage: {share:.1%} of the tokens."
    if totals.tokens.saved:
        yield f"Saved by the response cache: {plural(totals.tokens.saved, 'token')}."


def latency(snapshot: Snapshot, charts: list[Lines]) -> Section:
    """Return the part about percentiles of whole calls and of first tokens; adds its charts."""
    busy = _busiest(snapshot)
    content = []
    curves = percentile_curves(
        "latency",
        "Percentiles of call durations by model",
        [(short_name(model_name(key)), stats.latency) for key, stats in busy[:MOST]],
    )
    header = ("model", "calls", *(f"p{100 * q:g}" for q in _QUANTILES), "max")
    if curves is not None:
        charts.append(curves)
        rows = [
            (
                short_name(model_name(key)),
                format_count(stats.latency.count),
                *(format_duration(stats.latency.quantile(q)) for q in _QUANTILES),
                format_duration(stats.latency.max),
            )
            for key, stats in [*busy[:ROWS], *_total(snapshot)]
        ]
        content.append(
            figure(
                "How long calls take",
                "Each curve rises from the fastest call at the left to the slowest one at the "
                "right; each mark to the right has a tenth as many calls beyond it. A flat curve "
                "is a steady model, a step is a group of calls that another cause slows down.",
                curves.markup(),
                table("Percentiles of call durations", header, rows),
                paragraphs(_more(len(busy), ROWS, "model")),
                action=_slowest(busy),
            )
        )
    content += _first_tokens(busy, charts)
    return section("latency", "Latency", content or "No call was timed.")


def _slowest(busy: list[tuple[tuple[str, str], ModelStats]]) -> str:
    """Return what to do about the model whose slow calls differ most from its usual ones."""
    timed = [(key, row.latency) for key, row in busy if row.latency.count >= ROWS]
    advice = "Set timeouts and alerts by p99 rather than by the mean."
    if not timed:
        return advice
    key, times = max(timed, key=lambda row: row[1].quantile(0.99) / (row[1].quantile(0.5) or 1))
    ratio = times.quantile(0.99) / (times.quantile(0.5) or 1)
    return (
        f"{advice} The widest spread is that of {short_name(model_name(key))}: one call in a "
        f"hundred takes more than {ratio:.1f} times as long as the median."
    )


def _first_tokens(
    busy: list[tuple[tuple[str, str], ModelStats]], charts: list[Lines]
) -> Iterator[Markup]:
    streamed = [(key, stats) for key, stats in busy if stats.time_to_first_token.count]
    curves = percentile_curves(
        "first-token",
        "Percentiles of the time to first token by model",
        [(short_name(model_name(key)), row.time_to_first_token) for key, row in streamed[:MOST]],
    )
    if curves is None:
        return
    charts.append(curves)
    header = ("model", "streams", "TTFT p50", "TTFT p95", "between p50", "between p95", "tokens/s")
    rows = [
        (
            short_name(model_name(key)),
            format_count(stats.streamed),
            *(format_duration(stats.time_to_first_token.quantile(q)) for q in (0.5, 0.95)),
            *(format_duration(stats.inter_token_latency.quantile(q)) for q in (0.5, 0.95)),
            _rate(stats.output_tokens_per_second()),
        )
        for key, stats in streamed[:ROWS]
    ]
    yield figure(
        "Time to first token",
        "How long a reader looks at an empty answer (TTFT), the time between one piece of output "
        "and the next, and how fast the median stream writes. Streamed calls only.",
        curves.markup(),
        table("Times of streamed calls", header, rows),
        paragraphs(_more(len(streamed), ROWS, "model")),
        action="Where TTFT is long and the rest is fast, shorten or cache the prompt; where pieces "
        "come slowly, ask for less output or choose a faster model.",
    )


def where_time_goes(snapshot: Snapshot) -> Section:
    """Return the part about critical paths."""
    rows = [one for one in bottlenecks(snapshot) if one.critical_seconds or one.self_seconds]
    runs, seconds = snapshot.pipeline_runs, snapshot.pipeline_seconds
    if not runs or not rows:
        return section("time", "Where the time goes", "No pipeline has ended.")
    lines = [
        (
            f"{one.kind} {short_name(one.name)}",
            bar(one.critical_share),
            f"{one.critical_share:.1%}" if seconds else NOTHING,
            f"{one.saved_share:.1%}" if seconds else NOTHING,
            format_duration(one.saved_per_run),
            format_count(one.calls),
            *(format_duration(one.self_time.quantile(q)) for q in (0.5, 0.95)),
        )
        for one in rows[:ROWS]
    ]
    header = (
        *("component", "of the critical path", "share", "2x saves", "a run", "calls"),
        *("own p50", "own p95"),
    )
    first, missing = rows[0], unattributed(snapshot)
    notes = [*_more(len(rows), ROWS, "component")]
    if missing > 0.0005 * seconds:
        notes.append(f"{missing / seconds:.1%} of the time is of pipelines too large to follow.")
    whole = f"{plural(runs, 'pipeline')} took {format_duration(seconds)} in all"
    content = figure(
        "Critical path",
        f"{whole}, {format_duration(seconds / runs)} each. The critical path is the time that the "
        "end of a pipeline waited for; “2x saves” is what all of them would take less, were this "
        "component alone twice as fast, and “a run” the same for one.",
        table("Shares of the critical path by component", header, lines),
        paragraphs(notes),
        action=f"Work on {first.kind} {short_name(first.name)} first: twice as fast, it saves "
        f"{format_duration(first.saved_per_run)} a run. A component that has a small share here "
        "gives nothing, however slow it is.",
    )
    return section("time", "Where the time goes", content)


def _by_cost(
    models: Mapping[tuple[str, str], ModelStats],
) -> list[tuple[tuple[str, str], ModelStats]]:
    return sorted(models.items(), key=lambda row: (-(row[1].cost or 0), -row[1].calls, row[0]))


def _busiest(snapshot: Snapshot) -> list[tuple[tuple[str, str], ModelStats]]:
    rows = snapshot.models.items()
    return sorted(rows, key=lambda row: (-row[1].latency.count, row[0]))


def _total(snapshot: Snapshot) -> list[tuple[tuple[str, str], ModelStats]]:
    return [(("", "all models"), snapshot.totals)] if len(snapshot.models) > 1 else []


def _more(rows: int, most: int, noun: str) -> Iterable[str]:
    return [f"… and {plural(rows - most, f'more {noun}')}."] if rows > most else []


def _part(cost: Decimal | None, whole: float) -> float:
    return float(cost or 0) / whole if whole else 0.0


def _rate(per_second: float) -> str:
    return NOTHING if per_second != per_second else format_rate(per_second)
