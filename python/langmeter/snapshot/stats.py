"""Statistics of one series of a snapshot: a model, a component, a label, a hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Any

from langmeter import _core
from langmeter._base.money import usd
from langmeter._base.text import format_duration, label_name, plural, short_name
from langmeter._core import Distribution
from langmeter.snapshot.counts import TOKEN_INDEXES, Rate, Tokens, WholeNumbers, rates_by_window
from langmeter.snapshot.serialize import COUNTER_INDEX


class Overhead:
    """Time spent inside one of langmeter's own hooks. One event in 61 is timed."""

    __slots__ = ("_nanoseconds",)

    def __init__(self, sampled: Distribution) -> None:
        # Kept a thousandfold: durations are counted in microseconds, and most hooks take less.
        self._nanoseconds = sampled

    @property
    def timed(self) -> int:
        """Events that were timed."""
        return self._nanoseconds.count

    @property
    def mean(self) -> float:
        """Seconds an event, nan when none was timed."""
        return self._nanoseconds.mean / 1000

    def quantile(self, q: float) -> float:
        """Seconds at quantile q, nan when none was timed. Raises ValueError outside [0, 1]."""
        return self._nanoseconds.quantile(q) / 1000

    @property
    def total(self) -> float:
        """Seconds that all events took, an estimate by those that were timed."""
        return self._nanoseconds.sum / 1000 * _core.HOOKS_TIMED

    def __repr__(self) -> str:
        mean = format_duration(self.mean)
        return f"<Overhead: {plural(self.timed, 'event')} timed, mean {mean}>"


