"""Prometheus' protobuf exposition, which alone carries native histograms in a scrape.

`prometheus_client` writes text only. The messages are those of io.prometheus.client, of which a
fraction is needed here: they are written by hand, without protobuf's library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from langmeter.exporters.buckets import cumulative, exponential
from langmeter.exporters.families import Family, Histogram, Value
from langmeter.exporters.semconv import Instrument

MEDIA_TYPE: Final = "application/vnd.google.protobuf"
_MESSAGE: Final = "io.prometheus.client.MetricFamily"
CONTENT_TYPE: Final = f"{MEDIA_TYPE}; proto={_MESSAGE}; encoding=delimited"
#: `MetricType` of io.prometheus.client.
_TYPES: Final = {"counter": 0, "gauge": 1, "histogram": 4}
#: What clients of Prometheus count as zero. It also marks a histogram without a duration as native.
_ZERO: Final = 2.0**-128


def is_accepted(accept: str) -> bool:
    """Return whether a scraper that sends this `Accept` reads the protobuf exposition."""
    for kind in accept.split(","):
        media_type, *parameters = (part.strip() for part in kind.split(";"))
        values = dict(part.partition("=")[::2] for part in parameters)
        wanted = (values.get("proto", _MESSAGE), values.get("encoding", "delimited"))
        if media_type == MEDIA_TYPE and wanted == (_MESSAGE, "delimited"):
            return values.get("q", "1").strip("0.") != ""
    return False


def exposition(families: Iterable[Family], started_at: int, schema: int) -> bytes:
    """Return families as messages, each after its length.

    Args:
        families: what is written.
        started_at: begin of the counters, Unix nanoseconds.
        schema: of the native histograms, 3 to 5; the classic buckets are beside them.
    """
    return b"".join(_delimited(_family(family, started_at, schema)) for family in families)


def _family(family: Family, started_at: int, schema: int) -> bytes:
    instrument = family.instrument
    suffix = "_total" if instrument.kind == "counter" else ""
    message = _text(1, instrument.prometheus_name + suffix) + _text(2, instrument.description)
    message += _varint_field(3, _TYPES[instrument.kind])
    for values, value in family.points:
        labels = zip(instrument.labels, values, strict=True)
        metric = b"".join(
            _field(1, _text(1, name) + _text(2, text)) for name, text in labels if text
        )
        metric += _point(instrument, value, started_at, schema)
        message += _field(4, metric)
    return message


def _point(instrument: Instrument, value: Value, started_at: int, schema: int) -> bytes:
    begin = _varint_field(1, started_at // 10**9) + _varint_field(2, started_at % 10**9)
    if isinstance(value, Histogram):
        return _field(7, _histogram(value, instrument.bounds, schema) + _field(15, begin))
    if instrument.kind == "counter":
        return _field(3, _double(1, value) + _field(3, begin))
    return _field(2, _double(1, value))


def _histogram(histogram: Histogram, bounds: tuple[float, ...], schema: int) -> bytes:
    distribution, unit = histogram.distribution, histogram.unit
    message = _varint_field(1, histogram.count) + _double(2, histogram.sum)
    for bound, count in zip(bounds, cumulative(distribution, bounds, unit), strict=False):
        message += _field(3, _varint_field(1, count) + _double(2, bound))
    message += _varint_field(5, _zigzag(schema)) + _double(6, _ZERO)
    buckets = exponential(distribution, schema, unit)
    last = 0
    for start, length in _spans(buckets):
        span = _varint_field(1, _zigzag(start - last)) + _varint_field(2, length)
        message += _field(12, span)
        last = start + length
    previous = 0
    for count in buckets.values():
        message += _varint_field(13, _zigzag(count - previous))
        previous = count
    return message


def _spans(indexes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the first index and the length of each run of successive indexes."""
    for _, run in groupby(enumerate(indexes), lambda pair: pair[1] - pair[0]):
        members = [index for _, index in run]
        yield members[0], len(members)


def _zigzag(number: int) -> int:
    return 2 * number if number >= 0 else -2 * number - 1


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _varint_field(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)


def _delimited(message: bytes) -> bytes:
    return _varint(len(message)) + message


def _field(field: int, message: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(message)


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode("utf-8", "replace"))
