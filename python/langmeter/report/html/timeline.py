"""The part of a report about time: lines of what a history has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from langmeter._base.spans import Moment
from langmeter._base.text import plural, short_name
from langmeter.analysis.metrics import model_name
from langmeter.report.html.lines import MOST, Lines, Unit, step_of
from langmeter.report.html.markup import Child, Section, figure, section
from langmeter.snapshot import Snapshot

if TYPE_CHECKING:
    from langmeter.history import Excerpt, Row, Rows

#: Shortest step: what histories keep unless a meter's settings say otherwise.
_SHORTEST: Final = 60


class Series(Protocol):
    """Span of a history."""

    def query(self, metrics: Sequence[str], *, by: Sequence[str], step: int) -> Sequence[Rows]:
        """Return each figure by time."""


@runtime_checkable
class ByTime(Protocol):
    """Source that keeps figures by time: a history."""

    def excerpt(self, since: Moment, until: Moment) -> Excerpt:
        """Return a span."""


class _Chart(NamedTuple):
    name: str
    title: str
    means: str
    action: str
    metrics: dict[str, str]
    unit: Unit
    #: Points of a line at most: what a screen can show, fewer where lines cross.
    points: int
    #: Seconds that counts and sums are given for; None for figures that are not of a length.
    rate: int | None = None
    by: tuple[str, ...] = ()


_CHARTS: Final = (
    _Chart(
        "calls",
        "Throughput: calls a minute",
        "Calls that ended in each step, by the minute, and those of them that failed.",
        "Where errors rise with the calls, a limit is reached: spread the load or ask for more.",
        {"calls": "calls", "errors": "errors"},
        "count",
        720,
        60,
    ),
    _Chart(
        "tokens",
        "Throughput: tokens a minute",
        "Tokens that models read and wrote, by the minute.",
        "Compare the peak with the tokens a minute that your provider allows.",
        {"input": "input_tokens", "output": "output_tokens"},
        "count",
        720,
        60,
    ),
    _Chart(
        "spending",
        "Spending: US dollars an hour, by model",
        "What calls cost at the pace of each step.",
        "A step up without more calls is a longer prompt, a longer answer or a dearer model.",
        {"cost": "cost"},
        "USD",
        96,
        3600,
        ("provider", "model"),
    ),
    _Chart(
        "durations",
        "Latency: percentiles by step",
        "The median and the slow end of whole calls and of first tokens (TTFT), over all models. "
        "Each is the percentile of all calls of its step; none is averaged.",
        "A p95 that leaves the p50 behind is a queue or a rate limit; both rising together is the "
        "provider or longer answers.",
        {
            "p50": "latency.p50",
            "p95": "latency.p95",
            "TTFT p50": "ttft.p50",
            "TTFT p95": "ttft.p95",
        },
        "s",
        288,
    ),
)


def timeline(series: Series | None, snapshot: Snapshot, charts: list[Lines]) -> Section:
    """Return the part about time; adds its charts.

    Args:
        series: figures by time; None where the source keeps none.
        snapshot: all of them.
        charts: of the page.

    Raises what `History.query` raises.
    """
    begin, end = snapshot.started_at, snapshot.taken_at
    if series is None:
        note = (
            "This report is of one snapshot, which holds sums and no moments: there is no axis of "
            "time. A report of a history (Meter(history=…)) has lines here."
        )
        return section("timeline", "Over time", note)
    if begin is None or end is None:
        return section("timeline", "Over time", "No call has ended.")
    content: list[Child] = []
    for chart in _CHARTS:
        step = max(step_of((end - begin).total_seconds(), chart.points), _SHORTEST)
        lines = _lines(series, chart, step)
        if lines is not None:
            charts.append(lines)
            content.append(
                figure(
                    chart.title,
                    f"{chart.means} A point is of {_length(step)}; times are UTC.",
                    lines.markup(),
                    action=chart.action,
                )
            )
    if not content:
        return section("timeline", "Over time", "No call has ended.")
    return section("timeline", "Over time", content)


def _lines(series: Series, chart: _Chart, step: int) -> Lines | None:
    named: dict[str, Sequence[Row]] = {}
    queried = series.query([*chart.metrics.values()], by=chart.by, step=step)
    for name, rows in zip(chart.metrics, queried, strict=True):
        if not chart.by:
            named[name] = rows
            continue
        groups: dict[str, list[Row]] = {}
        for row in rows:
            key = model_name((row.labels["provider"], row.labels["model"]))
            groups.setdefault(key, []).append(row)
        named.update(groups)
    moments = [row for rows in named.values() for row in rows]
    if not moments:
        return None
    first = min(_seconds(row.start) for row in moments) // step * step
    count = -(-(max(_seconds(row.end) for row in moments) - first) // step)
    lines = []
    for name, group in named.items():
        values: list[float | None] = [None if chart.rate is None else 0.0] * count
        for row in group:
            start, end = _seconds(row.start), _seconds(row.end)
            value = row.value if chart.rate is None else row.value * chart.rate / (end - start)
            # A row of hours or days, where the history keeps no finer ones, fills its steps.
            for place in range((start - first) // step, max((end - first) // step, 1)):
                values[place] = value
        lines.append((short_name(name), values))
    if chart.by:
        lines = _greatest(lines)
    x = [float(first + step * place) for place in range(count)]
    return Lines(chart.name, chart.title, x, lines, chart.unit, "time", log=chart.rate is None)


def _greatest(
    lines: list[tuple[str, list[float | None]]],
) -> list[tuple[str, list[float | None]]]:
    """Return the lines with the greatest sums, and the sum of all others as one."""
    ordered = sorted(lines, key=lambda line: -sum(value or 0 for value in line[1]))
    if len(ordered) <= MOST:
        return ordered
    rest = [values for _, values in ordered[MOST - 1 :]]
    others = [sum(value or 0 for value in column) for column in zip(*rest, strict=True)]
    return [*ordered[: MOST - 1], (f"{len(rest)} others", list(others))]


def _length(step: int) -> str:
    for seconds, noun in ((86_400, "day"), (3600, "hour")):
        if step % seconds == 0:
            return plural(step // seconds, noun)
    return plural(step // 60, "minute")


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
