"""`python -m benches anomalies [--smoke]`: how soon a change is told, and how often there is none.

Calls come at random (Poisson), their latencies and tokens are lognormal and independent; real
traffic is worse behaved, so there are rows with a mean that wanders and one that swings by day.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from benches.report import conditions
from langmeter.monitors.anomalies import Anomaly, AnomalyDetector, FixRow, Row
from langmeter.monitors.change_point import PageHinkley, Sensitivity

_TICK = 5.0
_DAY = 86_400.0
_PER_TOKEN = 600_000  # pico-dollars
_SECOND = 10**9
_PICO = 10**12


@dataclass(frozen=True)
class Traffic:
    """Calls of one model: calls a second, the latencies' log standard deviation, error rate.

    `wander` is the standard deviation of the mean's own logarithm, which forgets a tenth a tick;
    `swing` how far the mean goes up and down in a day.
    """

    rate: float
    sigma: float = 0.5
    errors: float = 0.01
    wander: float = 0.0
    swing: float = 0.0

    def rows(
        self,
        rng: np.random.Generator,
        ticks: int,
        seconds: float = _TICK,
        *,
        change: tuple[str, float] = ("", 1.0),
        at: int = 0,
    ) -> Iterator[Row]:
        """Cumulative figures, tick by tick; from tick `at` on latency or error rate is another."""
        what, factor = change
        level, failing = np.ones(ticks), np.full(ticks, self.errors)
        if what == "latency":
            level[at:] *= factor
        elif what == "error_rate":
            failing[at:] *= factor
        if self.swing:
            level *= 1 + self.swing * np.sin(np.arange(ticks) * seconds / _DAY * 2 * np.pi)
        if self.wander:
            level *= np.exp(_wandering(rng, ticks) * self.wander)
        calls = rng.poisson(self.rate * seconds, ticks)
        errors = rng.binomial(calls, failing)
        latency = _sums(rng, calls, self.sigma) * level
        tokens = np.rint(_sums(rng, calls - errors, self.sigma) * 300).astype(int)
        columns = (calls, errors, tokens, tokens * _PER_TOKEN, latency)
        for figures in zip(*(column.cumsum().tolist() for column in columns), strict=True):
            yield ("openai", "gpt-4o-mini", *figures)


def _sums(rng: np.random.Generator, counts: Any, sigma: float) -> Any:
    """For each count, the sum of so many lognormals of mean 1."""
    ends = counts.cumsum()
    draws = rng.lognormal(-(sigma**2) / 2, sigma, int(ends[-1]))
    sums = np.concatenate([[0.0], draws.cumsum()])
    return sums[ends] - sums[ends - counts]


def _wandering(rng: np.random.Generator, ticks: int) -> Any:
    """First-order autoregression of standard deviation 1, which keeps nine tenths a tick."""
    out, now = np.empty(ticks), 0.0
    for i, shock in enumerate(rng.normal(0, (1 - 0.9**2) ** 0.5, ticks).tolist()):
        now = 0.9 * now + shock
        out[i] = now
    return out


def _play(detector: AnomalyDetector, rows: Iterator[Row], seconds: float) -> Iterator[Anomaly]:
    for tick, row in enumerate(rows):
        yield from detector.observe([row], int(tick * seconds * _SECOND))


def false_alarms(
    traffic: Traffic, hours: int, sensitivity: Sensitivity | None = None, seconds: float = _TICK
) -> float:
    """Anomalies of all four figures per 1,000 model-hours, by models that each live a day."""
    found, day = 0, min(24, hours)
    for seed in range(hours // day):
        rows = traffic.rows(np.random.default_rng(seed), int(day * 3600 / seconds), seconds)
        found += sum(1 for _ in _play(AnomalyDetector(sensitivity=sensitivity), rows, seconds))
    return found / (hours // day * day) * 1000


def delays(
    traffic: Traffic,
    change: tuple[str, float],
    times: int,
    sensitivity: Sensitivity | None = None,
    seconds: float = _TICK,
) -> list[float]:
    """Seconds from a change, after half an hour, to its anomaly; inf when not within an hour."""
    before, after = int(1800 / seconds), int(3600 / seconds)
    told = []
    for seed in range(times):
        rows = traffic.rows(
            np.random.default_rng(seed), before + after, seconds, change=change, at=before
        )
        begin = (before - 1) * seconds * _SECOND
        found = _play(AnomalyDetector(sensitivity=sensitivity), rows, seconds)
        moments = (
            one.detected_at.timestamp() * _SECOND
            for one in found
            if one.metric == change[0] and (one.after > one.before) == (change[1] > 1)
        )
        first = next((moment for moment in moments if moment > begin), float("inf"))
        told.append((first - begin) / _SECOND)
    return told


def _told(seconds: Sequence[float]) -> str:
    middle = median(seconds)
    return "–" if middle == float("inf") else f"{middle:,.0f} s"


def _table(title: str, lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for i, line in enumerate(lines):
        cells = (
            cell.rjust(w) if n else cell.ljust(w)
            for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(cells))
        if not i:
            print("  ".join("─" * width for width in widths))


_STEPS = (1.1, 1.2, 1.5, 2.0, 0.5)
_RATES = (2.0, 10.0, 50.0)


def detection(times: int, hours: int) -> None:
    """The table that the documentation shows."""
    lines = [
        ["traffic", *(f"{step - 1:+.0%}" for step in _STEPS), "errors 1 → 5 %", "false alarms"],
    ]
    for sigma in (0.5, 1.0):
        for rate in _RATES:
            traffic = Traffic(rate, sigma)
            lines.append(
                [
                    f"{rate:g} calls/s, σ = {sigma}",
                    *(_told(delays(traffic, ("latency", step), times)) for step in _STEPS),
                    _told(delays(traffic, ("error_rate", 5.0), times)),
                    f"{false_alarms(traffic, hours):.1f}",
                ]
            )
    _table(
        f"Median time from a change of mean latency, or of the error rate, to its anomaly ({times} "
        f"each;\n– : not within an hour), and false alarms of all four figures per 1,000 "
        f"model-hours ({hours:,} played).\nσ: standard deviation of the log latencies. "
        f"Tick {_TICK:g} s.",
        lines,
    )


def _fixes(
    rng: np.random.Generator, stretches: Sequence[tuple[int, float, float]]
) -> Iterator[FixRow]:
    """Cumulative figures of so many defects at a success rate and a cost of an attempt in USD."""
    columns: list[Any] = [
        (rng.random(n) < rate, np.rint(rng.lognormal(-0.125, 0.5, n) * cost * _PICO).astype(int))
        for n, rate, cost in stretches
    ]
    fixed, cost = (
        np.concatenate(column).cumsum().tolist() for column in zip(*columns, strict=True)
    )
    for closed, (some, spent) in enumerate(zip(fixed, cost, strict=True), 1):
        yield ("openai", "gpt-4o-mini", closed, some, some, spent)


def fixes(times: int, defects: int) -> None:
    """After how many defects a change of fixes is reported."""
    old = (1_000, 0.7, 0.01)
    changes = [
        ("success rate 70 → 50 %", "success_rate", (2_000, 0.5, 0.01)),
        ("success rate 70 → 30 %", "success_rate", (2_000, 0.3, 0.01)),
        ("cost of an attempt +50 %", "cost_per_fixed", (2_000, 0.7, 0.015)),
        ("cost of an attempt +100 %", "cost_per_fixed", (2_000, 0.7, 0.02)),
    ]
    lines = [["change after 1,000 defects", "reported after"]]
    for title, metric, new in changes:
        detected = []
        for seed in range(times):
            detector, first = AnomalyDetector(), float("inf")
            for n, row in enumerate(_fixes(np.random.default_rng(seed), [old, new]), 1):
                found = detector.observe([], n * _SECOND, [row])
                if n > old[0] and any(one.metric == metric for one in found):
                    first = n - old[0]
                    break
            detected.append(first)
        lines.append([title, _told(detected).removesuffix(" s") + " defects"])
    detector, alarms = AnomalyDetector(), 0
    for n, row in enumerate(_fixes(np.random.default_rng(times), [(defects, 0.7, 0.01)]), 1):
        alarms += len(detector.observe([], n * _SECOND, [row]))
    _table(
        f"Fixes: median of {times} changes; and {alarms} false alarms in {defects:,} defects.",
        lines,
    )


def ill_behaved(hours: int) -> None:
    """Means that are never at rest."""
    cases = [
        ("the mean wanders by 5 %", Traffic(10.0, wander=0.05)),
        ("the mean wanders by 20 %", Traffic(10.0, wander=0.2)),
        ("the mean swings by ±20 % a day", Traffic(10.0, swing=0.2)),
        ("the mean swings by ±50 % a day", Traffic(10.0, swing=0.5)),
    ]
    lines = [["latency at 10 calls/s, σ = 0.5", "per 1,000 model-hours"]]
    lines += [[name, f"{false_alarms(traffic, hours):.0f}"] for name, traffic in cases]
    _table(f"Anomalies where nothing happens at once ({hours:,} model-hours each).", lines)


def choice(times: int, hours: int) -> None:
    """Where the defaults come from."""
    traffic = Traffic(10.0)
    lines = [
        ["tick, delta, threshold, warm-up", "false alarms", "+20 %", "+100 %", "errors 1 → 5 %"]
    ]
    for seconds, delta, threshold, warm_up in (
        (1.0, 0.5, 15.0, 30),
        (15.0, 0.5, 15.0, 30),
        (5.0, 0.5, 10.0, 30),
        (5.0, 0.5, 15.0, 10),
        (5.0, 0.5, 15.0, 30),
        (5.0, 0.5, 25.0, 30),
        (5.0, 1.0, 8.0, 30),
        (5.0, 0.25, 30.0, 30),
    ):
        it = Sensitivity(delta, threshold, warm_up)
        lines.append(
            [
                f"{seconds:g} s, {delta:g}, {threshold:g}, {warm_up}",
                f"{false_alarms(traffic, hours, it, seconds):.1f}",
                *(
                    _told(delays(traffic, change, times, it, seconds))
                    for change in (("latency", 1.2), ("latency", 2.0), ("error_rate", 5.0))
                ),
            ]
        )
    _table(f"The choice, at 10 calls/s, σ = 0.5 ({hours:,} model-hours each).", lines)


def _river() -> dict[str, Callable[[], Callable[[float], bool]]]:
    try:
        from river import drift
    except ImportError:
        return {}

    def of(make: Callable[[], Any]) -> Callable[[], Callable[[float], bool]]:
        def fresh() -> Callable[[float], bool]:
            test = make()

            def update(x: float) -> bool:
                test.update(x)
                return bool(test.drift_detected)

            return update

        return fresh

    return {
        "river Page-Hinkley, alpha 0.9999": of(
            lambda: drift.PageHinkley(min_instances=30, delta=0.5, threshold=15, alpha=0.9999)
        ),
        "river ADWIN, delta 0.002": of(lambda: drift.ADWIN(delta=0.002, clock=1)),
        "river ADWIN, delta 1e-6": of(lambda: drift.ADWIN(delta=1e-6, clock=1)),
    }


def _ours() -> Callable[[float], bool]:
    test = PageHinkley(0.5, 15.0, 30)

    def update(x: float) -> bool:
        nonlocal test
        found = test.update(x) != 0
        if found:
            test = PageHinkley(0.5, 15.0, 30)
        return found

    return update


def tests(times: int, samples: int) -> None:
    """Page-Hinkley or ADWIN, on streams of independent normals of standard deviation 1."""
    shifts = (0.5, 1.0, 2.0, 4.0)
    lines = [
        ["test", "false alarms in 1 M samples", *(f"shift {s:g}" for s in shifts), "µs a sample"]
    ]
    for name, fresh in {"ours": _ours, **_river()}.items():
        stream = np.random.default_rng(0).normal(size=samples).tolist()
        update = fresh()
        began = perf_counter()
        false = sum(map(update, stream))
        took = perf_counter() - began
        line = [name, f"{false / samples * 1e6:,.0f}"]
        for shift in shifts:
            told = []
            for seed in range(times):
                stream = np.random.default_rng(seed).normal(size=720 + 720)
                stream[720:] += shift
                update = fresh()
                found = [i for i, x in enumerate(stream.tolist()) if update(x)]
                told.append(next((i - 719 for i in found if i >= 720), float("inf")))
            line.append(_told(told).removesuffix(" s"))
        lines.append([*line, f"{took / samples * 1e6:.2f}"])
    _table(
        f"Which test: samples to detect a shift (median of {times}, – : not in 720), in standard\n"
        f"deviations, after 720 samples; and false alarms in one stream of {samples:,}.",
        lines,
    )


def cost(ticks: int) -> None:
    """A tick of 100 models, and the memory of one."""
    traffic = Traffic(10.0)
    streams = [list(traffic.rows(np.random.default_rng(i), ticks)) for i in range(100)]
    rows = [
        [("openai", f"model-{i}", *stream[t][2:]) for i, stream in enumerate(streams)]
        for t in range(ticks)
    ]
    tracemalloc.start()
    detector, took = AnomalyDetector(), []
    for tick in range(ticks):
        detector.observe(rows[tick], tick * _SECOND)
    held = tracemalloc.get_traced_memory()[0] / 100
    tracemalloc.stop()
    detector = AnomalyDetector()
    for tick in range(ticks):
        began = thread_time()
        detector.observe(rows[tick], tick * _SECOND)
        took.append(thread_time() - began)
    assert detector.watched == 100, detector.watched
    live = list(islice(took, ticks // 2, None))
    _table(
        "What it costs (target: a tick of 100 models under 5 ms).",
        [
            ["", "median", "slowest"],
            ["a tick of 100 models", f"{median(live) * 1e3:.2f} ms", f"{max(live) * 1e3:.2f} ms"],
            ["memory of a model", f"{held:,.0f} bytes", ""],
        ],
    )


def main(arguments: list[str] | None = None) -> None:
    """Print all tables; about five minutes."""
    parser = argparse.ArgumentParser(prog="python -m benches anomalies")
    parser.add_argument("--smoke", action="store_true", help="seconds; the figures mean nothing")
    smoke = parser.parse_args(arguments).smoke
    print(f"Anomalies. {conditions()}.")
    cost(60 if smoke else 400)
    tests(2 if smoke else 100, 2_000 if smoke else 1_000_000)
    detection(1 if smoke else 50, 1 if smoke else 480)
    fixes(2 if smoke else 50, 2_000 if smoke else 200_000)
    ill_behaved(1 if smoke else 240)
    choice(1 if smoke else 50, 1 if smoke else 240)


if __name__ == "__main__":
    main()