class Immutable:
    """Attributes are set once, by the constructor, in the instance's own dict."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot delete {name!r}")


class SeriesCounts(Immutable):
    """Figures that models, components and totals share: outcomes and their counters."""

    _counters: tuple[int, ...]

    def _count(self, name: str) -> int:
        return self._counters[COUNTER_INDEX[name]]

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        """Runs by outcome: ok, error, cancelled, abandoned, interrupted, cache_hit."""
        return MappingProxyType({name: self._count(name) for name in _core.OUTCOMES})

    @cached_property
    def calls(self) -> int:
        """Ended runs, whatever their outcome."""
        return sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        """Runs that ended with an error; cancelled and interrupted ones are none."""
        return self._count("error")

    @property
    def success_rate(self) -> float:
        """Share of ok among ok and error, 0 to 1; nan when there was neither."""
        ok, errors = self._count("ok"), self.errors
        return ok / (ok + errors) if ok + errors else float("nan")

    @property
    def self_seconds(self) -> float:
        """Time during which none of the runs that these started was running, in all."""
        return self._count("self_time") / 1e9

    @property
    def critical_seconds(self) -> float:
        """Time that the end of a whole pipeline waited for these, in all."""
        return self._count("critical_time") / 1e9

    @property
    def saved_if_twice_seconds(self) -> float:
        """By how much sooner pipelines would have ended, in all, were these twice as fast."""
        return self._count("saved_if_twice_as_fast") / 1e9


class ComponentStats(SeriesCounts):
    """A chain, tool, retriever, model or fix by its name."""

    _native: _core.SeriesStats

    def __init__(self, native: _core.SeriesStats) -> None:
        vars(self).update(_counters=native.counters, _native=native)

    @property
    def kind(self) -> str:
        """One of chain, node, agent, tool, retriever, llm, fix."""
        return self._native.kind

    @property
    def name(self) -> str:
        """Name of the component; `other` stands for all beyond `max_series`."""
        return self._native.a

    @cached_property
    def latency(self) -> Distribution:
        """Start to end, seconds."""
        return self._native.measure("latency")

    @cached_property
    def failed_latency(self) -> Distribution:
        """The part of `latency` of runs that failed or were cancelled, seconds."""
        return self._native.measure("failed_latency")

    @cached_property
    def self_time(self) -> Distribution:
        """Time of each run during which none of the runs it started was running, seconds."""
        return self._native.measure("self_time")

    def __repr__(self) -> str:
        name = short_name(f"{self.kind} {self.name}")
        return f"<ComponentStats {name}: {ended_text(self)}>"


class CallStats(SeriesCounts):
    """Calls of models: tokens, money, time. Models, labels and totals have them."""

    _windows: Iterable[tuple[int, ...]]
    _distribution: Callable[[str], Distribution]
    _name: str
    in_flight: int
    peak_in_flight: int

    def __init__(
        self,
        name: str,
        counters: tuple[int, ...],
        windows: Iterable[tuple[int, ...]],
        distribution: Callable[[str], Distribution],
        *,
        in_flight: int = 0,
        peak: int = 0,
    ) -> None:
        vars(self).update(
            _counters=counters,
            _windows=windows,
            _distribution=distribution,
            _name=name,
            in_flight=in_flight,
            peak_in_flight=peak,
        )

    @cached_property
    def tokens(self) -> Tokens:
        """Token counts by kind."""
        return Tokens(*(self._counters[place] for place in TOKEN_INDEXES))

    @property
    def cost(self) -> Decimal | None:
        """US dollars, exact; None while no call was priced."""
        return usd(self._count("cost")) if self.priced_calls else None

    def cost_of(self, outcome: str) -> Decimal | None:
        """The part of the cost that went to calls with this outcome: "error" or "cancelled".

        None while no call was priced. Raises ValueError for another outcome.
        """
        if outcome not in ("error", "cancelled"):
            raise ValueError(f"outcome = {outcome!r}: must be 'error' or 'cancelled'")
        return usd(self._count(f"cost_{outcome}")) if self.priced_calls else None

    @property
    def billed(self) -> Decimal | None:
        """US dollars that the provider itself says it billed; None where it says nothing.

        It is for `billed_calls` calls, and stands beside `cost`, never in it.
        """
        return usd(self._count("billed")) if self.billed_calls else None

    @property
    def billed_calls(self) -> int:
        """Calls whose provider said what it billed, OpenRouter's for one."""
        return self._count("billed_calls")

    @property
    def priced_calls(self) -> int:
        """Calls with usage and a price."""
        return self._count("priced_calls")

    @property
    def unpriced_calls(self) -> int:
        """Calls with usage that no price was found for so far."""
        return self._count("unpriced_calls") - self._count("repriced_calls")

    @property
    def unpriced_tokens(self) -> int:
        """Tokens of those."""
        return self._count("unpriced_total") - self._count("repriced_total")

    @property
    def retried_calls(self) -> int:
        """Retried calls: those that `with_retry` repeats, or that were part of what it repeats."""
        return self._count("retried_calls")

    @property
    def retried_cost(self) -> Decimal | None:
        """US dollars of those; None while no call was priced."""
        return usd(self._count("retried_cost")) if self.priced_calls else None

    @property
    def recovered(self) -> int:
        """Failures that a later call under the same parent made good: a retry, a fallback.

        Several attempts in a row that fail before it are one failure, of the last one's model.
        """
        return self._count("recovered")

    @property
    def truncated(self) -> int:
        """Answers that ended at the limit of their length."""
        return self._count("truncated")

    @property
    def stalls(self) -> int:
        """Number of stalls of streams."""
        return self._count("stalls")

    @property
    def streamed(self) -> int:
        """Calls that sent at least one token while running."""
        return self._count("streamed")

    @property
    def token_events(self) -> int:
        """Pieces of output that streams sent, usually but not always a token each."""
        return self._count("token_events")

    @property
    def web_searches(self) -> int:
        """Searches the provider ran and may bill."""
        return self._count("web_searches")

    @property
    def file_searches(self) -> int:
        """Searches in stored files that the provider ran and may bill."""
        return self._count("file_searches")

    @cached_property
    def rates(self) -> Mapping[int, Rate]:
        """Events per second by window: 60, 300 and 900 seconds."""
        return rates_by_window(self._windows)

    @cached_property
    def latency(self) -> Distribution:
        """Start to end of a call, seconds; a cache hit is in none of the distributions."""
        return self._distribution("latency")

    @cached_property
    def failed_latency(self) -> Distribution:
        """The part of `latency` of calls that failed or were cancelled, seconds."""
        return self._distribution("failed_latency")

    @property
    def self_time(self) -> Distribution:
        """Seconds, equal to `latency`: a model call starts no other run."""
        return self.latency

    @cached_property
    def time_to_first_token(self) -> Distribution:
        """Start to first piece of output of a streamed call, seconds."""
        return self._distribution("time_to_first_token")

    @cached_property
    def inter_token_latency(self) -> Distribution:
        """Between one piece of output and the next of a streamed call, seconds."""
        return self._distribution("inter_token_latency")

    @cached_property
    def time_to_first_chunk(self) -> Distribution:
        """Start to first chunk of a streamed call, were it a role without a word; seconds."""
        return self._distribution("time_to_first_chunk")

    @cached_property
    def time_to_first_visible_token(self) -> Distribution:
        """Start to first output that is not reasoning, of streamed calls, seconds."""
        return self._distribution("time_to_first_visible_token")

    @cached_property
    def longest_gap(self) -> Distribution:
        """The longest of each streamed call's gaps between pieces of output, seconds."""
        return self._distribution("longest_gap")

    @cached_property
    def stream_duration(self) -> Distribution:
        """From a streamed call's first piece of output to its last, seconds."""
        return self._distribution("stream_duration")

    @cached_property
    def time_per_output_token(self) -> Distribution:
        """`stream_duration` by the output tokens after the first, by the final usage; seconds."""
        return self._distribution("time_per_output_token")

    def output_tokens_per_second(self, q: float = 0.5) -> float:
        """Output tokens a second of streamed calls at quantile `q`; nan when none was timed.

        By the final usage, because a piece of output may be many tokens. The slowest tenth writes
        at most `output_tokens_per_second(0.1)`. Raises ValueError outside [0, 1].
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q = {q!r}: must be in [0, 1]")
        each = self.time_per_output_token.quantile(1 - q)
        return 1 / each if each else float("nan")

    @cached_property
    def queue_time(self) -> Distribution:
        """Seconds that calls waited in the provider's queue, as it reports them; Groq does."""
        return self._distribution("queue_time")

    def __repr__(self) -> str:
        tokens = plural(self.tokens.total, "token")
        return f"<{type(self).__name__} {self._name}: {ended_text(self)}, {tokens}>"


