"""Metrics as `prometheus_client` collects and writes them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric, Sample
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from langmeter._base.log import log
from langmeter.exporters.buckets import cumulative
from langmeter.exporters.families import Families, Family, Histogram
from langmeter.sources import SnapshotSource


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
    les = (*map(floatToGoString, instrument.bounds), "+Inf")
    add = metric.samples.append
    for values, value in family.points:
        labels = {key: text for key, text in zip(instrument.labels, values, strict=True) if text}
        if isinstance(value, Histogram):
            counts = cumulative(value.distribution, instrument.bounds, value.unit)
            for le, count in zip(les, counts, strict=True):
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
