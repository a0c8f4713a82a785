"""State of the processes of a snapshot: what is not a sum, kept by origin.

Sums unite origins, and of one origin keep what was taken later; differences have no state. No text
of a prompt or an answer is in it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, Final, TypeAlias
from zlib import crc32

from langmeter.errors import SnapshotError
from langmeter.snapshot import parse

#: Most parts of one kind that an origin has, and most origins of a sum: the latest ones.
MAX_PARTS: Final = 100
MAX_ORIGINS: Final = 1000
#: Bytes of a snapshot with a state: this, then the state as JSON, then the bytes without it.
MAGIC: Final = b"LMTS"
_HEADER: Final = struct.Struct("<4sHII")
_VERSION: Final = 1

#: US dollars, or a count of tokens or calls.
Amount: TypeAlias = Decimal | int
#: Keys of a scope, and the texts of which one has to match.
Scope: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Budget of a meter: `used` and `reserved` of `limit`, in its `unit`: usd, tokens or calls.

    `resets` is when the next period begins; None for a total, and before the first call. `scope` is
    what it covers, () for everything; None where an older langmeter wrote the snapshot.
    """

    name: str
    unit: str
    per: str
    used: Amount
    reserved: Amount
    limit: Amount
    resets: datetime | None
    scope: Scope | None = None

    @property
    def share(self) -> float:
        """Part of the limit that is used; above 1 where more was spent than allowed."""
        return float(self.used) / float(self.limit) if self.limit else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; USD are decimal texts, times ISO 8601."""
        scope = None if self.scope is None else {key: [*texts] for key, texts in self.scope}
        return {**_fields(self), "scope": scope}


@dataclass(frozen=True, slots=True)
class CircuitState:
    """Circuit of a provider of a ProviderManager with this policy.

    `state` is ready, half-open or why the provider is not called; `until` is when that may end,
    None if it is ready now, or disabled.
    """

    policy: str
    provider: str
    state: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class DecisionState:
    """Decision of a ProviderManager; `obstacles` are "provider: why", one after another."""

    policy: str
    provider: str
    why: str
    attempt: int
    obstacles: str


@dataclass(frozen=True, slots=True)
class AlertState:
    """Alert that is pending or firing, for the group of series that its rule names."""

    name: str
    group: str
    severity: str
    status: str
    since: datetime
    value: float


@dataclass(frozen=True, slots=True)
class StreamState:
    """Stream in flight that has sent something; `stalled` where a stall was reported."""

    provider: str
    model: str
    started: datetime
    last_token: datetime
    token_events: int
    stalled: bool


Part: TypeAlias = BudgetState | CircuitState | DecisionState | AlertState | StreamState


@dataclass(frozen=True, slots=True)
class OriginState:
    """State of one recorder; of each kind up to 100 parts, of decisions the last ones."""

    origin: str
    taken_at_unix_nano: int
    budgets: tuple[BudgetState, ...] = ()
    circuits: tuple[CircuitState, ...] = ()
    decisions: tuple[DecisionState, ...] = ()
    alerts: tuple[AlertState, ...] = ()
    streams: tuple[StreamState, ...] = ()


#: Field of `OriginState` → class of its parts.
KINDS: Final[dict[str, type[Part]]] = {
    "budgets": BudgetState,
    "circuits": CircuitState,
    "decisions": DecisionState,
    "alerts": AlertState,
    "streams": StreamState,
}


def origin_state(
    origin: tuple[int, int] | None, taken_at: int, parts: Iterable[Part]
) -> OriginState:
    """Return the state of one recorder, of the parts that each room contributes."""
    name = "-".join(f"{n:x}" for n in origin or ())
    by_kind: dict[type[Part], list[Part]] = {}
    for part in parts:
        by_kind.setdefault(type(part), []).append(part)
    listed: dict[str, Any] = {
        place: tuple(by_kind.get(kind, ())[-MAX_PARTS:]) for place, kind in KINDS.items()
    }
    return OriginState(name, taken_at, **listed)


@dataclass(frozen=True, slots=True)
class State:
    """States of recorders by origin; `State()` is the zero of the sum, and false."""

    origins: tuple[OriginState, ...] = field(default=())

    @property
    def budgets(self) -> tuple[BudgetState, ...]:
        """Budgets of all origins."""
        return tuple(chain.from_iterable(each.budgets for each in self.origins))

    @property
    def circuits(self) -> tuple[CircuitState, ...]:
        """Circuits of all origins."""
        return tuple(chain.from_iterable(each.circuits for each in self.origins))

    @property
    def decisions(self) -> tuple[DecisionState, ...]:
        """Last decisions of all origins."""
        return tuple(chain.from_iterable(each.decisions for each in self.origins))

    @property
    def alerts(self) -> tuple[AlertState, ...]:
        """Open alerts of all origins."""
        return tuple(chain.from_iterable(each.alerts for each in self.origins))

    @property
    def streams(self) -> tuple[StreamState, ...]:
        """Streams in flight of all origins."""
        return tuple(chain.from_iterable(each.streams for each in self.origins))

    def __bool__(self) -> bool:
        return bool(self.origins)

    def __add__(self, other: State) -> State:
        if not isinstance(other, State):
            return NotImplemented
        latest: dict[str, OriginState] = {}
        # In one order for all sums, so that they commute where two were taken at one moment.
        for each in sorted((*self.origins, *other.origins), key=_rank):
            latest[each.origin] = each
        newest = sorted(latest.values(), key=_rank)[-MAX_ORIGINS:]
        return State(tuple(sorted(newest, key=lambda each: each.origin)))

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain data; USD are decimal texts, times ISO 8601."""
        return [_plain(each) for each in self.origins]

    @staticmethod
    def from_list(data: object) -> State:
        """Inverse of `to_list`; raises SnapshotError for other data."""
        states = [
            _origin(f"state[{place}]", each)
            for place, each in enumerate(parse._list("state", data))
        ]
        state = State()
        for each in states:
            state += State((each,))
        if len(state.origins) < len(states):
            parse._refuse("state", f"up to {MAX_ORIGINS:,} origins, each once", len(states))
        return state

    def before(self, data: bytes) -> bytes:
        """Return the bytes of a snapshot with this state before them."""
        if not self:
            return data
        text = json.dumps(self.to_list(), allow_nan=False).encode()
        return _HEADER.pack(MAGIC, _VERSION, crc32(text), len(text)) + text + data

    @staticmethod
    def split(data: bytes) -> tuple[State, bytes]:
        """Return the state of the bytes of a snapshot, and the rest; raises SnapshotError."""
        data = bytes(data)
        if not data.startswith(MAGIC):
            return State(), data
        if len(data) < _HEADER.size:
            raise SnapshotError("not a langmeter snapshot: cut off in the header")
        _, version, checksum, size = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise SnapshotError(
                f"state of version {version}; this langmeter reads {_VERSION}: upgrade it"
            )
        text, rest = data[_HEADER.size :][:size], data[_HEADER.size + size :]
        if crc32(text) != checksum:
            raise SnapshotError("not a langmeter snapshot: cut off or damaged in its state")
        try:
            return State.from_list(json.loads(text)), rest
        except (ValueError, RecursionError) as exc:
            raise SnapshotError(f"not a langmeter snapshot: {exc}") from exc


