"""Snapshots made of given figures, for advice."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from langmeter import Snapshot, _core
from langmeter.analysis import Finding, advise
from langmeter.prices import PriceBook

FIELDS = (
    *("input", "output", "total", "cache_read", "cache_write", "cache_write_1h", "reasoning"),
    *("audio_input", "audio_output", "image_input", "image_output", "video_input", "video_output"),
    *("cached_audio", "cached_image", "citation", "web_searches", "file_searches", "estimated"),
)


LLM = _core.KINDS.index("llm")


class Traffic:
    """Calls put straight into a recorder."""

    def __init__(self, prices: PriceBook | None = None) -> None:
        self.recorder = _core.Recorder(significant_digits=2)
        self.prices = prices or PriceBook()

    def call(
        self,
        name: str,
        n: int = 1,
        *,
        outcome: str = "ok",
        tier: str = "",
        priced: bool = True,
        streamed: bool = False,
        **counts: int,
    ) -> Traffic:
        """`n` calls alike."""
        provider, _, model = name.partition("/")
        counts.setdefault("total", counts.get("input", 0) + counts.get("output", 0))
        usage = tuple(counts.get(field, 0) for field in FIELDS) if counts["total"] else None
        card = self.prices.card(provider, model, tier=tier) if usage and priced else None
        cost = card.cost(usage) if card and usage else None
        for _ in range(n):
            run = uuid4()
            self.recorder.run_started(run, None, LLM, "chat", provider, model)
            if streamed:
                self.recorder.token(run)
            self.recorder.run_ended(run, LLM, _core.OUTCOMES.index(outcome), usage=usage, cost=cost)
        return self

    def advise(self, **options: Any) -> list[Finding]:
        return advise(Snapshot(self.recorder.snapshot()), prices=self.prices, **options)


def only(findings: list[Finding], kind: str) -> Finding:
    """The one finding of a kind."""
    (finding,) = (finding for finding in findings if finding.kind == kind)
    return finding


def own(**spec: Any) -> PriceBook:
    """Own prices of one model, USD per million tokens, and of one to compare it with."""
    return PriceBook({"acme/one": spec, "acme/two": {"input": 1, "output": 4}})
