"""What was metered up to a moment: immutable, mergeable, and read without asking again.

A snapshot is taken while recorders run on. Every counter in it is exact for some moment between the
begin and the end of the call; two counters may be of moments a few microseconds apart. Once the
calls it covers have ended, everything in it is exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

from langmeter import _core, _form, _table
from langmeter._core import Distribution
from langmeter.errors import SnapshotError

__all__ = [
    "ComponentStats",
    "Distribution",
    "ModelStats",
    "Rate",
    "Snapshot",
    "Tokens",
]

#: Version of the dict and JSON form.
FORMAT = 1

_OUTCOMES = _core.OUTCOMES


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts. `input` includes what came from or went to a cache, `output` reasoning.

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
    estimated: int = 0
    saved: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        if not isinstance(other, Tokens):
            return NotImplemented
        return Tokens(*(getattr(self, name) + getattr(other, name) for name in _TOKENS))


_TOKENS = tuple(f.name for f in fields(Tokens))
_TOKEN_PLACES = tuple(_form.PLACE["saved_total" if name == "saved" else name] for name in _TOKENS)


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
        return self._counters[_form.PLACE[name]]

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


class ComponentStats(_Series):
    """A chain, tool, retriever, model or fix by its name."""

    _native: _core.SeriesStats

    def __init__(self, native: _core.SeriesStats) -> None:
        vars(self).update(_counters=native.counters, _native=native)

    @property
    def kind(self) -> str:
        """One of chain, tool, retriever, llm, fix."""
        return self._native.kind

    @property
    def name(self) -> str:
        """Name of the component; `other` stands for all beyond `max_series`."""
        return self._native.a

    @property
    def latency(self) -> Distribution:
        """Start to end, seconds."""
        return self._native.latency

    def __repr__(self) -> str:
        name = _table.label(f"{self.kind} {self.name}")
        return f"<ComponentStats {name}: {_ended(self)}>"


class ModelStats(_Series):
    """A model as its provider names it in the response, or the totals over all models."""

    provider: str
    model: str
    _windows: Iterable[tuple[int, ...]]
    _distribution: Callable[[str], Distribution]
    _name: str

    def __init__(
        self,
        provider: str,
        model: str,
        counters: tuple[int, ...],
        windows: Iterable[tuple[int, ...]],
        distribution: Callable[[str], Distribution],
        name: str = "",
    ) -> None:
        vars(self).update(
            provider=provider,
            model=model,
            _counters=counters,
            _windows=windows,
            _distribution=distribution,
            _name=name or _table.label(f"{provider}/{model}"),
        )

    @cached_property
    def tokens(self) -> Tokens:
        """Token counts by kind."""
        return Tokens(*(self._counters[place] for place in _TOKEN_PLACES))

    @property
    def cost(self) -> Decimal | None:
        """US dollars, exact; None while no call was priced."""
        if not self.priced_calls:
            return None
        return _form.usd(self._count("cost"))

    @property
    def priced_calls(self) -> int:
        """Calls with usage and a price."""
        return self._count("priced_calls")

    @property
    def unpriced_calls(self) -> int:
        """Calls with usage that no price was found for."""
        return self._count("unpriced_calls")

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

    @cached_property
    def rates(self) -> Mapping[int, Rate]:
        """Events per second by window: 60, 300 and 900 seconds."""
        return _rates(self._windows)

    @cached_property
    def latency(self) -> Distribution:
        """Start to end of a call, seconds; a cache hit is in none of the distributions."""
        return self._distribution("latency")

    @cached_property
    def time_to_first_token(self) -> Distribution:
        """Start to first piece of output of a streamed call, seconds."""
        return self._distribution("time_to_first_token")

    @cached_property
    def inter_token_latency(self) -> Distribution:
        """Between one piece of output and the next of a streamed call, seconds."""
        return self._distribution("inter_token_latency")

    def __repr__(self) -> str:
        tokens = _table.counted(self.tokens.total, "token")
        return f"<ModelStats {self._name}: {_ended(self)}, {tokens}>"


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
                (s.a, s.b): ModelStats(s.a, s.b, s.counters, s.rates, partial(getattr, s))
                for s in self._series
                if s.kind == "model"
            }
        )

    @cached_property
    def components(self) -> Mapping[tuple[str, str], ComponentStats]:
        """`(kind, name)` to figures; kind is chain, tool, retriever, llm or fix."""
        return MappingProxyType(
            {(s.kind, s.a): ComponentStats(s) for s in self._series if s.kind != "model"}
        )

    @cached_property
    def totals(self) -> ModelStats:
        """The sum over all models."""
        models = [s for s in self._series if s.kind == "model"]
        zero = (0,) * len(_core.COUNTERS)
        counters = tuple(map(sum, zip(zero, *(s.counters for s in models), strict=True)))
        return ModelStats(
            "",
            "",
            counters,
            self._native.windows,
            lambda name: sum((getattr(s, name) for s in models), Distribution()),
            name="total",
        )

    @cached_property
    def rates(self) -> Mapping[int, Rate]:
        """Events per second over all models by window: 60, 300 and 900 seconds."""
        return _rates(self._native.windows)

    @property
    def in_flight(self) -> int:
        """Model calls that had begun and not ended."""
        return self._native.in_flight

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
        """Figures since `other`; ValueError when that is no earlier snapshot of the same counts."""
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
        """Plain lists, dicts, strings and numbers, readable and lossless; durations in seconds."""
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
            "dropped": native.dropped,
            "models": [_form.series_to_dict(s) for s in self._series if s.kind == "model"],
            "components": [_form.series_to_dict(s) for s in self._series if s.kind != "model"],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Snapshot:
        """Inverse of `to_dict`. Raises SnapshotError, a ValueError, on what is no such dict."""
        try:
            version = _form.number(data["format"])
            if version == FORMAT:
                origin = data["origin"]
                native = _core.Snapshot.from_parts(
                    [_form.series_from_dict(s) for s in (*data["models"], *data["components"])],
                    in_flight=_form.number(data["in_flight"]),
                    started_at=_form.number(data["started_at_unix_nano"]),
                    taken_at=_form.number(data["taken_at_unix_nano"]),
                    dropped={name: _form.number(n) for name, n in data["dropped"].items()},
                    origin=origin and (_form.number(origin[0]), _form.number(origin[1])),
                )
                return Snapshot(native)
        except Exception as exc:  # whatever a foreign structure does to who reads it
            raise SnapshotError(f"this is no langmeter snapshot: {exc!r}") from exc
        raise SnapshotError(
            f"snapshot of format {version!r}; this langmeter ({_core.__version__}) reads {FORMAT}: "
            "upgrade it to read this snapshot"
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> Snapshot:
        """Inverse of `to_json`. Raises SnapshotError, a ValueError, on what is no such text."""
        try:
            data = json.loads(text)
        except (ValueError, TypeError, RecursionError) as exc:
            raise SnapshotError(f"this is no langmeter snapshot: {exc}") from exc
        return Snapshot.from_dict(data)

    def __repr__(self) -> str:
        models, totals = _table.counted(len(self.models), "model"), self.totals
        tokens = _table.counted(totals.tokens.total, "token")
        return f"<Snapshot of {models}: {_ended(totals)}, {tokens}, {self.in_flight:,} in flight>"

    def __str__(self) -> str:
        """The figures as a plain text table of about 110 columns."""
        return _table.text(self)


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
