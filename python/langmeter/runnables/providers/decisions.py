"""Decisions: which provider a call went to and why, in a closed set of words."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias, get_args
from weakref import WeakSet

from langmeter._base.forks import at_fork

#: Why a provider was chosen: by the policy, by turn among equals, because it holds the
#: conversation's cache, as the probe of its circuit, after another one failed, as one that is
#: cheaper than what a budget refused. "wait": all of them are to be left alone; "none": the call
#: failed.
Why: TypeAlias = Literal[
    "policy", "rotated", "sticky", "probe", "fallback", "cheaper", "wait", "none"
]
#: Why a provider could not take a call.
Obstacle: TypeAlias = Literal[
    "open",
    "probing",
    "throttled",
    "exhausted",
    "disabled",
    "context",
    "images",
    "tools",
    "structured_output",
    "budget",
    "dearer",
    "tried",
]
WHYS: Final[tuple[str, ...]] = get_args(Why)
OBSTACLES: Final[tuple[str, ...]] = get_args(Obstacle)

_MAX_DECISIONS: Final = 100
_MAX_THREADS: Final = 10_000


class Decision(NamedTuple):
    """One decision; no text of the call is in it.

    Attributes:
        provider: name of the provider; "" where there is none.
        why: one of `Why`.
        attempt: number of the attempt at the call, from 1.
        obstacles: the providers that could not take the call, each with one of `Obstacle`.
    """

    provider: str
    why: str
    attempt: int
    obstacles: Mapping[str, str]

    def __str__(self) -> str:
        others = ", ".join(f"{name}: {why}" for name, why in self.obstacles.items())
        return f"{self.provider or '-'} ({self.why}){others and f'; not {others}'}"


class Preview(NamedTuple):
    """Where a call would go now.

    Attributes:
        order: the providers that can take it, best first.
        why: one of `Why`, of the first of them.
        obstacles: the others, each with one of `Obstacle`.
        costs: USD that the call is expected to cost by provider; None without a price or a meter.
    """

    order: tuple[str, ...]
    why: str
    obstacles: Mapping[str, str]
    costs: Mapping[str, float | None]


class Explanation(NamedTuple):
    """The decision of a manager, as `explain()` returns it; `str()` of it is a few lines.

    Attributes:
        policy: its name.
        states: of each provider what its circuit says: "ready", "open", "throttled" and so on.
        counts: `(provider, why)` to how often, since the manager was made.
        last: up to 100 decisions, the newest last.
    """

    policy: str
    states: Mapping[str, str]
    counts: Mapping[tuple[str, str], int]
    last: tuple[Decision, ...]

    def __str__(self) -> str:
        lines = [f"policy: {self.policy}"]
        for name, state in self.states.items():
            counts = ", ".join(
                f"{why} {n:,}" for (who, why), n in self.counts.items() if who == name
            )
            lines.append(f"{name}: {state}; chosen: {counts or 'never'}")
        return "\n".join(lines + [f"last: {decision}" for decision in self.last[-1:]])


class DecisionLog:
    """Counts decisions, and keeps the last ones and the provider of each conversation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._last: deque[Decision] = deque(maxlen=_MAX_DECISIONS)
        self._threads: dict[str, str] = {}
        self._turn = 0
        _all.add(self)

    def add(self, decision: Decision) -> None:
        """Count a decision."""
        key = decision.provider, decision.why
        counts = self._counts
        with self._lock:
            counts[key] = counts.get(key, 0) + 1
            self._last.append(decision)

    def next_turn(self) -> int:
        """Return how often equals have been asked for a turn; the next answer is greater."""
        with self._lock:
            self._turn += 1
            return self._turn - 1

    @property
    def turn(self) -> int:
        """The number that `next_turn` returns next."""
        return self._turn

    def remember(self, thread: str, provider: str) -> None:
        """Keep the provider of a conversation; of 10,000 the least recent one is forgotten."""
        with self._lock:
            self._threads.pop(thread, None)
            self._threads[thread] = provider
            if len(self._threads) > _MAX_THREADS:
                del self._threads[next(iter(self._threads))]

    def provider_of(self, thread: str) -> str:
        """Return the provider of a conversation, "" if it is not known."""
        return self._threads.get(thread, "")

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """`(provider, why)` to how often."""
        with self._lock:
            return MappingProxyType(dict(self._counts))

    @property
    def last(self) -> tuple[Decision, ...]:
        """The last decisions, the newest last."""
        with self._lock:
            return tuple(self._last)


_all: WeakSet[DecisionLog] = WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each._lock = threading.Lock()  # another thread may have held it


at_fork(after_in_child=_after_fork)
