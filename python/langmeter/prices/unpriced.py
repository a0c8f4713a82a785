"""Calls that ended without a price, until one comes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from langmeter import _core
from langmeter._base.warn import LimitedWarnings

from .book import PriceBook
from .card import COUNTS, RateCard

#: Where price lists begin a new band, and powers of two. Calls between two of these that have no
#: price yet wait together; where one has a band that begins among them, they stay unpriced.
_EDGES: Final = (
    *(1024, 2048, 4096, 8192, 10_000, 16_000, 16_384, 20_000, 32_000, 32_768, 50_000, 64_000),
    *(65_536, 100_000, 128_000, 131_072, 200_000, 256_000, 262_144, 272_000, 500_000, 512_000),
    *(524_288, 1_000_000, 1_048_576),
)
#: Prices change by the half hour at most.
_HALF_HOUR: Final = 1800
#: Groups of calls that wait: half hours times models, labels and the rest.
_MAX_GROUPS: Final = 1024
#: Calls that wait one by one, until the catalogue is loaded; about 400 bytes each.
_MAX_NEW: Final = 1024
#: Pico-dollars that are taken for a cost: 9.2 million USD. The recorder counts in 64 bits.
MOST: Final = 2**63 - 1

#: A call: provider, the model that it is counted under, the one requested, tier, outcome, budgets,
#: labels, start in Unix seconds, usage.
Call: TypeAlias = tuple[str, str, str, str, int, int, int, float, tuple[Any, ...]]
#: Key of a group of calls that share one price: names, outcome, budgets, labels, half hour, input
#: band; the usage itself if its parts overlap.
_Key: TypeAlias = tuple[str, str, str, str, int, int, int, int, int, tuple[int, ...]]
#: Thresholds of budgets that were crossed.
_Crossed: TypeAlias = list[tuple[int, int]]


@dataclass(slots=True)
class _Group:
    """Calls with one price: how many, the least and the most input of one, the sums of usages."""

    calls: int
    least: int
    most: int
    sums: list[int]

    def add(self, usage: tuple[int, ...]) -> None:
        self.calls += 1
        self.least, self.most = min(self.least, usage[0]), max(self.most, usage[0])
        for place, count in enumerate(usage):
            self.sums[place] += count


class Later:
    """Prices calls once a price for them is known; bounded, and fed without waiting for a lock.

    Calls that end before the catalogue is loaded wait one by one; those whose model has no price
    are added up in groups that any price but an odd one fits.
    """

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._warnings = LimitedWarnings("models without a price")
        self._tiers = LimitedWarnings("tiers without a price")
        self.forget()

    def forget(self) -> None:
        """Forget every call; only while no other thread is at it, as after a fork."""
        self._new: deque[Call] = deque()
        self._groups: dict[_Key, _Group] = {}
        self._lock = threading.Lock()
        self._version = -1

    def add(self, call: Call, recorder: _core.Recorder) -> _Crossed:
        """A call ended without a price. Returns thresholds crossed by what was priced meanwhile."""
        self._new.append(call)
        book = self.book
        asked = book.ready and (
            book.version != self._version or (call[1] and call[:2] not in self._warnings)
        )
        return self.settle(recorder) if asked or len(self._new) >= _MAX_NEW else []

    def __bool__(self) -> bool:
        return bool(self._new or self._groups)

    def settle(self, recorder: _core.Recorder) -> _Crossed:
        """Price what can be priced now. Returns the thresholds of budgets that this crossed."""
        crossed: _Crossed = []
        if not self._lock.acquire(blocking=False):  # another thread does just this
            return crossed
        try:
            book = self.book
            ready, version = book.ready, book.version
            if ready and version != self._version:
                self._version = version
                for key in list(self._groups):
                    crossed += self._price_group(key, recorder)
            while self._new:
                call = self._new.popleft()
                priced = self._price(call, recorder) if ready else None
                if priced is None:
                    self._keep(call, recorder)
                else:
                    crossed += priced
        finally:
            self._lock.release()
        return crossed

    def _price(self, call: Call, recorder: _core.Recorder) -> _Crossed | None:
        """Price one call by itself; None while its model has no price, or for more than `MOST`."""
        provider, model, requested, tier, outcome, budgets, labels, started, usage = call
        names = {"requested": requested, "tier": tier}
        card = self.book.card_now(provider, model, **names, at=started)
        if card is None:
            self._warn(provider, model)
            return None
        self.check_tier(provider, model, tier, card)
        cost = card.cost(usage)
        if cost > MOST:
            return None
        return recorder.repriced(provider, model, outcome, budgets, labels, 1, usage[2], cost)

    def _keep(self, call: Call, recorder: _core.Recorder) -> None:
        *names, started, usage = call
        counts = usage[:COUNTS]
        given, odd = counts[0], _core.RateCard.is_contested(counts)
        slot, edge = int(started // _HALF_HOUR), bisect_left(_EDGES, given)
        key: _Key = (*names, slot, edge, counts if odd else ())  # type: ignore[assignment]
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                recorder.dropped("unpriced_forgotten")
                return
            group = self._groups[key] = _Group(0, given, given, [0] * COUNTS)
        group.add(counts)

    def _price_group(self, key: _Key, recorder: _core.Recorder) -> _Crossed:
        provider, model, requested, tier, outcome, budgets, labels, slot, _, odd = key
        at = float(slot * _HALF_HOUR)
        names = {"requested": requested, "tier": tier}
        card = self.book.card_now(provider, model, **names, at=at)
        if card is None:
            self._warn(provider, model)
            return []
        group = self._groups[key]
        cost = card.cost(odd) * group.calls if odd else _cost(card, group)
        if cost is None or cost > MOST:
            return []
        del self._groups[key]
        calls, total = group.calls, group.sums[2]
        return recorder.repriced(provider, model, outcome, budgets, labels, calls, total, cost)

    def check_tier(self, provider: str, model: str, tier: str, card: RateCard) -> None:
        """Warn once of a tier, speed or region that is charged at the standard price."""
        if tier and card.tier != tier:
            applied = card.tier.split(";")
            missing = ";".join(part for part in tier.split(";") if part not in applied)
            self._tiers.warn(
                (provider, model, missing),
                "no price is known for %s/%s as %s: its calls are charged as if without. Give it "
                "one: meter.cost.prices.set(%r, %r, input=..., output=..., tiers={%r: {...}})",
                provider,
                model,
                missing,
                provider,
                model,
                missing,
            )

    def _warn(self, provider: str, model: str) -> None:
        if not model:
            return
        if provider:
            self._warnings.warn(
                (provider, model),
                "no price is known for %s/%s: its calls are unpriced (see snapshot.unpriced). "
                "Give it one: meter.cost.prices.set(%r, %r, input=..., output=...), USD per "
                "million tokens; what is unpriced by then is priced too",
                provider,
                model,
                provider,
                model,
            )
        else:
            self._warnings.warn(
                (provider, model),
                "no price is known for %s, because no one says who provides it: its calls are "
                'unpriced (see snapshot.unpriced). Say it, config={"metadata": {"ls_provider": '
                '"..."}}, and give it a price by meter.cost.prices.set if there is none',
                model,
            )


def _cost(card: RateCard, group: _Group) -> int | None:
    """Of calls between two inputs; None where a band begins in between."""
    if any(group.least <= band.above < group.most for band in card.bands[1:]):
        return None
    band = max((b for b in card.bands if b.above < group.least), key=lambda b: b.above)
    flat = card._replace(bands=(band._replace(above=-1, request=band.request * group.calls),))
    return flat.cost(tuple(group.sums))
