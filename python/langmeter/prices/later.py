"""Calls that ended without a price, until one comes."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from typing import Any, Final, TypeAlias

from langmeter import _core

from .book import PriceBook
from .card import RateCard

_log = logging.getLogger("langmeter")

#: Where price lists begin a new band, and powers of two. Calls between two of these are priced
#: together; where a price has a band that begins in between, they stay unpriced.
_EDGES: Final = (
    *(32_000, 32_768, 64_000, 65_536, 128_000, 131_072, 200_000, 256_000, 262_144, 272_000),
    *(512_000, 524_288, 1_000_000, 1_048_576),
)
#: Prices change by the half hour at most.
_HALF_HOUR: Final = 1800
#: Groups of calls that wait: half hours times models, labels and the rest.
_MAX_GROUPS: Final = 1024
#: Calls that wait to be put into their groups.
_MAX_NEW: Final = 256
#: Models that were warned about.
_MAX_TOLD: Final = 1024

#: A call: provider, model, tier, outcome, budgets, labels, start in Unix seconds, usage.
Call: TypeAlias = tuple[str, str, str, int, int, int, float, tuple[Any, ...]]
#: The same of calls with one price: the half hour, the edge below, and where its parts exceed their
#: whole the usage itself.
_Key: TypeAlias = tuple[str, str, str, int, int, int, int, int, tuple[int, ...]]

_COUNTS: Final = 11


class Later:
    """Prices calls once a price for them is known; bounded, and fed without waiting for a lock."""

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._new: deque[Call] = deque()
        self._groups: dict[_Key, list[int]] = {}
        self._lock = threading.Lock()
        self._version = -1
        self._told: set[tuple[str, str]] = set()

    def add(self, call: Call, recorder: _core.Recorder) -> list[tuple[int, int]]:
        """A call ended without a price. Returns thresholds crossed by what was priced meanwhile."""
        self._new.append(call)
        book = self.book
        asked = book.ready and (
            book.version != self._version or (call[1] and call[:2] not in self._told)
        )
        return self.settle(recorder) if asked or len(self._new) >= _MAX_NEW else []

    def __bool__(self) -> bool:
        return bool(self._new or self._groups)

    def settle(self, recorder: _core.Recorder) -> list[tuple[int, int]]:
        """Price what can be priced now. Returns the thresholds of budgets that this crossed."""
        crossed: list[tuple[int, int]] = []
        if not self._lock.acquire(blocking=False):  # another thread does just this
            return crossed
        try:
            fresh = self._group(recorder)
            book = self.book
            if not book.ready:
                return crossed
            again = book.version != self._version
            self._version = book.version
            for key in list(self._groups) if again else fresh:
                crossed += self._price(key, recorder)
        finally:
            self._lock.release()
        return crossed

    def _group(self, recorder: _core.Recorder) -> set[_Key]:
        fresh = set()
        while self._new:
            *names, started, usage = self._new.popleft()
            counts = usage[:_COUNTS]
            given, out, _, read, write, hour, thought, heard, spoken, seen, _ = counts
            odd = given < read + write + heard + seen or out < thought + spoken or write < hour
            slot, edge = int(started // _HALF_HOUR), bisect_left(_EDGES, given)
            key: _Key = (*names, slot, edge, counts if odd else ())  # type: ignore[assignment]
            group = self._groups.get(key)
            if group is None:
                if len(self._groups) >= _MAX_GROUPS:
                    recorder.dropped("unpriced_forgotten")
                    continue
                group = self._groups[key] = [0] * (_COUNTS + 1)
            group[0] += 1
            for place, count in enumerate(counts, 1):
                group[place] += count
            fresh.add(key)
        return fresh

    def _price(self, key: _Key, recorder: _core.Recorder) -> list[tuple[int, int]]:
        provider, model, tier, outcome, budgets, labels, slot, edge, odd = key
        card = self.book.card(provider, model, tier=tier, at=float(slot * _HALF_HOUR))
        if card is None:
            self._warn(provider, model)
            return []
        calls, *counts = self._groups[key]
        cost = card.cost(odd) * calls if odd else _cost(card, edge, calls, counts)
        if cost is None:
            return []
        del self._groups[key]
        return recorder.repriced(provider, model, outcome, budgets, labels, calls, counts[2], cost)

    def _warn(self, provider: str, model: str) -> None:
        if not model or (provider, model) in self._told or len(self._told) >= _MAX_TOLD:
            return
        self._told.add((provider, model))
        _log.warning(
            "no price is known for %s/%s: its calls are unpriced (see snapshot.unpriced). "
            "Give it one: meter.cost.prices.set(%r, %r, input=..., output=...), USD per million "
            "tokens; what is unpriced by then is priced too",
            provider or "unknown",
            model,
            provider,
            model,
        )


def _cost(card: RateCard, edge: int, calls: int, counts: list[int]) -> int | None:
    """Of calls whose inputs lie between two edges; None where a band begins in between."""
    above = _EDGES[edge - 1] if edge else -1
    until = _EDGES[edge] if edge < len(_EDGES) else None
    if any(above < b.above and (until is None or b.above < until) for b in card.bands[1:]):
        return None
    band = max((b for b in card.bands if b.above <= above), key=lambda b: b.above)
    flat = card._replace(bands=(band._replace(above=-1, request=band.request * calls),))
    return flat.cost(counts)