def _rank(each: OriginState) -> tuple[int, str]:
    return each.taken_at_unix_nano, json.dumps(_plain(each))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, BudgetState):
        return value.to_dict()
    return _fields(value) if hasattr(value, "__dataclass_fields__") else value


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _origin(where: str, data: object) -> OriginState:
    given = parse._mapping(where, data)
    listed: dict[str, Any] = {
        place: tuple(
            _part(f"{where}.{place}[{number}]", kind, each)
            for number, each in enumerate(parse._list(f"{where}.{place}", given.get(place, [])))
        )
        for place, kind in KINDS.items()
    }
    for place, parts in listed.items():
        if len(parts) > MAX_PARTS:
            parse._refuse(f"{where}.{place}", f"up to {MAX_PARTS} parts", len(parts))
    name = "taken_at_unix_nano"
    taken_at = parse._whole(f"{where}.{name}", parse._field(where, given, name))
    return OriginState(parse._text(where, given, "origin"), taken_at, **listed)


def _part(where: str, kind: type[Part], data: object) -> Any:
    given: Mapping[str, Any] = parse._mapping(where, data)
    values: dict[str, Any] = {}
    for each in fields(kind):
        if each.name not in given and each.default is not MISSING:
            continue  # an older langmeter did not write it
        value = parse._field(where, given, each.name)
        try:
            values[each.name] = _READERS[str(each.type)](value)
        except (TypeError, ValueError, InvalidOperation):
            parse._refuse(f"{where}.{each.name}", f"of type {each.type}", value)
    return kind(**values)


def _checked(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError
    return value


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_checked(value, str))
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _amount(value: Any) -> Amount:
    amount: Amount = _checked(value, int) if not isinstance(value, str) else Decimal(value)
    if isinstance(amount, Decimal) and not amount.is_finite():
        raise ValueError
    return amount


def _scope(value: Any) -> Scope:
    return tuple(
        (key, tuple(_checked(each, str) for each in _checked(texts, list)))
        for key, texts in _checked(value, dict).items()
    )


#: Type of a field → reader of its plain form.
_READERS: Final[dict[str, Any]] = {
    "str": lambda value: _checked(value, str),
    "int": lambda value: _checked(value, int),
    "bool": lambda value: _checked(value, bool),
    "float": lambda value: float(_checked(value, int, float)),
    "Amount": _amount,
    "datetime": _moment,
    "datetime | None": lambda value: None if value is None else _moment(value),
    "Scope | None": lambda value: None if value is None else _scope(value),
}
