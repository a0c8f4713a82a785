"""Metrics as `prometheus_client` collects and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric, Sample
from prometheus_client.registry import Collector

from langmeter._base.log import log
from langmeter._core import Distribution
from langmeter.exporters.buckets import cumulative
from langmeter.exporters.families import Families, Family, Totals, Value
from langmeter.exporters.semconv import DURATION_BOUNDS
from langmeter.sources import SnapshotSource

#: Bounds as Go writes them, which all of these are short enough for.
_LE: Final = (*(f"{bound:g}" for bound in DURATION_BOUNDS), "+Inf")


class SnapshotCollector(Collector):
    """Collector of a source, for any registry of `prometheus_client`; made by `collector`."""

    def __init__(self, source: SnapshotSource, families: Families) -> None:
        self._source = source
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the source as it is now; none where it does not answer.

        The page is the host's too: its own metrics are served all the same.
        """
        try:
            snapshot = self._source.snapshot()
        except Exception as error:
            log.warning("no metrics of %r: %s", self._source, error)
            return
        created = snapshot._native.started_at / 1e9
        for family in self._families.of(snapshot):
            yield _metric(family, created)

    def describe(self) -> Iterator[Metric]:
        """Yield no metric: a registry need not read the source to register this."""
        return iter(())


def _metric(family: Family, created: float) -> Metric:
    instrument = family.instrument
    name = instrument.prometheus_name
    metric = Metric(name, instrument.description, instrument.kind)
    add = metric.samples.append
    for values, value in family.points:
        labels = {key: text for key, text in zip(instrument.labels, values, strict=True) if text}
        if isinstance(value, Distribution | Totals):
            for le, count in _buckets(value):
                add(Sample(f"{name}_bucket", {**labels, "le": le}, count))
            add(Sample(f"{name}_count", labels, value.count))
            add(Sample(f"{name}_sum", labels, value.sum))
        elif instrument.kind == "counter":
            add(Sample(f"{name}_total", labels, value))
        else:
            add(Sample(name, labels, value))
            continue
        add(Sample(f"{name}_created", labels, created))
    return metric


def _buckets(value: Value) -> Iterator[tuple[str, int]]:
    if isinstance(value, Distribution):
        yield from zip(_LE, cumulative(value, DURATION_BOUNDS), strict=True)
    elif isinstance(value, Totals):
        yield _LE[-1], value.count
