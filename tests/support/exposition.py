"""Samples of a Prometheus exposition, read by its official parser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from langmeter.exporters import prometheus


def samples_of(families: Iterable[Metric]) -> dict[tuple[str, frozenset[Any]], float]:
    samples: dict[tuple[str, frozenset[Any]], float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"twice: {key}"
            samples[key] = sample.value
    return samples


def scraped(source: Any, form: str = "text", **settings: Any) -> dict[Any, float]:
    registry = CollectorRegistry()
    registry.register(prometheus.collector(source, **settings))
    if form == "text":
        return samples_of(parse_text(generate_latest(registry).decode()))
    return samples_of(parse_openmetrics(openmetrics.generate_latest(registry).decode()))
