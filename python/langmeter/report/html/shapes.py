"""Small drawings in SVG: bars and intervals of table cells, and the map of rates and costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from langmeter.report.html.lines import value_text
from langmeter.report.html.markup import Markup, element, join

_WIDTH, _HEIGHT, _BOTTOM = 720, 300, 34


def bar(share: float, place: int = 1) -> Markup:
    """Return a bar of a table cell, `share` of its width; the cell beside it has the figure."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%" if share == share else "0"
    drawn = element("rect", width=width, height="100%", rx=2, class_=f"fill s{place}")
    return element("svg", drawn, class_="bar", aria_hidden="true")


def interval(
    low: float, value: float, high: float, bounds: tuple[float, float] = (0.0, 1.0)
) -> Markup | str:
    """Return an interval and the figure in it as a drawing of a table cell; "" for nan."""
    if any(map(math.isnan, (low, value, high))):
        return ""
    least, most = bounds

    def place(x: float) -> str:
        return f"{100 * (min(max(x, least), most) - least) / (most - least):.1f}%"

    zero = None
    if least < 0 < most:
        zero = element("line", x1=place(0), x2=place(0), y1=0, y2="100%", class_="grid")
    reach = element("line", x1=place(low), x2=place(high), y1="50%", y2="50%", class_="reach")
    point = element("circle", cx=place(value), cy="50%", r=4, class_="point")
    return element("svg", zero, reach, point, class_="interval", aria_hidden="true")


class Point(NamedTuple):
    """A model on the map of rates and costs; `interval` is of its rate."""

    name: str
    cost: float
    rate: float
    interval: tuple[float, float]
    on_frontier: bool


def frontier(title: str, points: Sequence[Point]) -> Markup:
    """Return a map of models: cost of a fix to the right (logarithmic), share fixed upward.

    The models are numbered, and listed below it.

    Raises ValueError without points.
    """
    costs = [point.cost for point in points]
    low, high = math.log10(min(costs)) - 0.15, math.log10(max(costs)) + 0.15

    def x(cost: float) -> float:
        return (math.log10(cost) - low) / (high - low) * _WIDTH

    def y(rate: float) -> float:
        return (1 - rate) * (_HEIGHT - _BOTTOM - 16) + 16

    best = sorted((p for p in points if p.on_frontier), key=lambda p: p.cost)
    path = "M" + "L".join(f"{x(p.cost):.1f} {y(p.rate):.1f}" for p in best)
    drawing = element(
        "svg",
        element("title", title),
        [_level(y(rate), f"{rate:.0%}") for rate in (0.0, 0.25, 0.5, 0.75, 1.0)],
        _costs(low, high, x),
        len(best) > 1 and element("path", d=path, class_="frontier"),
        [
            _model(number, p, x(p.cost), *map(y, (p.rate, *p.interval)))
            for number, p in enumerate(points, 1)
        ],
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=title,
        class_="map",
    )
    names = [
        element("li", f"{p.name}: {p.rate:.1%} for {value_text(p.cost, 'USD')} each")
        for p in points
    ]
    return join((drawing, element("ol", names, class_="names")))


def _level(y: float, label: str) -> Iterable[Markup]:
    line = element("line", x1=0, x2=_WIDTH, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return line, element("text", label, x=2, y=f"{y - 4:.1f}")


def _costs(low: float, high: float, x: Callable[[float], float]) -> Iterator[Markup]:
    for power in range(math.floor(low), math.ceil(high) + 1):
        for n in (1, 2, 5):
            cost = n * 10.0**power
            if low < math.log10(cost) < high - 0.05 and x(cost) > 40:
                label = value_text(cost, "USD")
                yield element("text", label, x=f"{x(cost):.1f}", y=_HEIGHT - 6, class_="mid")


def _model(number: int, point: Point, x: float, y: float, low: float, high: float) -> Markup:
    reach = element(
        "line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=f"{low:.1f}", y2=f"{high:.1f}", class_="reach"
    )
    dot = element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=5, class_="point")
    label = element("text", str(number), x=f"{x + 9:.1f}", y=f"{y + 4:.1f}", class_="name")
    return element("g", reach, dot, label, class_="best" if point.on_frontier else None)
