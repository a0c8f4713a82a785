"""Calls of several models and tenants from threads, for as long as a test looks at them."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from langchain_core.messages import BaseMessage

from langmeter import Budget, Meter
from langmeter.runnables.providers import ProviderManager
from tests.support.chats import ScriptedChat, refusal

#: Vendor, model, calls among a hundred, seconds between two pieces of an answer.
MODELS = (
    ("openai", "gpt-4o-mini", 40, 0.004),
    ("anthropic", "claude-haiku-4-5", 25, 0.006),
    ("openai", "gpt-4o", 20, 0.008),
    ("google", "gemini-2.5-flash", 10, 0.003),
    ("anthropic", "claude-sonnet-4-5", 5, 0.015),
)


class _Talker(ScriptedChat):
    """Streams a few pieces; some calls fail."""

    gap: float = 0.005
    rng: Any = None

    def _entry(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> Any:
        if self.rng.random() < 0.03:
            return refusal(429)
        pieces: list[Any] = [self.rng.lognormvariate(-3.5, 0.5)]
        for _ in range(self.rng.randrange(4, 12)):
            pieces += ["piece ", self.gap * self.rng.uniform(0.5, 2)]
        self.usage = (self.rng.randrange(300, 3000), self.rng.randrange(50, 600), 0)
        return pieces


class Load:
    """Calls of `MODELS` through a meter with budgets, labels and a manager; a context manager.

    Args:
        threads: how many call at once.
    """

    def __init__(self, threads: int = 4) -> None:
        self.meter = Meter(
            labels=("team", ("tenant", "feature")),
            budgets=[
                Budget(usd="2.50", per="hour", name="search, hourly"),
                Budget(usd=250, per="day", name="all, daily"),
                Budget(tokens=40_000_000, per="day", name="tokens, daily"),
            ],
            stall_after=0.5,
        )
        rng = random.Random(5)
        self._models = [
            _Talker(vendor=vendor, model=model, gap=gap, rng=rng)
            for vendor, model, _, gap in MODELS
        ]
        gone = [ConnectionResetError("gone")] * 400
        nim = ScriptedChat(vendor="nvidia", model="llama-3.1-70b", script=gone)
        self._manager = ProviderManager({"nim": nim, "openai": self._models[2]}, meter=self.meter)
        silent: list[Any] = ["one ", "two ", 3600.0]
        self._silent = ScriptedChat(vendor="openai", model="o4-mini", script=[silent])
        self._rng, self._stopped = rng, threading.Event()
        loops = [self._calls] * threads + [self._fixes, self._stall]
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]

    def __enter__(self) -> Load:
        self.meter.cost.prices.warm(wait=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads[:-1]:  # the last one is silent for an hour
            thread.join()

    def _config(self) -> Any:
        rng = self._rng
        metadata = {
            "team": rng.choice(("search", "search", "checkout", "support")),
            "tenant": rng.choice(("acme", "initech", "globex")),
            "feature": rng.choice(("chat", "fix")),
        }
        return {"callbacks": [self.meter], "metadata": metadata}

    def _calls(self) -> None:
        weights = [share for _, _, share, _ in MODELS]
        while not self._stopped.is_set():
            model = self._rng.choices(self._models, weights)[0]
            try:
                for _ in model.stream("a question", config=self._config()):
                    pass
            except Exception:
                time.sleep(0.01)

    def _fixes(self) -> None:
        number = 0
        while not self._stopped.wait(0.2):
            number += 1
            kind, severity = self._rng.choice((("RESOURCE_LEAK", "high"), ("NULL_DEREF", "medium")))
            try:
                with self.meter.defects.attempt(f"D{number}", type=kind, severity=severity) as try_:
                    self._manager.invoke("fix it", config=self._config())
                    if self._rng.random() < 0.7:
                        try_.succeeded()
                    else:
                        try_.failed()
            except Exception:
                time.sleep(0.05)

    def _stall(self) -> None:
        for _ in self._silent.stream("a question", config=self._config()):
            if self._stopped.is_set():
                return
