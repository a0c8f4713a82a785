"""Line charts: each as SVG for every reader, and as data for the chart that scripts put over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from langmeter._base.text import format_count, format_duration, format_usd
from langmeter.report.html.markup import Child, Markup, element
from langmeter.snapshot import Distribution

Unit: TypeAlias = Literal["s", "USD", "count"]
#: Lines that can be told from each other; there is a colour and a pattern for each.
MOST: Final = 6
_WIDTH, _HEIGHT = 720, 250
#: Space for the labels above and below the lines.
_TOP, _BOTTOM = 22, 28
#: Shares of calls at the ticks of an axis of percentiles.
_PERCENTILES: Final = ("50", "90", "99", "99.9", "99.99", "99.999")
#: Labels of a logarithmic axis of values, beyond which there are fewer of each power of ten.
_TICKS: Final = 4
#: Points of a curve for each tenth that its axis goes on.
_POINTS: Final = 16
_STEPS: Final = (
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(86_400 * days for days in (1, 2, 7, 14, 28, 91)),
)


@dataclass(frozen=True, slots=True)
class Lines:
    """A chart of lines over one axis.

    Attributes:
        name: its name among the charts of the page.
        title: what it shows, for those who do not see it.
        x: where the points are: Unix seconds, or of a share q of calls -log10(1 - q).
        lines: each with its name and a value for each point; None where there is none.
        unit: of the values.
        axis: what `x` is.
        log: whether the values have a logarithmic axis.
    """

    name: str
    title: str
    x: Sequence[float]
    lines: Sequence[tuple[str, Sequence[float | None]]]
    unit: Unit
    axis: Literal["time", "percentile"]
    log: bool = False

    def data(self) -> dict[str, Any]:
        """Return what scripts draw it from."""
        series = [[rounded(y) for y in values] for _, values in self.lines]
        return {
            "x": [round(x, 4) for x in self.x],
            "names": [name for name, _ in self.lines],
            "series": series,
            "unit": self.unit,
            "axis": self.axis,
            "log": self.log,
        }

    def markup(self) -> Markup:
        """Return the legend and the drawing."""
        drawing = element(
            "svg",
            element("title", self.title),
            self._grid(),
            [self._line(place, values) for place, (_, values) in enumerate(self.lines, 1)],
            self._labels(),
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            aria_label=self.title,
        )
        return self.frame(drawing)

    def frame(self, drawing: Child = None) -> Markup:
        """Return the legend and the box that scripts draw into."""
        legend = element(
            "ul",
            [
                element("li", _sample(place), element("span", name), element("output"))
                for place, (name, _) in enumerate(self.lines, 1)
            ],
            class_="legend",
        )
        box = element("div", drawing, class_="chart", data_chart=self.name, data_title=self.title)
        return element("div", legend, box, class_="lines")

    def _bounds(self) -> tuple[float, float]:
        """Return the least and the greatest value of the axis."""
        values = [y for _, line in self.lines for y in line if y is not None]
        values = [y for y in values if y > 0] if self.log else values
        high = max(values, default=1.0) or 1.0
        if self.log:
            low = min(values, default=high / 10)
            return low * 0.9, high * 1.1
        return 0.0, high * 1.06

    def _y(self, y: float, low: float, high: float) -> float:
        if self.log:
            y, low, high = (math.log10(max(n, low)) for n in (y, low, high))
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def _x(self, x: float) -> float:
        first, last = self.x[0], self.x[-1]
        return (x - first) / ((last - first) or 1) * _WIDTH

    def _line(self, place: int, values: Sequence[float | None]) -> Markup:
        """Return a line in tenths of a unit, relative to the point before, which is short."""
        bounds, parts = self._bounds(), []
        before: tuple[int, int] | None = None
        for x, y in zip(self.x, values, strict=True):
            if y is None or (self.log and y <= 0):
                before = None
                continue
            point = round(self._x(x) * 10), round(self._y(y, *bounds) * 10)
            if before is None:
                parts.append(f"M{point[0]} {point[1]}h1")
                before = point[0] + 1, point[1]
            parts.append(f"l{point[0] - before[0]} {point[1] - before[1]}")
            before = point
        return element("path", d="".join(parts), class_=f"line s{place}", transform="scale(.1)")

    def _grid(self) -> Iterator[Markup]:
        low, high = self._bounds()
        for tick in _ticks(low, high, log=self.log):
            y = f"{self._y(tick, low, high):.1f}"
            yield element("line", x1=0, x2=_WIDTH, y1=y, y2=y, class_="grid")

    def _labels(self) -> Iterator[Markup]:
        """Return the labels, which stand over the lines."""
        low, high = self._bounds()
        for tick in _ticks(low, high, log=self.log):
            y = f"{self._y(tick, low, high) - 4:.1f}"
            yield element("text", value_text(tick, self.unit), x=2, y=y)
        for x, label in self._places():
            place = self._x(x)
            anchor = "start" if place < 20 else "end" if place > _WIDTH - 30 else "middle"
            yield element("text", label, x=f"{place:.1f}", y=_HEIGHT - 8, text_anchor=anchor)

    def _places(self) -> Iterator[tuple[float, str]]:
        """Return the ticks of the axis and their labels."""
        if self.axis == "percentile":
            for label in _PERCENTILES:
                x = nines(float(label) / 100)
                if self.x[0] <= x <= self.x[-1]:
                    yield x, f"{label} %"
            return
        step = step_of(self.x[-1] - self.x[0], 6)
        for x in range(math.ceil(self.x[0] / step) * step, int(self.x[-1]) + 1, step):
            at = datetime.fromtimestamp(x, UTC)
            yield x, f"{at:%H:%M}" if x % 86_400 else f"{at:%b} {at.day}"


def step_of(seconds: float, most: int) -> int:
    """Return the shortest usual step of which a span has at most `most`, in seconds."""
    return next((step for step in _STEPS if seconds / step <= most), _STEPS[-1])


def nines(q: float) -> float:
    """Return where the share q of all calls stands on an axis of percentiles: 0.999 at 3."""
    return -math.log10(max(1 - q, 1e-9))


def percentile_curves(
    name: str, title: str, rows: Iterable[tuple[str, Distribution]]
) -> Lines | None:
    """Return the chart of percentiles of distributions; None where all are empty.

    Each curve ends at the percentile that its slowest call stands for.
    """
    timed = [(label, times) for label, times in rows if times.count > 1]
    if not timed:
        return None
    ends = [min(math.log10(times.count), 5.0) for _, times in timed]
    x = [n / _POINTS for n in range(math.ceil(max(ends) * _POINTS) + 1)]
    lines = [
        (label, [times.quantile(1 - 10**-n) if n <= end + 1 / _POINTS else None for n in x])
        for (label, times), end in zip(timed, ends, strict=True)
    ]
    return Lines(name, title, x, lines, "s", "percentile", log=True)


def value_text(value: float, unit: Unit) -> str:
    """Format a value of a line."""
    if unit == "s":
        return format_duration(value)
    if unit == "USD":
        return (
            format_usd(Decimal(f"{value:.2f}")) if value >= 100 else f"${float(f'{value:.3g}'):g}"
        )
    return format_count(round(value)) if value >= 10 or value == round(value) else f"{value:.2g}"


def _ticks(low: float, high: float, *, log: bool) -> Iterator[float]:
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            ticks = [n * 10.0**power for power in powers for n in steps]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) <= _TICKS:
                break
        yield from ticks
        return
    size = 10 ** math.floor(math.log10(high / 4))
    step = next(n * size for n in (1, 2, 5, 10) if high / (n * size) <= 5)
    yield from (n * step for n in range(int(high / step) + 1))


def _sample(place: int) -> Markup:
    stroke = element("line", x1=0, x2=24, y1=5, y2=5, class_=f"line s{place}")
    return element("svg", stroke, viewBox="0 0 24 10", aria_hidden="true")


def rounded(y: float | None) -> float | None:
    """Return four digits that count: what a screen can show."""
    return None if y is None else float(f"{y:.4g}")
