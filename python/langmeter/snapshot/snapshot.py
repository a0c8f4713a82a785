"""What was metered up to a moment: immutable, mergeable, and read without asking again.

A snapshot is taken while recorders run on. Every counter in it is exact for some moment between the
begin and the end of the call; two counters may be of moments a few microseconds apart. Once the
calls it covers have ended, everything in it is exact.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Any

from langmeter import _core
from langmeter._base.money import usd
from langmeter._base.output import terminal_width
from langmeter._core import Distribution
from langmeter.errors import SnapshotError
from langmeter.snapshot import parse, serialize
from langmeter.snapshot import table as _table

__all__ = [
    "Anomaly",
    "ComponentStats",
    "Distribution",
    "LabelStats",
    "ModelStats",
    "Overhead",
    "Rate",
    "Snapshot",
    "Tokens",
]

#: Version of the dict and JSON form.
FORMAT = 2

_OUTCOMES = _core.OUTCOMES


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts. `input` includes what came from or went to a cache, `output` reasoning.

    `cached_audio` and `cached_image` are the parts of `cache_read` that are audio and images,
    `citation` is output that quotes what a search found.
    `estimated` is the part of `total` that was counted here because the provider sent no usage;
    `saved` are tokens of calls that LangChain's response cache answered: not spent, and in no other
    count.
    """

    input: int = 0
    output: int = 0
    total: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    video_input: int = 0
    video_output: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    citation: int = 0
    estimated: int = 0
    saved: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        if not isinstance(other, Tokens):
            return NotImplemented
        return Tokens(*(getattr(self, name) + getattr(other, name) for name in _TOKENS))


_TOKENS = tuple(f.name for f in fields(Tokens))
_TOKEN_PLACES = tuple(
    serialize.PLACE["saved_total" if name == "saved" else name] for name in _TOKENS
)


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per second over a sliding window.

    `window` is its length in seconds and `covered` how much of it has been lived through so far, by
    which, but by a second at least, the counts are divided; the error at its far edge is at most
    one slot of the ring.
    """

    window: int
    covered: float
    requests: float
    input_tokens: float
    output_tokens: float
    errors: float

    @property
    def tokens(self) -> float:
        """Input and output tokens per second."""
        return self.input_tokens + self.output_tokens

    @property
    def per_minute(self) -> Rate:
        """The same by the minute: `rate.per_minute.requests`."""
        per_second = (self.requests, self.input_tokens, self.output_tokens, self.errors)
        return Rate(self.window, self.covered, *(60 * n for n in per_second))


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A figure of a model that changed, and stayed changed.

    `metric` is latency (seconds), error_rate (a share of 1), tokens_per_call or cost_per_call (US
    dollars); `before` and `after` are its means on both sides of the change, each over so many
    calls. `at` is when it probably changed, `detected_at` when that was noticed.
    """

    at: datetime
    detected_at: datetime
    provider: str
    model: str
    metric: str
    before: float
    after: float
    calls_before: int
    calls_after: int


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
        mean = _table.duration(self.mean)
        return f"<Overhead: {_table.counted(self.timed, 'event')} timed, mean {mean}>"


