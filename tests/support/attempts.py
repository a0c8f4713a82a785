"""Snapshots of attempts at defects whose outcomes are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from langmeter import Snapshot, _core
from langmeter.testing import ManualClock

LLM = _core.KINDS.index("llm")
#: Pico-dollars of a cent.
CENT = 10**10


class Tries:
    """A recorder, and the attempts that it counts; a second passes in each model call."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.recorder = _core.Recorder(clock=self.clock)
        self.attempts = _core.Attempts(self.recorder)
        self._run = 1

    def defect(
        self,
        defect_id: str,
        outcomes: Sequence[str],
        *,
        model: str | None = "large",
        defect_type: str = "leak",
        severity: str = "high",
        cost: int | None = CENT,
    ) -> None:
        """Try a defect once for each outcome; `cost` in pico-dollars is of one model call."""
        for outcome in outcomes:
            number = self.attempts.open(defect_id, defect_type, severity)
            if model is not None:
                self._run += 1
                run = UUID(int=(self._run << 64) | 12345)
                self.recorder.run_started(run, None, LLM, "chat", "acme", model)
                self.attempts.join(run, number)
                self.clock.advance(1.0)
                usage = (10, 5, 15, *([0] * 14))
                self.recorder.run_ended(run, LLM, 0, "acme", model, usage, cost)
            self.attempts.judge(number, outcome, "tests")
            self.attempts.close(number, "unverified")

    def model(self, fixed: int, closed: int, model: str = "large", **about: str) -> Tries:
        """Try `closed` defects once, of which `fixed` are fixed."""
        for number in range(closed):
            outcome = "fixed" if number < fixed else "failed"
            self.defect(f"{about} {model} {number}", [outcome], model=model, **about)  # type: ignore[arg-type]
        return self

    def snapshot(self) -> Snapshot:
        """Return the figures."""
        return Snapshot(self.recorder.snapshot())


def tried(models: Iterable[tuple[str, int, int]]) -> Snapshot:
    """Return one snapshot of models: name, fixed defects, closed defects."""
    tries = Tries()
    for model, fixed, closed in models:
        tries.model(fixed, closed, model)
    return tries.snapshot()
