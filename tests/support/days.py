"""A day of a fix generator's traffic, and the history that its meter would have written."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from langmeter import Snapshot, _core
from langmeter.history.store import Store
from langmeter.testing import ManualClock
from tests.support.histories import row

#: Models that the catalogue has prices of.
MODELS = (
    *(("openai", "gpt-4o-mini"), ("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5")),
    *(("google", "gemini-2.5-flash"), ("openai", "gpt-4.1"), ("anthropic", "claude-haiku-4-5")),
)
#: Unix second of 2026-10-14 00:00 UTC.
MIDNIGHT = 1_791_936_000
_KIND = {name: code for code, name in enumerate(_core.KINDS)}
#: Pico-dollars of an input and of an output token of the cheapest model.
_RATES = (150_000, 600_000)


class Day:
    """Calls, tools, pipelines and attempts of some minutes; the same ones for the same seed.

    Args:
        models: how many models are called, those of `MODELS` first, the others unpriced.
        seed: decides about durations, tokens and outcomes.
        slower: how many times longer a call takes than otherwise.
    """

    def __init__(self, models: int = 6, *, seed: int = 1, slower: float = 1.0) -> None:
        self.rng = random.Random(seed)
        more = [("acme", f"home-{number}") for number in range(models - len(MODELS))]
        self.models = [*MODELS[:models], *more]
        self.slower = slower
        self.clock = ManualClock()
        self.clock.advance(MIDNIGHT - 1)
        self.recorder = _core.Recorder(clock=self.clock)
        self.attempts = _core.Attempts(self.recorder)
        self._run, self._seconds = 0, 0.0

    def snapshot(self) -> Snapshot:
        """Return the figures so far."""
        return Snapshot(self.recorder.snapshot())

    def minute(self, calls: int) -> None:
        """Let a minute pass, in which `calls` pipelines run, one after the other."""
        left = 60.0
        for _ in range(calls):
            left -= self.pipeline()
        self._pass(max(left, 0.0))

    def pipeline(self) -> float:
        """Run a chain with a retriever, a tool and a model; every tenth is an attempt at a fix.

        Returns the seconds that it took.
        """
        begun, chain = self._seconds, self._next()
        self.recorder.run_started(chain, None, _KIND["chain"], "answer")
        for kind, name, seconds in (
            ("retriever", "documents", 0.05),
            ("tool", "static analysis", 0.12),
        ):
            self._component(chain, kind, name, seconds)
        place = min(int(self.rng.expovariate(0.6)), len(self.models) - 1)
        if self.rng.random() < 0.2:
            place = self.rng.randrange(len(self.models))
        attempt = self.rng.random() < 0.1
        self._call(chain, place, attempt=attempt)
        self.recorder.run_ended(chain, _KIND["chain"], 0)
        return self._seconds - begun

    def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._seconds += seconds

    def _call(self, chain: UUID, place: int, *, attempt: bool) -> None:
        provider, model = self.models[place]
        rng, run = self.rng, self._next()
        error = rng.choice(("RateLimitError 429", "APITimeoutError")) if rng.random() < 0.02 else ""
        labels = [("team", rng.choice(("search", "checkout")))]
        number = 0
        if attempt:
            kind, severity = rng.choice((("RESOURCE_LEAK", "high"), ("NULL_DEREF", "medium")))
            number = self.attempts.open(f"D{self._run}", kind, severity)
        self.recorder.run_started(run, chain, 0, "chat", provider, model, labels=labels)
        if attempt:
            self.attempts.join(run, number)
        first = 0.12 * (1 + place / 8) * rng.lognormvariate(0, 0.5) * self.slower
        self._pass(first)
        pieces = 6 if place % 2 == 0 and not error else 0
        for _ in range(pieces):
            self.recorder.token(run)
            self._pass(first * rng.uniform(0.05, 0.4))
        tokens = round(rng.lognormvariate(7, 0.6)), round(rng.lognormvariate(5.3, 0.7))
        usage = (*tokens, sum(tokens), tokens[0] // 3, *[0] * 15)
        cost = sum(n * rate for n, rate in zip(tokens, _RATES, strict=True)) * (1 + 3 * place)
        self.recorder.run_ended(
            run,
            0,
            int(bool(error)),
            usage=None if error else usage,
            cost=None if error or place >= len(MODELS) else cost,
            error=error or None,
        )
        if attempt:
            chance = (0.75, 0.85, 0.9, 0.5)[place % 4]
            others = ("failed", "does_not_compile", "does_not_apply", "empty", "infrastructure")
            outcome = "fixed" if rng.random() < chance else rng.choice(others)
            self.attempts.judge(number, outcome, "tests")
            self.attempts.close(number, "unverified")

    def _component(self, parent: UUID, kind: str, name: str, seconds: float) -> None:
        run = self._next()
        self.recorder.run_started(run, parent, _KIND[kind], name)
        self._pass(seconds * self.rng.uniform(0.5, 2))
        self.recorder.run_ended(run, _KIND[kind], 0)

    def _next(self) -> UUID:
        self._run += 1
        return UUID(int=(self._run << 64) | 12345)


def traffic(minute: int, most: int) -> int:
    """Return how many pipelines run in a minute of the day: few at night, most after noon."""
    return 1 + round(most * (0.5 - 0.5 * math.cos(2 * math.pi * minute / 1440)) ** 2)


def write_history(path: Path, day: Day, minutes: Iterable[int], most: int = 20) -> Snapshot:
    """Write a history of the minutes; returns all that was counted."""
    store = Store(path)
    before, rows = day.snapshot(), []
    first = before
    for number, minute in enumerate(minutes, 1):
        day.minute(traffic(minute, most))
        after = day.snapshot()
        rows.append(row(after - before, number=number))
        before = after
    store.append(rows)
    return before - first