class ModelStats(CallStats):
    """A model as its provider names it in the response, or the totals over all models.

    `in_flight` and `peak_in_flight` are calls at once: now, and at most since the beginning.
    """

    provider: str
    model: str

    def __init__(
        self, provider: str, model: str, *figures: Any, name: str = "", **more: Any
    ) -> None:
        super().__init__(name or short_name(f"{provider}/{model}"), *figures, **more)
        vars(self).update(provider=provider, model=model)

    @cached_property
    def input_tokens_per_call(self) -> WholeNumbers:
        """Input tokens of each call that had any, cached ones among them."""
        return WholeNumbers(self._distribution("input_tokens"))

    @cached_property
    def output_tokens_per_call(self) -> WholeNumbers:
        """Output tokens of each call that had any, those of reasoning among them."""
        return WholeNumbers(self._distribution("output_tokens"))


class LabelStats(CallStats):
    """The calls that have this value under this key, over all models.

    The value "" stands for the calls without a value under the key.
    """

    key: str
    value: str

    def __init__(self, key: str, value: str, *figures: Any) -> None:
        super().__init__(label_name((key, value)), *figures)
        vars(self).update(key=key, value=value)


def ended_text(stats: SeriesCounts) -> str:
    """Format how many calls ended, and how many of them with an error."""
    return f"{plural(stats.calls, 'call')}, {plural(stats.errors, 'error')}"
