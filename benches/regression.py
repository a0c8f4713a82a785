"""`python -m benches regression [--smoke]`: how often comparisons cry wolf, and what they find.

Simulated calls through the real recorder: latencies are lognormal (sigma 0.5, so that the 95th
percentile is 2.3 times the median), every call and every pair of snapshots independent.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from langmeter import Snapshot, _core
from langmeter.analysis.regression import LEVEL, compare
from langmeter.analysis.regression import significance as tests
from langmeter.analysis.regression.comparison import Comparison
from langmeter.testing import ManualClock

_LLM, _TOOL = _core.KINDS.index("llm"), _core.KINDS.index("tool")
_OK, _ERROR = _core.OUTCOMES.index("ok"), _core.OUTCOMES.index("error")
_SIGMA = 0.5
#: How much the speed of whole streams differs, beside that of their gaps.
_STREAM_SIGMA = 0.4


class World:
    """Makes snapshots of calls that never were."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.run = 0

    def snapshot(
        self,
        calls: int,
        *,
        scale: float = 1.0,
        errors: float = 0.0,
        gaps: int = 0,
        models: int = 1,
        tools: int = 0,
    ) -> Snapshot:
        """`calls` calls of each model and tool; latencies times `scale`."""
        clock = ManualClock()
        recorder = _core.Recorder(max_series=16, max_runs=1024, clock=clock)
        for _ in range(calls):
            for place in range(models + tools):
                kind = _LLM if place < models else _TOOL
                self._call(recorder, clock, kind, place, scale, errors, gaps)
        return Snapshot(recorder.snapshot())

    def _call(
        self,
        recorder: _core.Recorder,
        clock: ManualClock,
        kind: int,
        place: int,
        scale: float,
        errors: float,
        gaps: int,
    ) -> None:
        self.run += 1
        # Spread, because the table of runs in flight hashes by these bits.
        run_id = UUID(int=self.run * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)
        recorder.run_started(run_id, None, kind, f"part-{place}", "sim", f"model-{place}")
        if gaps:
            speed = scale * self.random.lognormvariate(-4, _STREAM_SIGMA)
            for _ in range(gaps + 1):
                clock.advance(speed * self.random.lognormvariate(0, _SIGMA))
                recorder.token(run_id)
        else:
            clock.advance(scale * self.random.lognormvariate(0, _SIGMA))
        outcome = _ERROR if self.random.random() < errors else _OK
        recorder.run_ended(run_id, kind, outcome)


def _significant(found: Comparison, metric: str) -> bool:
    """Whether a metric of the (only) model is significant as the only comparison made."""
    row = next(row for row in found.rows if row.metric == metric)
    return row.raw_p is not None and row.raw_p <= LEVEL


def _changed(found: Comparison) -> bool:
    return any(row.verdict in ("worse", "better") for row in found.rows)


def _shares(
    rounds: int,
    pair: Callable[[], Comparison],
    questions: dict[str, Callable[[Comparison], bool]],
) -> dict[str, float]:
    hits = dict.fromkeys(questions, 0)
    for _ in range(rounds):
        found = pair()
        for name, question in questions.items():
            hits[name] += question(found)
    return {name: hit / rounds for name, hit in hits.items()}


def _alone(*metrics: str) -> dict[str, Callable[[Comparison], bool]]:
    return {metric: lambda found, metric=metric: _significant(found, metric) for metric in metrics}


def durations(rounds: int, world: World) -> Iterator[tuple[str, ...]]:
    """Latencies that shift by some percent."""
    metrics = ("latency.p50", "latency.p95", "latency.ks")
    yield ("calls", "slower by", "anything found", *metrics)
    for calls in (100, 300, 1000):
        for shift in (0, 5, 10, 20):
            found = _shares(
                rounds if shift else 4 * rounds,
                lambda calls=calls, shift=shift: compare(
                    world.snapshot(calls), world.snapshot(calls, scale=1 + shift / 100)
                ),
                {"any": _changed, **_alone(*metrics)},
            )
            if not shift:
                _judge(found.values(), 4 * rounds)
            yield (str(calls), f"{shift} %", *(f"{100 * share:.1f} %" for share in found.values()))


