"""Families as OpenTelemetry's `MetricsData`, of the SDK's public classes.

The SDK for Python has no metric producer, so that no reader can be given these figures: they are
built as what its exporters take. Histograms are exponential, of scale 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from opentelemetry.sdk.metrics._internal.point import Buckets  # the one name without a public door
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from langmeter import _core
from langmeter.exporters.buckets import SCALE, SECOND, exponential
from langmeter.exporters.families import Family, Histogram, attributes

_Attributes: TypeAlias = "dict[str, str]"
#: Cumulative: a receiver that missed an export lacks a point, and no call.
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_SCOPE = InstrumentationScope("langmeter", _core.__version__)


def metrics_data(families: Iterable[Family], begin: int, end: int, about: Resource) -> MetricsData:
    """Return the message of an export.

    Args:
        families: what is sent.
        begin: begin of the counters, Unix nanoseconds.
        end: moment of the figures.
        about: process that they are of.
    """
    metrics = [_metric(family, begin, end) for family in families]
    scope = ScopeMetrics(scope=_SCOPE, metrics=metrics, schema_url="")
    resource = ResourceMetrics(resource=about, scope_metrics=[scope], schema_url=about.schema_url)
    return MetricsData(resource_metrics=[resource])


def _metric(family: Family, begin: int, end: int) -> Metric:
    instrument, points = family.instrument, list(attributes(family))
    data: Sum | Gauge | ExponentialHistogram
    if instrument.kind == "histogram":
        histograms = [_histogram(own, value, begin, end) for own, value in points]
        data = ExponentialHistogram(histograms, _CUMULATIVE)
    else:
        numbers = [_number(own, value, begin, end) for own, value in points]
        is_sum = instrument.kind == "counter"
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if is_sum else Gauge(numbers)
    return Metric(instrument.name, instrument.description, instrument.unit, data)


def _number(own: _Attributes, value: object, begin: int, end: int) -> NumberDataPoint:
    assert isinstance(value, int | float)
    return NumberDataPoint(own, begin, end, value)


def _histogram(
    own: _Attributes, value: object, begin: int, end: int
) -> ExponentialHistogramDataPoint:
    assert isinstance(value, Histogram)
    distribution, unit = value.distribution, value.unit
    counts = exponential(distribution, unit=unit)
    first, last = (min(counts), max(counts)) if counts else (1, 0)
    dense = [counts.get(index, 0) for index in range(first, last + 1)]
    return ExponentialHistogramDataPoint(
        own,
        begin,
        end,
        count=value.count,
        sum=value.sum,
        scale=SCALE,
        zero_count=0,
        positive=Buckets(first - 1, dense),
        negative=Buckets(0, []),
        flags=0,
        min=distribution.min * SECOND / unit if counts else 0.0,
        max=distribution.max * SECOND / unit if counts else 0.0,
    )
