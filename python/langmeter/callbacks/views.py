"""Figures of the handlers, each read from one snapshot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from langmeter.snapshot import ComponentStats, DefectStats, Distribution, Rate, Snapshot, Tokens


class View:
    """Figures of one snapshot.

    A handler is a view of its own recorder: each property takes a whole snapshot of it, so that two
    properties are of two moments. `handler.of(snapshot)` reads all of them from one.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        if not isinstance(snapshot, Snapshot):
            raise TypeError(
                f"snapshot must be a Snapshot, got {snapshot!r}; pass what meter.snapshot() returns"
            )
        self._snapshot = snapshot

    def snapshot(self) -> Snapshot:
        """Return the snapshot that the figures are read from."""
        return self._snapshot


class TokenView(View):
    """Tokens in one snapshot."""

    @property
    def input_tokens(self) -> int:
        """Input tokens of all models, cached ones included."""
        return self.snapshot().totals.tokens.input

    @property
    def output_tokens(self) -> int:
        """Output tokens of all models, reasoning included."""
        return self.snapshot().totals.tokens.output

    @property
    def total_tokens(self) -> int:
        """Tokens of all models, by the provider's own total where it sends one."""
        return self.snapshot().totals.tokens.total

    @property
    def provider_usage(self) -> Mapping[str, Tokens]:
        """Token counts by provider, over all its models."""
        usage: dict[str, Tokens] = {}
        for (provider, _), stats in self.snapshot().models.items():
            usage[provider] = usage.get(provider, Tokens()) + stats.tokens
        return MappingProxyType(usage)


class CostView(View):
    """Money in one snapshot, US dollars."""

    @property
    def total_cost(self) -> Decimal | None:
        """US dollars of all priced calls; None where none has a price.

        Calls that wait for their price are priced first, as by `snapshot()`.
        """
        return self.snapshot().totals.cost

    @property
    def provider_costs(self) -> Mapping[str, Decimal]:
        """US dollars by provider; a provider none of whose calls has a price is not in it."""
        costs: dict[str, Decimal] = {}
        for (provider, _), stats in self.snapshot().models.items():
            if stats.cost is not None:
                costs[provider] = costs.get(provider, Decimal(0)) + stats.cost
        return MappingProxyType(costs)

    @property
    def label_costs(self) -> Mapping[tuple[str, str], Decimal]:
        """US dollars by `(key, value)` of `labels`; those without a price are not there."""
        stats = self.snapshot().labels.items()
        return MappingProxyType({key: s.cost for key, s in stats if s.cost is not None})


class PerformanceView(View):
    """Times and rates of model calls in one snapshot."""

    def percentile(self, q: float, *, model: str | None = None) -> float:
        """Latency of model calls at a percentile, seconds; nan before the first.

        `q` is in percent, 0 or from 1 to 100: `percentile(95)`. Of all models, or of one as the
        response names it: `model="gpt-4o-2024-08-06"`, with its provider
        `"openai/gpt-4o-2024-08-06"`.
        Raises ValueError for a `q` outside, and for a fraction between 0 and 1.
        """
        if not (isinstance(q, int | float) and math.isfinite(q) and 0 <= q <= 100):
            raise ValueError(f"q = {q!r}: must be in percent, 0 to 100; p95 is percentile(95)")
        if 0 < q < 1:
            raise ValueError(
                f"q must be in percent, 0 to 100, got the fraction {q!r}; write "
                f"percentile({100 * q:g}), or ask snapshot().totals.latency.quantile({q!r})"
            )
        snapshot = self.snapshot()
        if model is None:
            return snapshot.totals.latency.quantile(q / 100)
        latencies = [
            stats.latency
            for (provider, name), stats in snapshot.models.items()
            if model in (name, f"{provider}/{name}")
        ]
        return Distribution.total(latencies).quantile(q / 100)

    @property
    def throughput(self) -> float:
        """Model calls ended per second, over the last minute."""
        return self.throughput_over(60).requests

    @property
    def errors_per_second(self) -> float:
        """Model calls that failed per second, over the last minute."""
        return self.throughput_over(60).errors

    def throughput_over(self, seconds: int) -> Rate:
        """Calls, tokens and errors per second over the last 60, 300 or 900 seconds.

        `throughput_over(300).per_minute.tokens` is tokens per minute over five minutes. Raises
        ValueError for another window.
        """
        rates = self.snapshot().rates
        if seconds not in rates:
            windows = ", ".join(map(str, rates))
            raise ValueError(f"seconds = {seconds!r}: must be one of the windows {windows}")
        return rates[seconds]

    @property
    def in_flight(self) -> int:
        """Model calls that have begun and not ended."""
        return self.snapshot().in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most model calls that were in flight at once."""
        return self.snapshot().peak_in_flight


class StreamingView(View):
    """Times of streamed calls in one snapshot."""

    @property
    def time_to_first_token(self) -> Distribution:
        """From the start of a streamed call to its first output, seconds, over all models."""
        return self.snapshot().totals.time_to_first_token

    @property
    def inter_token_latency(self) -> Distribution:
        """From one piece of output to the next, seconds, over all models."""
        return self.snapshot().totals.inter_token_latency

    @property
    def longest_gap(self) -> Distribution:
        """The longest of each stream's gaps between pieces of output, seconds, over all models."""
        return self.snapshot().totals.longest_gap

    def output_tokens_per_second(self, q: float = 0.5) -> float:
        """Output tokens a second of streams at quantile `q`; nan before the first.

        By the tokens of the final usage. Raises ValueError outside [0, 1].
        """
        return self.snapshot().totals.output_tokens_per_second(q)


class DefectView(View):
    """Fixes in one snapshot."""

    @property
    def success_rate(self) -> float:
        """Share of defects that were fixed, 0 to 1; nan before the first.

        Fixes counted by `record_fix` are among them, each as a defect of its own.
        """
        snapshot = self.snapshot()
        fixes = [stats for (kind, _), stats in snapshot.components.items() if kind == "fix"]
        rows = snapshot.defects.values()
        fixed = sum(stats.outcomes["ok"] for stats in fixes) + sum(row.fixed for row in rows)
        failed = sum(stats.errors for stats in fixes)
        closed = sum(stats.outcomes["ok"] for stats in fixes) + sum(row.closed for row in rows)
        return fixed / (closed + failed) if closed + failed else float("nan")

    @property
    def rows(self) -> Mapping[tuple[str, str, str, str], DefectStats]:
        """Attempts by defect type, provider, model and severity."""
        return self.snapshot().defects

    @property
    def fixes(self) -> Mapping[str, ComponentStats]:
        """Figures by kind of fix."""
        components = self.snapshot().components.items()
        return MappingProxyType(
            {name: stats for (kind, name), stats in components if kind == "fix"}
        )