def errors(rounds: int, world: World) -> Iterator[tuple[str, ...]]:
    """Error rates that grow from 1 %."""
    yield ("calls", "errors", "error_rate")
    for calls in (100, 300, 1000):
        for rate in (1, 2, 5, 10):
            found = _shares(
                rounds if rate > 1 else 4 * rounds,
                lambda calls=calls, rate=rate: compare(
                    world.snapshot(calls, errors=0.01), world.snapshot(calls, errors=rate / 100)
                ),
                _alone("error_rate"),
            )
            if rate == 1:
                _judge(found.values(), 4 * rounds)
            yield (str(calls), f"1 % to {rate} %", f"{100 * found['error_rate']:.1f} %")


def many(rounds: int, world: World) -> Iterator[tuple[str, ...]]:
    """Nothing changed, and much was compared."""
    rounds = max(5, rounds // 4)
    yield ("calls of each", "models", "tools", "tests", "anything found")
    for models, tools in ((1, 0), (4, 0), (4, 8)):
        made = {"models": models, "tools": tools, "errors": 0.02}
        count = 0

        def pair(made: dict[str, float] = made) -> Comparison:
            nonlocal count
            found = compare(world.snapshot(200, **made), world.snapshot(200, **made))
            count = sum(row.raw_p is not None for row in found.rows)
            return found

        share = _shares(rounds, pair, {"any": _changed})["any"]
        _judge([share], rounds)
        yield ("200", str(models), str(tools), str(count), f"{100 * share:.1f} %")


def streams(rounds: int, world: World) -> Iterator[tuple[str, ...]]:
    """Nothing changed, and the gaps of a stream resemble one another."""
    rounds = max(5, rounds // 4)
    yield ("streams", "gaps of each", "inter_token_latency.ks", "each gap taken for independent")

    def naive(base: Snapshot, now: Snapshot) -> bool:
        samples = (_core.Sample.of(s.totals.inter_token_latency) for s in (base, now))
        return tests.ks_test(*samples).tails.p <= LEVEL

    for calls in (100, 300):
        ours = theirs = 0
        for _ in range(rounds):
            pair = world.snapshot(calls, gaps=50), world.snapshot(calls, gaps=50)
            ours += _significant(compare(*pair), "inter_token_latency.ks")
            theirs += naive(*pair)
        _judge([ours / rounds], rounds)
        yield (str(calls), "50", *(f"{100 * hits / rounds:.1f} %" for hits in (ours, theirs)))


def _judge(shares: Iterable[float], rounds: int) -> None:
    """More false alarms than the level, by more than chance, are an error of the tests."""
    for share in shares:
        hits = round(share * rounds)
        if tests.binomial(rounds, LEVEL).at_least(hits) < 1e-4:
            raise SystemExit(f"false alarms: {hits} of {rounds} at level {LEVEL}")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benches regression", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="5 rounds; the shares mean nothing")
    parser.add_argument("--rounds", type=int, default=400, help="pairs of snapshots a row (400)")
    parser.add_argument("--only", choices=_TABLES, help="one table")
    options = parser.parse_args(arguments)
    rounds = 5 if options.smoke else options.rounds
    print(f"Found at level {LEVEL}, in pairs of snapshots: {rounds:,} a row; {4 * rounds:,} where")
    print(f"nothing changed; {max(5, rounds // 4):,} where much was compared, or streams.")
    for name, table in _TABLES.items():
        if options.only in (None, name):
            print(f"\n{(table.__doc__ or '').strip()}\n")
            # A world for each, so that a table alone is the same as among the others.
            for number, row in enumerate(table(rounds, World(seed=1))):
                print(f"| {' | '.join(row)} |", flush=True)
                if number == 0:
                    print(f"|{' --: |' * len(row)}", flush=True)


_TABLES = {table.__name__: table for table in (durations, errors, many, streams)}

if __name__ == "__main__":
    sys.exit(main())
