"""The figures of a shared budget in its store, and what a renewal does to them: pure.

Every store does what `renew` does: SQLite by calling it in a transaction, Valkey and Redis by a
script that a test compares with it. Amounts are whole units of the store: nano-dollars, tokens or
calls, below 2**53, which the numbers of Lua hold exactly. Times are milliseconds of the store's
clock since 1970.

Invariant: `spent + leased <= limit` after each renewal that gives something, where `leased` is the
sum of all slices; only a call that used more than it reserved, or a lower limit, can break it, and
then nothing is given until it holds again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: Amounts and times above it are not exact in Lua.
MOST: Final = 2**53 - 1
#: Seconds that a call waits for a renewal, at most.
DEADLINE: Final = 0.05
#: Milliseconds in which others give back what they do not use, after a call was refused.
SHORT: Final = 5_000


class Request(NamedTuple):
    """A request of a process to the store.

    Attributes:
        holder: name of the process.
        spent: all that it has spent since it began.
        known: the part of that which the last reply confirmed.
        reserved: held for its calls in flight.
        keep: what it may still use without this renewal, `reserved` included.
        need: beyond `keep`, for a call that waits; 0 without one.
        want: what it would like to have beyond `reserved`.
        begins, ends: the period around the time that it takes the store's clock to show.
        at: fractions of the limit whose crossing is reported.
        limit: its configured limit.
        joins: whether this is its first renewal: a limit that was configured anew replaces that of
            the account, and one that was set since the last configuration stays.
        set_limit: another limit for all; 0 for none.
        reset: whether the period begins anew.
        leave: whether it gives back what it has not reserved, and asks for nothing.
        lease: milliseconds after which it counts as dead.
        hold: milliseconds after which reservations of a dead process return.
    """

    holder: str
    spent: int
    known: int
    reserved: int
    keep: int
    need: int
    want: int
    begins: int
    ends: int
    at: tuple[float, ...]
    limit: int
    joins: bool = False
    set_limit: int = 0
    reset: bool = False
    leave: bool = False
    lease: int = 30_000
    hold: int = 3_600_000


class Reply(NamedTuple):
    """The answer of the store.

    Attributes:
        now: milliseconds of the store's clock.
        granted: whether the call that waits has what it needs; True without one.
        slice: what the process may use beyond `Request.spent`, reservations included.
        share: what is to be unreserved in a slice at most.
        spent, reserved, limit: of all processes.
        begins, ends: the period.
        short: whether a call of any process was refused lately.
        crossed: positions in `Request.at` that this renewal crossed.
    """

    now: int
    granted: bool
    slice: int
    share: int
    spent: int
    reserved: int
    limit: int
    begins: int
    ends: int
    short: bool
    crossed: tuple[int, ...]


class Stale(NamedTuple):
    """The store's clock shows another period than that of the request, which changed nothing."""

    now: int


@dataclass(slots=True)
class Holding:
    """The part of a budget that one process has.

    Attributes:
        spent: all that it reported.
        slice: what it may use beyond that.
        reserved: the part of the slice that was reserved at its last renewal.
        renewed, expires: when it renewed last, and when it counts as dead.
        dead: whether it does: only its reservations are left.
    """

    spent: int = 0
    slice: int = 0
    reserved: int = 0
    renewed: int = 0
    expires: int = 0
    dead: bool = False


@dataclass(slots=True)
class Account:
    """Figures of a budget.

    Attributes:
        limit: what holds now.
        configured: what the process that joined last was configured with.
        spent: in this period.
        leased, reserved: sums over all processes.
        begins, ends: the period.
        reported: the highest fraction below 1 that was reported in it.
        full: whether 1 was.
        short: when the unused returns to normal after a refusal.
        holdings: by process.
    """

    limit: int = 0
    configured: int = 0
    spent: int = 0
    leased: int = 0
    reserved: int = 0
    begins: int = 0
    ends: int = 0
    reported: float = 0.0
    full: bool = False
    short: int = 0
    holdings: dict[str, Holding] = field(default_factory=dict)


def renew(account: Account, request: Request, now: int) -> Reply | Stale:
    """Renew the lease of a process: changes the account, and returns what the process gets."""
    if not request.begins <= now < request.ends:
        return Stale(now)
    if now >= account.ends:
        account.spent, account.reported, account.full, account.short = 0, 0.0, False, 0
        account.begins, account.ends = request.begins, request.ends
    if not account.limit or (request.joins and request.limit != account.configured):
        account.configured = request.limit
        _set_limit(account, request.limit)
    if request.set_limit:
        _set_limit(account, request.set_limit)
    _expire(account, request, now)

    own = account.holdings.get(request.holder)
    delta = request.spent - (request.known if own is None else own.spent)
    own = own or Holding()
    account.spent = max(0, account.spent + delta)
    if request.reset:
        account.spent, account.reported, account.full, account.short = 0, 0.0, False, 0

    # What it does not have any more it cannot keep; what is reserved stays.
    keep = max(min(request.keep, own.slice - delta), request.reserved)
    others = account.leased - own.slice
    free = account.limit - account.spent - others
    living = len(account.holdings) + (request.holder not in account.holdings)
    share = max(free - request.reserved, 0) // (2 * living)
    need = request.need + request.keep - keep if request.need else 0
    granted = need <= free - keep if need else True
    if request.leave:
        keep = request.reserved
    more = min(request.want, share) - (keep - request.reserved)
    more = max(need if need and granted else 0, more, 0)
    more = min(more, max(free - keep, 0))

    new = Holding(
        request.spent, keep + more, request.reserved, now, now + request.lease, dead=False
    )
    account.leased = others + new.slice
    account.reserved += request.reserved - own.reserved
    if request.leave and not new.slice:
        account.holdings.pop(request.holder, None)
    else:
        account.holdings[request.holder] = new
    if not granted:
        account.short = now + SHORT
    return Reply(
        now,
        granted,
        new.slice,
        share,
        account.spent,
        account.reserved,
        account.limit,
        account.begins,
        account.ends,
        now < account.short,
        _crossed(account, request.at, refused=not granted),
    )


def _set_limit(account: Account, limit: int) -> None:
    account.limit = limit
    account.reported = min(account.reported, account.spent / limit)
    account.full = account.full and account.spent >= limit
    account.short = 0


def _expire(account: Account, request: Request, now: int) -> None:
    """Return what dead processes had not reserved, and later what they had."""
    for holder, holding in list(account.holdings.items()):
        if holding.expires > now or holder == request.holder:
            continue
        left = 0 if holding.dead else holding.reserved
        account.leased -= holding.slice - left
        if left:
            holding.slice, holding.dead = left, True
            holding.expires = holding.renewed + request.hold
        else:
            account.reserved -= holding.reserved
            del account.holdings[holder]


def _crossed(account: Account, at: tuple[float, ...], *, refused: bool) -> tuple[int, ...]:
    crossed, reported = [], account.reported
    for place, fraction in enumerate(at):
        # A fraction of a limit is not exact as a number of the machine.
        reached = account.spent >= (fraction - 1e-12) * account.limit
        if fraction < 1:
            if reached and fraction > account.reported:
                crossed.append(place)
                reported = max(reported, fraction)
        elif (reached or refused) and not account.full:
            crossed.append(place)
            account.full = True
    account.reported = reported
    return tuple(crossed)
