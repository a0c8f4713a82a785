"""Registry of what a snapshot has as its state: each room adds a function that returns its part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from langmeter.snapshot.state import Part, State, origin_state

_Owner = TypeVar("_Owner")
#: Returns the parts of an owner.
StateFunction: TypeAlias = Callable[[Any], Iterable[Part]]


class StateRegistry:
    """Functions that give the parts of a recorder's state, each for as long as its owner lives."""

    def __init__(self) -> None:
        self._functions: WeakKeyDictionary[Any, StateFunction] = WeakKeyDictionary()

    def add(self, owner: _Owner, function: Callable[[_Owner], Iterable[Part]]) -> None:
        """Take `function(owner)` into each snapshot; it is held as long as its owner, weakly."""
        self._functions[owner] = function

    def join(self, other: StateRegistry, without: tuple[type, ...]) -> None:
        """Add what another registry has, but for owners of these types."""
        for owner, function in list(other._functions.items()):
            if not isinstance(owner, without):
                self.add(owner, function)

    def read(
        self, origin: tuple[int, int], taken_at: int, failed: Callable[[BaseException], None]
    ) -> State:
        """Return the state of a recorder at a moment, Unix nanoseconds.

        `failed` gets what a function raises.
        """
        parts: list[Part] = []
        for reference in self._functions.keyrefs():  # another thread may add one meanwhile
            owner = reference()
            function = None if owner is None else self._functions.get(owner)
            if function is not None:
                try:
                    parts += function(owner)
                except Exception as exc:
                    failed(exc)
        if not parts:
            return State()
        return State((origin_state(origin, taken_at, parts),))
