"""`python -m benches exporters [--smoke]`: what a scrape and an export cost, beside the target.

A recorder with 14 models, streamed calls among them, tools and labels: a page of about 1,000 lines.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from time import perf_counter
from uuid import UUID

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource

from langmeter import Snapshot, _core, sources
from langmeter.exporters.families import Families
from langmeter.exporters.metrics_data import metrics_data
from langmeter.exporters.native import CONTENT_TYPE
from langmeter.exporters.pages import Pages
from langmeter.testing import ManualClock

MODELS = 14
CALLS = 500
#: Milliseconds that a page of 1,000 lines may take.
TARGET = 25.0
ACCEPT = {
    "text": "text/plain",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "protobuf, native": CONTENT_TYPE,
}


def _recorder(calls: int) -> _core.Recorder:
    """Return a recorder with calls of each model, every third one streamed."""
    clock, rng = ManualClock(), random.Random(1)
    recorder = _core.Recorder(max_series=256, max_runs=64, clock=clock)
    run = 0
    for number in range(MODELS):
        for place in range(calls):
            run += 1
            name = UUID(int=run)
            labels = [("team", f"team-{place % 3}")]
            model = f"gpt-4o-{number:02d}"
            recorder.run_started(name, None, 0, "chat", "openai", model, labels=labels)
            for _ in range(8 if place % 3 == 0 and number % 4 == 0 else 0):
                clock.advance(rng.lognormvariate(-3, 0.7))
                recorder.token(name)
            clock.advance(rng.lognormvariate(0, 0.8))
            usage = (1000, 100, 1100, *[0] * 16)
            recorder.run_ended(name, 0, 0, usage=usage, cost=10**9)
    return recorder


class _Source:
    """The snapshots of a recorder."""

    def __init__(self, recorder: _core.Recorder) -> None:
        self._recorder = recorder

    def snapshot(self) -> Snapshot:
        return Snapshot(self._recorder.snapshot())


def _fastest(function: Callable[[], object], rounds: int) -> float:
    """Return milliseconds of the fastest round."""
    took = []
    for _ in range(rounds):
        begun = perf_counter()
        function()
        took.append(perf_counter() - begun)
    return 1e3 * min(took)


def scrapes(source: sources.SnapshotSource, rounds: int) -> Iterator[tuple[str, ...]]:
    """A scrape: snapshot, metrics and their text or messages, ms; bytes of the page."""
    yield ("page", "ms", "lines", "bytes", "ms for 1,000 lines", "target")
    lines = 0
    for form, accept in ACCEPT.items():
        pages = Pages(source, 5 if "native" in form else None, "", "released")
        answer = pages.answer("GET", "/metrics", accept, "")
        assert answer.status == 200
        if form == "text":
            lines = sum(not line.startswith(b"#") for line in answer.body.splitlines())
        took = _fastest(
            lambda pages=pages, accept=accept: pages.answer("GET", "/", accept, ""), rounds
        )
        each = 1000 * took / lines
        verdict = "holds" if each < TARGET else "missed"
        figures = (f"{took:.1f}", f"{lines:,}", f"{len(answer.body):,}", f"{each:.1f}")
        yield (form, *figures, f"{TARGET:g} ms: {verdict}")


def exports(source: sources.SnapshotSource, rounds: int) -> Iterator[tuple[str, ...]]:
    """An export over OTLP without the network: metrics and their encoding, ms; bytes."""
    yield ("message", "ms", "bytes")
    families, about = Families("released"), Resource.create({})

    def message() -> bytes:
        data = metrics_data(families.of(source.snapshot()), 1, 2, about)
        return bytes(encode_metrics(data).SerializeToString())

    yield ("OTLP", f"{_fastest(message, rounds):.1f}", f"{len(message()):,}")


def main(arguments: list[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benches exporters")
    parser.add_argument("--smoke", action="store_true", help="few calls, without judging times")
    smoke = parser.parse_args(arguments).smoke
    source = _Source(_recorder(6 if smoke else CALLS))
    for table in (scrapes(source, 2 if smoke else 30), exports(source, 2 if smoke else 30)):
        for row in table:
            print(" | ".join(f"{cell:>18}" for cell in row))
        print()
