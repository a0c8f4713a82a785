"""The protobuf exposition, read by Google's protobuf with the messages of io.prometheus.client."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot, sources
from langmeter.exporters import native, prometheus, semconv
from langmeter.exporters.buckets import SCALES, cumulative, exponential
from tests.support.simulated import calls
from tests.support.traffic import Traffic

#: Fields of the messages: name, number, type; of client_model 0.6.
_MESSAGES = {
    "LabelPair": "name 1 STRING, value 2 STRING",
    "Gauge": "value 1 DOUBLE",
    "Timestamp": "seconds 1 INT64, nanos 2 INT32",
    "Counter": "value 1 DOUBLE, created_timestamp 3 Timestamp",
    "Bucket": "cumulative_count 1 UINT64, upper_bound 2 DOUBLE",
    "BucketSpan": "offset 1 SINT32, length 2 UINT32",
    "Histogram": "sample_count 1 UINT64, sample_sum 2 DOUBLE, bucket 3 *Bucket, schema 5 SINT32,"
    " zero_threshold 6 DOUBLE, zero_count 7 UINT64, positive_span 12 *BucketSpan,"
    " positive_delta 13 *SINT64, created_timestamp 15 Timestamp",
    "Metric": "label 1 *LabelPair, gauge 2 Gauge, counter 3 Counter, histogram 7 Histogram",
    "MetricFamily": "name 1 STRING, help 2 STRING, type 3 INT32, metric 4 *Metric",
}
ACCEPT = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
)


def _family_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package="test", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split(","):
            own, number, kind = field.split()
            repeated = kind.startswith("*")
            label = "LABEL_REPEATED" if repeated else "LABEL_OPTIONAL"
            each = message.field.add(name=own, number=int(number), label=label)
            kind = kind.removeprefix("*")
            if kind in _MESSAGES:
                each.type, each.type_name = each.TYPE_MESSAGE, f".test.{kind}"
            else:
                each.type = getattr(each, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.MetricFamily"))


FAMILY = _family_class()


def _families(body: bytes) -> Iterator[Any]:
    place = 0
    while place < len(body):
        length = shift = 0
        while True:
            byte = body[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        family = FAMILY()
        assert family.ParseFromString(body[place : place + length]) == length
        assert not list(_unknown(family))
        yield family
        place += length
    assert place == len(body)


def _unknown(message: Any) -> Iterator[Any]:
    from google.protobuf.unknown_fields import UnknownFieldSet

    yield from UnknownFieldSet(message)
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = not hasattr(value, "ListFields")
            for each in value if repeated else [value]:
                yield from _unknown(each)


def _scraped(source: Any, schema: int | None, accept: str) -> tuple[str, bytes]:
    with prometheus.start(0, source, native_schema=schema, token="") as server:
        request = urllib.request.Request(f"{server.url}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Content-Type"], answer.read()


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Traffic().everything().snapshot()


@pytest.mark.parametrize("schema", SCALES)
def test_a_scraper_that_accepts_protobuf_gets_it(snapshot: Snapshot, schema: int) -> None:
    """Google's parser reads every field, and the figures are those of the snapshot."""
    content_type, body = _scraped(snapshot, schema, ACCEPT)
    assert content_type == native.CONTENT_TYPE
    families = {family.name: family for family in _families(body)}
    assert families["langmeter_cost_usd_total"].type == 0
    assert families["langmeter_in_flight"].type == 1
    duration = families["gen_ai_client_operation_duration_seconds"]
    assert duration.type == 4
    metric = next(
        each
        for each in duration.metric
        if {pair.value for pair in each.label} == {"chat", "openai", "gpt-4o"}
    )
    stats = snapshot.models["openai", "gpt-4o"]
    latency = stats.latency - stats.failed_latency
    histogram = metric.histogram
    assert (histogram.sample_count, histogram.sample_sum) == (latency.count, latency.sum)
    assert histogram.created_timestamp.seconds == snapshot._native.started_at // 10**9
    assert histogram.schema == schema
    assert [bucket.cumulative_count for bucket in histogram.bucket] == cumulative(
        latency, semconv.DURATION_BOUNDS
    )[:-1]
    assert _indexed(histogram) == exponential(latency, schema)


def _indexed(histogram: Any) -> dict[int, int]:
    """Counts by index, as a server reads spans and deltas."""
    counts: dict[int, int] = {}
    index = count = 0
    deltas = iter(histogram.positive_delta)
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            counts[index] = count
            index += 1
    assert next(deltas, None) is None
    return counts


def test_text_is_for_scrapers_that_do_not_ask_for_protobuf(snapshot: Snapshot) -> None:
    """And for all of them without the setting, which changes what a server keeps."""
    assert _scraped(snapshot, 5, "text/plain")[0].startswith("text/plain")
    assert _scraped(snapshot, None, ACCEPT)[0].startswith("application/openmetrics-text")
    refused = ACCEPT.replace("encoding=delimited", "encoding=delimited;q=0")
    assert _scraped(snapshot, 5, refused)[0].startswith("application/openmetrics-text")
    other = ACCEPT.replace("encoding=delimited", "encoding=text")
    assert _scraped(snapshot, 5, other)[0].startswith("application/openmetrics-text")


def test_a_histogram_without_a_duration_is_native_too() -> None:
    """A server that took the classic form of it first would keep that form."""
    _, body = _scraped(calls([]) + calls([1.0], kind="tool", name="search"), 5, ACCEPT)
    empty = calls([1.0], cached=1)
    assert empty.models["openai", "gpt-4o"].latency.count == 0
    _, body = _scraped(empty, 5, ACCEPT)
    families = {family.name: family for family in _families(body)}
    histogram = families["gen_ai_client_operation_duration_seconds"].metric[0].histogram
    assert histogram.sample_count == 0
    assert histogram.zero_threshold == 2.0**-128


@given(st.lists(st.floats(1e-6, 100_000), min_size=1, max_size=50), st.sampled_from(SCALES))
def test_exponential_buckets_hold_their_durations(durations: list[float], schema: int) -> None:
    """Each duration is in its bucket, within the digits of the histogram, and none is lost."""
    latency = calls(durations).models["openai", "gpt-4o"].latency
    counts = exponential(latency, schema)
    assert sum(counts.values()) == len(durations)
    assert list(counts) == sorted(counts)
    for index, count in counts.items():
        low, high = 2 ** ((index - 1) / 2**schema), 2 ** (index / 2**schema)
        near = sum(low * 0.998 - 1e-6 <= each <= high * 1.002 + 1e-6 for each in durations)
        assert near >= count


def test_quantiles_of_schema_5_are_within_a_percent() -> None:
    """By interpolation as servers do it, on 20,000 lognormal durations."""
    traffic = Traffic(seed=3)
    for _ in range(20_000):
        traffic.call()
    latency = traffic.snapshot().models["openai", "gpt-4o"].latency
    counts = exponential(latency, 5)
    for q in (0.5, 0.95, 0.99):
        rank, total = q * latency.count, 0.0
        for index, count in counts.items():
            if total + count >= rank:
                part = (rank - total) / count
                estimate = 2 ** ((index - 1 + part) / 32)
                break
            total += count
        assert math.isclose(estimate, latency.quantile(q), rel_tol=0.01)


def test_the_token_is_of_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting of the environment guards pages that name none."""
    monkeypatch.setenv(sources.TOKEN, "t")
    with prometheus.start(0, calls([1.0])) as server, pytest.raises(OSError, match="401"):
        urllib.request.urlopen(f"{server.url}/metrics", timeout=5)