class _Immutable:
    """Attributes are set once, by the constructor, in the instance's own dict."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot delete {name!r}")


class _Series(_Immutable):
    """What models, components and totals share: outcomes and the counters under them."""

    _counters: tuple[int, ...]

    def _count(self, name: str) -> int:
        return self._counters[serialize.PLACE[name]]

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        """How runs ended: ok, error, cancelled, abandoned, interrupted, cache_hit."""
        return MappingProxyType({name: self._count(name) for name in _OUTCOMES})

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


class ComponentStats(_Series):
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
    def self_time(self) -> Distribution:
        """Time of each run during which none of the runs it started was running, seconds."""
        return self._native.measure("self_time")

    def __repr__(self) -> str:
        name = _table.label(f"{self.kind} {self.name}")
        return f"<ComponentStats {name}: {_ended(self)}>"


class CallStats(_Series):
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
        return Tokens(*(self._counters[place] for place in _TOKEN_PLACES))

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
        """Calls that `with_retry` made again, or that were part of what it did again."""
        return self._count("retried_calls")

    @property
    def retried_cost(self) -> Decimal | None:
        """US dollars of those; None while no call was priced."""
        return usd(self._count("retried_cost")) if self.priced_calls else None

    @property
    def recovered(self) -> int:
        """Failed calls that a later one under the same parent made good: a retry, a fallback."""
        return self._count("recovered")

    @property
    def truncated(self) -> int:
        """Answers that ended at the limit of their length."""
        return self._count("truncated")

    @property
    def stalls(self) -> int:
        """Times that a stream of these stopped for long."""
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
        return _rates(self._windows)

    @cached_property
    def latency(self) -> Distribution:
        """Start to end of a call, seconds; a cache hit is in none of the distributions."""
        return self._distribution("latency")

    @property
    def self_time(self) -> Distribution:
        """As `latency`: a model call starts no other run."""
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
        """Start to first output that is no reasoning of a streamed call, seconds."""
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
        """How fast a streamed call writes, at quantile `q` of the calls; nan when none was timed.

        By the final usage, because a piece of output may be many tokens. The slowest tenth writes
        at most `output_tokens_per_second(0.1)`. Raises ValueError outside [0, 1].
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q = {q!r}: must be in [0, 1]")
        each = self.time_per_output_token.quantile(1 - q)
        return 1 / each if each else float("nan")

    @cached_property
    def queue_time(self) -> Distribution:
        """What the provider says that a call waited before it was worked on, seconds; Groq does."""
        return self._distribution("queue_time")

    def __repr__(self) -> str:
        tokens = _table.counted(self.tokens.total, "token")
        return f"<{type(self).__name__} {self._name}: {_ended(self)}, {tokens}>"


class ModelStats(CallStats):
    """A model as its provider names it in the response, or the totals over all models.

    `in_flight` and `peak_in_flight` are calls at once: now, and at most since the beginning.
    """

    provider: str
    model: str

    def __init__(
        self, provider: str, model: str, *figures: Any, name: str = "", **more: Any
    ) -> None:
        super().__init__(name or _table.label(f"{provider}/{model}"), *figures, **more)
        vars(self).update(provider=provider, model=model)


class LabelStats(CallStats):
    """The calls whose metadata have this value under this key, over all models.

    The value "" stands for the calls without a value under the key.
    """

    key: str
    value: str

    def __init__(self, key: str, value: str, *figures: Any) -> None:
        super().__init__(_table.label_name(key, value), *figures)
        vars(self).update(key=key, value=value)


