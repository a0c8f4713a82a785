"""A recorder with calls of several models, labels, components and failures, for exporters."""

from __future__ import annotations

import random
from uuid import uuid4

from langmeter import Snapshot, _core
from langmeter.testing import ManualClock

_KIND = {name: code for code, name in enumerate(_core.KINDS)}
#: Pico-dollars of a tenth of a cent.
PRICE = 10**9
MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4"))
EPOCH = 1_790_000_000


class Traffic:
    """Calls that a test makes; the same ones for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.clock.advance(EPOCH)
        self.recorder = _core.Recorder(max_series=4096, max_runs=64, clock=self.clock)
        self.attempts = _core.Attempts(self.recorder)
        self.rng = random.Random(seed)
        self.durations: dict[str, list[float]] = {}

    def snapshot(self) -> Snapshot:
        """Return the figures."""
        return Snapshot(self.recorder.snapshot())

    def call(
        self,
        provider: str = "openai",
        model: str = "gpt-4o",
        *,
        seconds: float | None = None,
        gaps: int = 0,
        error: str | None = None,
        priced: bool = True,
        usage: bool = True,
        audio: int = 0,
        team: str = "search",
        tokens: tuple[int, int] = (1000, 100),
    ) -> None:
        """One call: 1,000 input tokens, a quarter of them cached, and 100 of output."""
        seconds = self.rng.lognormvariate(0, 0.8) if seconds is None else seconds
        run = uuid4()
        labels = [("team", team)]
        self.recorder.run_started(run, None, 0, "chat", provider, model, labels=labels)
        for _ in range(gaps):
            self.clock.advance(seconds / (gaps + 1))
            self.recorder.token(run)
        self.clock.advance(seconds / (gaps + 1))
        counts = (*tokens, sum(tokens), tokens[0] // 4, 0, 0, tokens[1] // 5, audio, *[0] * 11)
        answered = usage and error is None
        self.recorder.run_ended(
            run,
            0,
            int(error is not None),
            usage=counts if answered else None,
            cost=PRICE if answered and priced else None,
            error=error,
        )
        self.durations.setdefault(model, []).append(seconds)

    def component(
        self, kind: str, name: str, seconds: float = 0.1, error: str | None = None
    ) -> None:
        """One run of a component."""
        run = uuid4()
        self.recorder.run_started(run, None, _KIND[kind], name)
        self.clock.advance(seconds)
        self.recorder.run_ended(run, _KIND[kind], int(error is not None), error=error)

    def defect(self, name: str, outcome: str, provider: str = "openai") -> None:
        """One attempt at a defect with a call under it."""
        number = self.attempts.open(name, "leak", "high")
        run = uuid4()
        self.recorder.run_started(run, None, 0, "chat", provider, "gpt-4o")
        self.attempts.join(run, number)
        self.clock.advance(2.0)
        counts = (1000, 100, 1100, *[0] * 16)
        self.recorder.run_ended(run, 0, 0, usage=counts, cost=PRICE)
        self.attempts.judge(number, outcome, "tests")
        self.attempts.close(number, "unverified")

    def everything(self, n: int = 200) -> Traffic:
        """Calls of all kinds, `n` of each model."""
        for provider, model in MODELS:
            for place in range(n):
                error = "RateLimitError 429" if place % 20 == 7 else None
                team = ("search", "checkout")[place % 2]
                self.call(provider, model, gaps=4 * (place % 3), error=error, team=team)
            self.call(provider, model, audio=30)
        for _ in range(20):
            self.component("tool", "search", self.rng.uniform(0.05, 0.4))
            self.component("agent", "planner", self.rng.uniform(1, 4))
            self.component("retriever", "documents", self.rng.uniform(0.01, 0.1))
        self.call("acme", "home-1", priced=False)
        self.call("acme", "silent-1", usage=False)
        for place, outcome in enumerate(("fixed", "failed", "fixed", "does_not_compile")):
            self.defect(f"D{place}", outcome)
        return self
