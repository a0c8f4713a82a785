"""Counts of a snapshot: tokens by kind, whole numbers, events per second over sliding windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from langmeter._core import Distribution
from langmeter.snapshot.serialize import COUNTER_INDEX


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
        return Tokens(*(getattr(self, name) + getattr(other, name) for name in _TOKEN_KINDS))


_TOKEN_KINDS = tuple(f.name for f in fields(Tokens))
TOKEN_INDEXES = tuple(
    COUNTER_INDEX["saved_total" if name == "saved" else name] for name in _TOKEN_KINDS
)


class WholeNumbers:
    """Distribution of whole numbers, exact up to 255, within 1 % above.

    Each property is nan where nothing was counted, except for `count` and `sum`.
    """

    __slots__ = ("_micros",)

    def __init__(self, micros: Distribution) -> None:
        # Recorded as microseconds, the unit of the histograms.
        self._micros = micros

    @property
    def distribution(self) -> Distribution:
        """Distribution of the counts, each as a number of microseconds."""
        return self._micros

    @property
    def count(self) -> int:
        """Number of values."""
        return self._micros.count

    @property
    def sum(self) -> float:
        """Their sum."""
        return self._micros.sum * 1e6

    @property
    def mean(self) -> float:
        """Their mean."""
        return self._micros.mean * 1e6

    @property
    def min(self) -> float:
        """The least of them."""
        return self._micros.min * 1e6

    @property
    def max(self) -> float:
        """The largest of them."""
        return self._micros.max * 1e6

    def quantile(self, q: float) -> float:
        """Return the value at quantile q. Raises ValueError outside of [0, 1]."""
        value = self._micros.quantile(q) * 1e6
        return value if math.isnan(value) else float(round(value))

    def __repr__(self) -> str:
        return f"<WholeNumbers: {self.count:,}, mean {self.mean:.3g}>"


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
        """Rates per minute instead of per second: `rate.per_minute.requests`."""
        per_second = (self.requests, self.input_tokens, self.output_tokens, self.errors)
        return Rate(self.window, self.covered, *(60 * n for n in per_second))


def rates_by_window(windows: Iterable[tuple[int, ...]]) -> Mapping[int, Rate]:
    """Return the rates of native windows, by the length of each in seconds."""
    rates = {}
    for window, covered_ns, *counts in windows:
        covered = covered_ns / 1e9
        # One call in the first millisecond is not a thousand a second.
        seconds = max(covered, 1.0)
        rates[window] = Rate(window, covered, *[n / seconds for n in counts])
    return MappingProxyType(rates)
