"""`python -m benches alerts [--smoke] [--arrivals FILE ...]`: delay to fire, and false alarms.

An hour of calls is played through the engine, a tick of 5 s at a time. Arrivals are recorded ones
where files with the columns TIMESTAMP, ContextTokens and GeneratedTokens are given (those of
AzurePublicDataset, Patel et al., Splitwise, ISCA 2024), or Poisson with bursts. Latencies follow
the tokens of the answer, lognormal, σ = 0.5; 1 % of the calls fail. After half an hour the
latencies, or the failures, are another; without a change each alert is a false one.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import UUID

import numpy as np

from benches.report import conditions
from langmeter import Snapshot, _core
from langmeter.alerts import Rule, burn_rate
from langmeter.alerts.engine import INTERVAL, Engine
from langmeter.testing import ManualClock

_START = 1_790_000_000
_HOUR, _CHANGE = 3600, 1800
_ERRORS = 0.01

#: Second of the hour, and tokens of the answer.
Arrivals = list[tuple[float, int]]


def recorded(file: Path) -> Arrivals:
    """Arrivals of a file."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
    tokens = (int(row["GeneratedTokens"]) for row in rows)
    return [(at - moments[0], n) for at, n in zip(moments, tokens, strict=True)]


def generated(rate: float) -> Arrivals:
    """Poisson arrivals, four times as many in each fifth minute; lognormal tokens."""
    rng = np.random.default_rng(0)
    arrivals = []
    for minute in range(60):
        count = rng.poisson(60 * rate * (2.5 if minute % 5 == 0 else 0.625))
        moments = np.sort(rng.uniform(60 * minute, 60 * minute + 60, count))
        tokens = np.rint(rng.lognormal(4.5, 1.0, count)).astype(int) + 1
        arrivals += zip(moments.tolist(), tokens.tolist(), strict=True)
    return arrivals


def ticks(arrivals: Arrivals, seed: int, slower: float, failing: float) -> Iterator[Snapshot]:
    """What each tick counts; from the change on calls are slower and fail as often as given."""
    rng = np.random.default_rng(seed)
    clock = ManualClock()
    recorder = _core.Recorder(max_series=16, max_runs=16, clock=clock)
    before, place = Snapshot(recorder.snapshot()), 0
    noise = rng.lognormal(-0.125, 0.5, len(arrivals)).tolist()
    chance = rng.uniform(size=len(arrivals)).tolist()
    for end in range(int(INTERVAL), _HOUR + 1, int(INTERVAL)):
        while place < len(arrivals) and arrivals[place][0] < end:
            at, tokens = arrivals[place]
            is_after = at >= _CHANGE
            seconds = (0.3 + 0.02 * tokens) * noise[place] * (slower if is_after else 1)
            failed = chance[place] < (failing if is_after else _ERRORS)
            run = UUID(int=place)
            recorder.run_started(run, None, 0, "chat", "openai", "gpt-4o")
            clock.advance(seconds)
            recorder.run_ended(run, 0, int(failed))
            place += 1
        now = Snapshot(recorder.snapshot())
        yield now - before
        before = now


def fired(rules: Sequence[Rule], spans: Iterator[Snapshot]) -> list[float]:
    """Seconds of the hour at which alerts fire."""
    engine, moments = Engine(rules), []
    for number, span in enumerate(spans, 1):
        now = _START + number * INTERVAL
        engine.observe(now - INTERVAL, now, span)
        moments += [now - _START for each in engine.evaluate(now) if each.status == "firing"]
    return moments


def _base(arrivals: Arrivals) -> float:
    """The 95th percentile of an hour without a change, seconds."""
    total = sum(ticks(arrivals, 999, 1, _ERRORS), Snapshot())
    return total.totals.latency.quantile(0.95)


def _row(
    name: str, rules: Sequence[Rule], arrivals: Arrivals, change: tuple[float, float], times: int
) -> list[str]:
    delays, false = [], 0
    for seed in range(times):
        false += len(fired(rules, ticks(arrivals, seed, 1, _ERRORS)))
        moments = fired(rules, ticks(arrivals, seed, *change))
        after = [moment - _CHANGE for moment in moments if moment >= _CHANGE]
        delays.append(min(after, default=float("inf")))
    middle, missed = median(delays), sum(delay == float("inf") for delay in delays)
    told = "–" if middle == float("inf") else f"{middle:,.0f} s"
    return [name, told, f"{missed} of {times}", f"{false / times:.2f}"]


def main(arguments: list[str] | None = None) -> None:
    """Print a table for each kind of arrivals, and the time of an evaluation."""
    parser = argparse.ArgumentParser(prog="python -m benches alerts", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short form")
    parser.add_argument("--arrivals", nargs="*", type=Path, default=[], help="files of arrivals")
    options = parser.parse_args(arguments)
    times = 1 if options.smoke else 10
    traffic = {file.stem: recorded(file) for file in options.arrivals}
    if not traffic:
        rates = (2.0,) if options.smoke else (0.5, 2.0, 10.0)
        traffic = {f"generated, {rate:g} calls/s": generated(rate) for rate in rates}
    print(conditions())
    for name, arrivals in traffic.items():
        limit = 1.5 * _base(arrivals)
        print(f"\n{name}: {len(arrivals):,} calls in an hour; p95 may be {limit:.1f} s\n")
        print("| rule | change | delay, median | missed | false alarms an hour |")
        print("| :-- | :-- | --: | --: | --: |", flush=True)
        slow, slower = (2.0, _ERRORS), (3.0, _ERRORS)
        for rule, text, change in (
            (Rule(f"latency.p95 > {limit:.3f}s"), "latency × 2", slow),
            (Rule(f"latency.p95 > {limit:.3f}s", for_="1m"), "latency × 2", slow),
            (Rule(f"latency.p95 > {limit:.3f}s", window="1m"), "latency × 2", slow),
            (Rule(f"latency.p95 > {limit:.3f}s"), "latency × 3", slower),
            (Rule("latency.p50 > +50%", baseline="30m"), "latency × 2", slow),
            (Rule("error_rate > 5%"), "errors 1 → 10 %", (1.0, 0.1)),
            (Rule("error_rate > 5%", window="1m"), "errors 1 → 10 %", (1.0, 0.1)),
        ):
            pending = f", for {rule.for_}" if rule.for_ != "0s" else ""
            label = f"{rule.text}, window {rule.window}{pending}".replace(f"{limit:.3f}s", "limit")
            cells = _row(label, [rule], arrivals, change, times)
            print(f"| {' | '.join([cells[0], text, *cells[1:]])} |", flush=True)
        cells = _row("burn rates of 1 %", burn_rate(objective="1%"), arrivals, (1.0, 0.2), times)
        print(f"| {' | '.join([cells[0], 'errors 1 → 20 %', *cells[1:]])} |", flush=True)
    _price(50 if options.smoke else 500)


def _price(times: int) -> None:
    """Print what an evaluation costs, which is not on the path of a call."""
    rules = [Rule(f"latency.p95 > {n}s", by="model") for n in range(1, 11)]
    spans = list(ticks(generated(10), 0, 1, _ERRORS))
    engine = Engine(rules)
    begin = perf_counter()
    for number, span in enumerate(spans[:times], 1):
        engine.observe(0, _START + number * INTERVAL, span)
        engine.evaluate(_START + number * INTERVAL)
    seconds = (perf_counter() - begin) / min(times, len(spans))
    print(f"\nan evaluation of 10 rules of one model: {1e6 * seconds:,.0f} us, each 5 s")


if __name__ == "__main__":
    sys.exit(main())
