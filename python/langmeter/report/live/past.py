"""Past of a source that is read each second: the last minute, and the points of charts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from langmeter.analysis.metrics import model_name
from langmeter.report.html.lines import MOST, Lines, rounded
from langmeter.report.recent import Recent
from langmeter.snapshot import Snapshot

#: Seconds that a chart goes back, and that figures of the last minute are of.
SPAN: Final = 900
WINDOW: Final = 60
#: Seconds between two choices of models.
_CHOICE: Final = 60.0
#: Seconds without a reading from which on a line has a gap.
_GAP: Final = 10.0
#: The models of a chart beyond those that have a line.
_OTHERS: Final = "all others"
#: Key of their sum in a point; names of models are not empty.
_ALL: Final = ""

_CHARTS: Final = (
    Lines("calls", "Calls a minute", (), [("calls", ()), ("errors", ())], "count", "time"),
    Lines("tokens", "Tokens a minute", (), [("input", ()), ("output", ())], "count", "time"),
    Lines("spending", "US dollars an hour, by model", (), [], "USD", "time"),
    Lines(
        "durations",
        "Percentiles of durations",
        (),
        [("p50", ()), ("p95", ()), ("TTFT p50", ()), ("TTFT p95", ())],
        "s",
        "time",
        log=True,
    ),
)
#: Values of a chart by the names of its lines.
Point: TypeAlias = Mapping[str, Mapping[str, float | None]]


class PastLines(NamedTuple):
    """Lines of the last quarter of an hour; made of its points when they are asked for.

    Attributes:
        points: moments with their values, the newest last.
        models: names of the models that have a line.
    """

    points: tuple[tuple[float, Point], ...]
    models: tuple[str, ...]

    def charts(self) -> list[Lines]:
        """Return the charts; those without a line are left out."""
        x = [at for at, _ in self.points]
        charts = []
        for chart in _CHARTS:
            if names := self._names(chart):
                rows = [self._row(chart, point) for _, point in self.points]
                lines = list(zip(names, map(list, zip(*rows, strict=True)), strict=True))
                charts.append(replace(chart, x=x, lines=lines))
        return charts

    def newest(self) -> dict[str, list[float | None]]:
        """Return the newest point of each of these charts: moment, and value of each line."""
        at, point = self.points[-1]
        return {
            chart.name: [round(at, 3), *map(rounded, self._row(chart, point))]
            for chart in _CHARTS
            if self._names(chart)
        }

    def _names(self, chart: Lines) -> Sequence[str]:
        return [name for name, _ in chart.lines] or self.models

    def _row(self, chart: Lines, point: Point) -> list[float | None]:
        names, values = self._names(chart), point.get(chart.name)
        if values is None:
            return [None for _ in names]
        if chart.lines:
            return [values[name] for name in names]
        row = [values.get(name) or 0.0 for name in names if name != _OTHERS]
        others = [max((values[_ALL] or 0.0) - sum(row), 0.0)] if _OTHERS in names else []
        return [*row, *others]


class Past:
    """Readings of a source over the last minutes.

    Attributes:
        reading: the newest one, with what was counted in about the last minute.
    """

    def __init__(self) -> None:
        self._recent = Recent(WINDOW)
        self._points: deque[tuple[float, Point]] = deque()
        self._models: tuple[str, ...] = ()
        self._chosen = 0.0
        self.reading = self._recent.add(Snapshot())

    def add(self, now: float, snapshot: Snapshot) -> None:
        """Take a reading of a moment, in Unix seconds."""
        # Without the rows that the view makes of it: a dozen of those is much to collect.
        self.reading = self._recent.add(Snapshot(snapshot._native, snapshot.state))
        if self._points and now - self._points[-1][0] > _GAP:
            self._points.append((self._points[-1][0] + 1, {}))
        self._points.append((now, self._point(snapshot)))
        while self._points[0][0] < now - SPAN:
            self._points.popleft()
        self._choose(now)

    def lines(self) -> PastLines:
        """Return the lines of the last quarter of an hour, as they are now."""
        return PastLines(tuple(self._points), self._models)

    def _point(self, snapshot: Snapshot) -> Point:
        rate, totals = snapshot.rates.get(WINDOW), self.reading.recent.totals
        point: dict[str, Mapping[str, float | None]] = {}
        if rate is not None:
            each = rate.per_minute
            point["calls"] = {"calls": each.requests, "errors": each.errors}
            point["tokens"] = {"input": each.input_tokens, "output": each.output_tokens}
        durations = {"": totals.latency, "TTFT ": totals.time_to_first_token}
        point["durations"] = {
            f"{name}p{100 * q:g}": times.quantile(q) if times.count else None
            for name, times in durations.items()
            for q in (0.5, 0.95)
        }
        if self.reading.seconds:
            pace = 3600 / self.reading.seconds
            rows = self.reading.recent.models.items()
            costs = {model_name(key): float(row.cost) * pace for key, row in rows if row.cost}
            point["spending"] = {**costs, _ALL: sum(costs.values())}
        return point

    def _choose(self, now: float) -> None:
        """Choose the models that have a line: now and then, so that lines do not come and go."""
        newest = self._points[-1][1].get("spending", {})
        has_room = len(self._models) < MOST and newest.keys() - {*self._models, _ALL}
        if not has_room and now - self._chosen < _CHOICE:
            return
        sums: dict[str, float] = {}
        for _, point in self._points:
            for name, cost in point.get("spending", {}).items():
                sums[name] = sums.get(name, 0.0) + (cost or 0.0)
        sums.pop(_ALL, None)
        ordered = sorted(sums, key=lambda name: (-sums[name], name))
        names = ordered if len(ordered) <= MOST else [*ordered[: MOST - 1], _OTHERS]
        self._models, self._chosen = tuple(names), now