class Snapshot(_Immutable):
    """Immutable figures of one recorder, or of many merged. `Snapshot()` is the zero of the sum.

    `a + b` merges threads, processes, hosts; `b - a` is what happened between two snapshots of the
    same counts. Histograms merge bucket by bucket: no percentile is ever averaged.
    """

    _native: _core.Snapshot

    def __init__(self, native: _core.Snapshot | None = None) -> None:
        vars(self).update(_native=_core.Snapshot() if native is None else native)

    @cached_property
    def _series(self) -> list[_core.SeriesStats]:
        return self._native.series()

    @cached_property
    def models(self) -> Mapping[tuple[str, str], ModelStats]:
        """`(provider, model)`, as the response names them, to figures."""
        return MappingProxyType(
            {
                (s.a, s.b): ModelStats(
                    s.a, s.b, s.counters, s.rates, s.measure, in_flight=s.in_flight, peak=s.peak
                )
                for s in self._of("model")
            }
        )

    @cached_property
    def components(self) -> Mapping[tuple[str, str], ComponentStats]:
        """`(kind, name)` to figures; kind is chain, node, agent, tool, retriever, llm or fix."""
        return MappingProxyType({(s.kind, s.a): ComponentStats(s) for s in self._of(*_COMPONENTS)})

    @cached_property
    def labels(self) -> Mapping[tuple[str, str], LabelStats]:
        """`(key, value)` of the metadata that `labels=` names to figures over all models."""
        return MappingProxyType(
            {
                (s.a, s.b): LabelStats(s.a, s.b, s.counters, s.rates, s.measure)
                for s in self._of("label")
            }
        )

    @cached_property
    def failures(self) -> Mapping[tuple[str, str], int]:
        """`(who, how)` to how often: `("openai/gpt-4o", "RateLimitError 429")`.

        Who is a model or a component, `tool search`; how is the exception's class and, where a
        server answered, its HTTP status. Cancelled runs are among them.
        """
        return MappingProxyType(
            {(s.a, s.b): sum(s.counters[: len(_OUTCOMES)]) for s in self._of("error")}
        )

    @cached_property
    def unpriced(self) -> Mapping[tuple[str, str], int]:
        """`(provider, model)` to tokens of its calls that have no price so far."""
        tokens = {key: stats.unpriced_tokens for key, stats in self.models.items()}
        return MappingProxyType({key: n for key, n in tokens.items() if n})

    @cached_property
    def overhead(self) -> Mapping[str, Overhead]:
        """Time spent inside langmeter's own hooks, by hook."""
        return MappingProxyType({s.a: Overhead(s.measure("latency")) for s in self._of("hook")})

    @cached_property
    def anomalies(self) -> tuple[Anomaly, ...]:
        """Figures of models that changed for good while they were watched, the oldest first."""
        return tuple(map(_anomaly, self._native.anomalies))

    @property
    def pipeline_runs(self) -> int:
        """Runs at the top that ended: whole pipelines, or model calls of their own."""
        return sum(s.counters[serialize.PLACE["pipelines"]] for s in self._series)

    @property
    def pipeline_seconds(self) -> float:
        """From start to end of those, in all."""
        return sum(s.counters[serialize.PLACE["pipeline_time"]] for s in self._series) / 1e9

    def _of(self, *kinds: str) -> list[_core.SeriesStats]:
        return [s for s in self._series if s.kind in kinds]

    @cached_property
    def totals(self) -> ModelStats:
        """The sum over all models."""
        models = self._of("model")
        zero = (0,) * len(_core.COUNTERS)
        counters = tuple(map(sum, zip(zero, *(s.counters for s in models), strict=True)))
        return ModelStats(
            "",
            "",
            counters,
            self._native.windows,
            lambda name: sum((s.measure(name) for s in models), Distribution()),
            name="total",
            in_flight=self.in_flight,
            peak=self.peak_in_flight,
        )

    @cached_property
    def rates(self) -> Mapping[int, Rate]:
        """Events per second over all models by window: 60, 300 and 900 seconds."""
        return _rates(self._native.windows)

    @property
    def in_flight(self) -> int:
        """Model calls that had begun and not ended."""
        return self._native.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most that were in flight at once, in one recorder, since its beginning."""
        return self._native.peak

    @cached_property
    def dropped(self) -> Mapping[str, int]:
        """What was capped, reaped or refused, by name; empty when nothing was."""
        return MappingProxyType(dict(self._native.dropped))

    @property
    def started_at(self) -> datetime | None:
        """Begin of what is covered, UTC; None in the empty snapshot."""
        return _moment(self._native.started_at)

    @property
    def taken_at(self) -> datetime | None:
        """End of what is covered, UTC; None in the empty snapshot."""
        return _moment(self._native.taken_at)

    def __add__(self, other: Snapshot) -> Snapshot:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return Snapshot(self._native + other._native)

    def __sub__(self, other: Snapshot) -> Snapshot:
        """Return what was counted since `other`, an earlier snapshot or a part of a sum.

        Raises ValueError when `other` is of another recorder (the process was restarted, or another
        meter was made) or counts more than this snapshot.
        """
        if not isinstance(other, Snapshot):
            return NotImplemented
        return Snapshot(self._native - other._native)

    def __eq__(self, other: object) -> bool:
        return self._native == other._native if isinstance(other, Snapshot) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._native)

    def __reduce__(self) -> tuple[Callable[[bytes], Snapshot], tuple[bytes]]:
        return Snapshot.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> Snapshot:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Snapshot:
        return self

    def to_bytes(self) -> bytes:
        """Compact versioned binary form."""
        return self._native.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> Snapshot:
        """Inverse of `to_bytes`. Raises ValueError on foreign, damaged or newer bytes."""
        return Snapshot(_core.Snapshot.from_bytes(data))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, strings and numbers, readable and lossless; durations in seconds.

        Where a series contradicts itself, e.g. because its provider's figures do, `discrepancies`
        says by how much.
        """
        native = self._native
        return {
            "langmeter": _core.__version__,
            "format": FORMAT,
            "started_at": self.started_at and self.started_at.isoformat(),
            "taken_at": self.taken_at and self.taken_at.isoformat(),
            "started_at_unix_nano": native.started_at,
            "taken_at_unix_nano": native.taken_at,
            "origin": native.origin and list(native.origin),
            "in_flight": native.in_flight,
            "peak_in_flight": native.peak,
            "anomalies": [
                dict(zip(parse.CHANGE, change, strict=True)) for change in native.anomalies
            ],
            "dropped": native.dropped,
            "models": [serialize.series_to_dict(s) for s in self._of("model")],
            "components": [serialize.series_to_dict(s) for s in self._of(*_COMPONENTS)],
            "others": [serialize.series_to_dict(s) for s in self._of("label", "error", "hook")],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Snapshot:
        """Inverse of `to_dict`.

        Raises SnapshotError, a ValueError, on what is no such dict, and on one that contradicts
        itself: a histogram of more calls than were counted, a part above its whole, a series twice.
        """
        try:
            version = data.get("format")
            if type(version) is int and version == FORMAT:
                return Snapshot(parse.snapshot(data))
        except SnapshotError:
            raise
        except Exception as exc:  # whatever a foreign structure does to code that reads it
            raise SnapshotError(f"not a langmeter snapshot: {exc!r}") from exc
        if version is None:
            raise SnapshotError("not a langmeter snapshot: field 'format' is missing")
        older = isinstance(version, int) and version < FORMAT
        raise SnapshotError(
            f"snapshot of format {version!r}; this langmeter ({_core.__version__}) reads {FORMAT}: "
            + ("it was written by an older one, " if older else "upgrade it to read this snapshot")
            + (f"read it with langmeter {data.get('langmeter', version)}" if older else "")
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> Snapshot:
        """Inverse of `to_json`. Raises SnapshotError, a ValueError, on what is no such text."""
        try:
            data = json.loads(
                text,
                object_pairs_hook=parse.without_duplicates,
                parse_constant=parse.not_a_number,
            )
        except SnapshotError:
            raise
        except UnicodeDecodeError as exc:
            raise SnapshotError(f"not a langmeter snapshot: not a JSON text ({exc})") from exc
        except (ValueError, TypeError, RecursionError) as exc:
            raise SnapshotError(f"not a langmeter snapshot: {exc}") from exc
        return Snapshot.from_dict(data)

    def __repr__(self) -> str:
        models, totals = _table.counted(len(self.models), "model"), self.totals
        tokens = _table.counted(totals.tokens.total, "token")
        return f"<Snapshot of {models}: {_ended(totals)}, {tokens}, {self.in_flight:,} in flight>"

    def table(self, width: int | None = None) -> str:
        """Return the figures as plain text tables.

        Args:
            width: columns that there are; a wider table is divided into several, one below the
                other. None for no limit: the widest table takes about 110 columns.
        """
        return _table.text(self, width)

    def __str__(self) -> str:
        """Return the tables, divided where standard output is a terminal that is narrower."""
        return self.table(terminal_width(sys.stdout))

    def _repr_html_(self) -> str:
        """Return the tables as HTML; notebooks display it."""
        return _table.html(self)


_COMPONENTS = ("llm", "chain", "node", "agent", "tool", "retriever", "fix")


def _anomaly(change: Any) -> Anomaly:
    at, detected_at, provider, model, metric, before, after, calls_before, calls_after = change
    moments = datetime.fromtimestamp(at / 1e9, UTC), datetime.fromtimestamp(detected_at / 1e9, UTC)
    names, figures = (provider, model, metric), (before / 1e12, after / 1e12)
    return Anomaly(*moments, *names, *figures, calls_before, calls_after)


def _ended(stats: _Series) -> str:
    return f"{_table.counted(stats.calls, 'call')}, {_table.counted(stats.errors, 'error')}"


def _rates(windows: Iterable[tuple[int, ...]]) -> Mapping[int, Rate]:
    rates = {}
    for window, covered_ns, *counts in windows:
        covered = covered_ns / 1e9
        # One call in the first millisecond is not a thousand a second.
        per_second = (n / max(covered, 1.0) for n in counts)
        rates[window] = Rate(window, covered, *per_second)
    return MappingProxyType(rates)


def _moment(unix_nano: int) -> datetime | None:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC) if unix_nano else None
