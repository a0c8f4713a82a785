"""Calls that ended without a price, until one comes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from langmeter import _core
from langmeter._base.warn import LimitedWarnings

from .book import PriceBook, Priced
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
MAX_COST: Final = 2**63 - 1

#: Thresholds of budgets that were crossed.
_Crossed: TypeAlias = list[tuple[int, int]]


class Call(NamedTuple):
    """A call that ended without a price.

    Attributes:
        names: what its price is looked up by; `model` is what it is counted under.
        outcome, budgets, labels: as of `Recorder.repriced`.
        charged: whether budgets took it for a call without a price when it began.
        started, ended: Unix seconds.
        usage: what it used.
        calls: 1; 0 of a part that was billed beside the answer.
        attempt: number of the attempt at a defect that it was made for, or 0.
    """

    names: Priced
    outcome: int
    budgets: int
    labels: int
    charged: bool
    started: float
    ended: float
    usage: tuple[Any, ...]
    calls: int = 1
    attempt: int = 0

    @property
    def tokens(self) -> int:
        """Its total of tokens; 0 of a part that was billed beside the answer."""
        total: int = self.usage[2]
        return total * self.calls


class _Key(NamedTuple):
    """The key of calls that share one price, whichever that will be."""

    names: Priced
    outcome: int
    budgets: int
    labels: int
    charged: bool
    #: Half hours in which they began and ended: no period of a budget but a minute begins between.
    slot: int
    ended: int
    #: Place of their input among `_EDGES`.
    edge: int
    #: The usage itself if its parts overlap.
    odd: tuple[int, ...]
    attempt: int


@dataclass(slots=True)
class _Group:
    """Calls with one price: their ends, their inputs, how many, and the sums of their usages."""

    first: float
    last: float
    least: int
    most: int
    calls: int = 0
    #: Tokens of their answers: what is billed beside an answer is in no sum of tokens.
    tokens: int = 0
    usages: int = 0
    sums: list[int] = field(default_factory=lambda: [0] * COUNTS)

    def add(self, call: Call) -> None:
        self.calls += call.calls
        self.tokens += call.tokens
        self.usages += 1
        self.first, self.last = min(self.first, call.ended), max(self.last, call.ended)
        self.least, self.most = min(self.least, call.usage[0]), max(self.most, call.usage[0])
        for place, count in enumerate(call.usage[:COUNTS]):
            self.sums[place] += count


class UnpricedCalls:
    """Prices calls once a price for them is known; bounded, and fed without waiting for a lock.

    Calls that end before the catalogue is loaded wait one by one; those whose model has no price
    are added up in groups that any price but an odd one fits.
    """

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._warnings = LimitedWarnings("models without a price")
        self._tiers = LimitedWarnings("tiers without a price")
        self.clear()

    def count_in(self, recorder: _core.Recorder) -> None:
        """Count warnings that are not logged in a recorder."""
        self._warnings.count = self._tiers.count = partial(recorder.dropped, "warnings")

    def clear(self) -> None:
        """Forget every call; only while no other thread is at it, as after a fork."""
        self._new: deque[Call] = deque()
        self._groups: dict[_Key, _Group] = {}
        self._lock = threading.Lock()
        self._version = -1

    def add(self, call: Call, recorder: _core.Recorder) -> _Crossed:
        """A call ended without a price. Returns thresholds crossed by what was priced meanwhile."""
        self._new.append(call)
        book = self.book
        known = book.ready and (
            book.version != self._version
            or (call.names.model and call.names[:2] not in self._warnings)
        )
        return self.price_pending(recorder) if known or len(self._new) >= _MAX_NEW else []

    def __bool__(self) -> bool:
        return bool(self._new or self._groups)

    def price_pending(self, recorder: _core.Recorder) -> _Crossed:
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
        """Price one call by itself; None while its model has no price, or above `MAX_COST`."""
        names, outcome, budgets, labels, charged, started, ended, usage, calls, attempt = call
        card = self._card(names, started)
        cost = None if card is None else card.cost(usage)
        if cost is None or cost > MAX_COST:
            return None
        series = names.provider, names.model, outcome, budgets, labels
        return recorder.repriced(
            *series, calls, call.tokens, cost, charged, (ended, ended), attempt
        )

    def _card(self, names: Priced, started: float) -> RateCard | None:
        """Return the price of calls; warns of one that is not known, or not for their tier."""
        card = self.book.card_now(**names._asdict(), at=started)
        if card is None:
            self._warn(names.provider, names.model)
        else:
            self.check_tier(names, card)
        return card

    def _keep(self, call: Call, recorder: _core.Recorder) -> None:
        counts = call.usage[:COUNTS]
        given, odd = counts[0], _core.RateCard.is_contested(counts)
        slot, ended = (int(at // _HALF_HOUR) for at in (call.started, call.ended))
        edge = bisect_left(_EDGES, given)
        key = _Key(*call[:5], slot, ended, edge, counts if odd else (), call.attempt)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                recorder.dropped("unpriced_forgotten")
                return
            group = self._groups[key] = _Group(call.ended, call.ended, given, given)
        group.add(call)

    def _price_group(self, key: _Key, recorder: _core.Recorder) -> _Crossed:
        card = self._card(key.names, float(key.slot * _HALF_HOUR))
        if card is None:
            return []
        group = self._groups[key]
        cost = _cost(card, group, key.odd)
        if cost is None or cost > MAX_COST:
            return []
        del self._groups[key]
        series = key.names.provider, key.names.model, key.outcome, key.budgets, key.labels
        calls, tokens, ended = group.calls, group.tokens, (group.first, group.last)
        return recorder.repriced(*series, calls, tokens, cost, key.charged, ended, key.attempt)

    def check_tier(self, names: Priced, card: RateCard) -> None:
        """Warn once of a tier, speed or region that is charged at the standard price."""
        provider, tier = names.provider, names.tier
        model = names.model or names.requested
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
                "no price is known for %s, because its provider is unknown: its calls are "
                'unpriced (see snapshot.unpriced). Say it, config={"metadata": {"ls_provider": '
                '"..."}}, and give it a price by meter.cost.prices.set if there is none',
                model,
            )


def _cost(card: RateCard, group: _Group, odd: tuple[int, ...]) -> int | None:
    """Return what calls cost whose inputs lie close; None where a band begins among them."""
    if odd:
        return card.cost(odd) * group.usages
    if any(group.least <= band.above < group.most for band in card.bands[1:]):
        return None
    band = max((b for b in card.bands if b.above < group.least), key=lambda b: b.above)
    flat = card._replace(bands=(band._replace(above=-1, request=band.request * group.calls),))
    return flat.cost(tuple(group.sums))
