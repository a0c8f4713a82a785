"""Windows of tallies: sums over the last so many seconds, without a subtraction.

A tally is of a monoid: histograms merge and do not divide. Two stacks give the sum of a sliding
window by one addition for each piece that enters and one for each that leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from langmeter.analysis.metrics import add

#: A tally for each value of the names of a rule.
Groups: TypeAlias = "Mapping[tuple[str, ...], Any]"

#: Pieces of a window: it is longer than its length by at most one of them.
_PIECES: Final = 60


class Window:
    """Sum of what happened in the last `seconds`, by group.

    Args:
        seconds: length of the window.
        finest: seconds of its shortest piece, the time between two observations.
    """

    def __init__(self, seconds: float, finest: float = 5.0) -> None:
        self.seconds = seconds
        self._size = max(finest, seconds / _PIECES)
        #: Pieces by number, the newest last; and their sum.
        self._new: list[tuple[int, Groups]] = []
        self._sum: Groups = {}
        #: Number of a piece, and the sum from it to the last of these; the oldest last.
        self._old: list[tuple[int, Groups, Groups]] = []
        self._begin = math.inf
        self._is_stale = False

    def add(self, ended: float, groups: Groups, started: float | None = None) -> None:
        """Add what happened up to a moment, Unix seconds; what came before `started` is unknown."""
        self._begin = min(self._begin, ended if started is None else started)
        number = math.floor(ended / self._size)
        newest = self._new[-1][0] if self._new else self._old[0][0] if self._old else -1
        if number < newest:
            self._add_late(number, groups)
            return
        self._sum = merged(self._sum, groups)
        if self._new and number == newest:
            groups = merged(self._new.pop()[1], groups)
        self._new.append((number, groups))

    def _add_late(self, number: int, groups: Groups) -> None:
        """Add a piece below the newest, as another process writes it."""
        pieces = {number: groups for number, groups, _ in self._old}
        for place, each in self._new:  # the newest of the old may go on in the new
            pieces[place] = merged(pieces[place], each) if place in pieces else each
        pieces[number] = merged(pieces[number], groups) if number in pieces else groups
        self._new, self._old, self._is_stale = sorted(pieces.items()), [], True

    def evict(self, now: float) -> list[tuple[float, Groups]]:
        """Forget what is older than the window; returns its pieces with their ends."""
        first = math.floor((now - self.seconds) / self._size)
        evicted: list[tuple[float, Groups]] = []
        while True:
            if not self._old:
                total: Groups = {}
                for number, groups in reversed(self._new):
                    total = merged(groups, total)
                    self._old.append((number, groups, total))
                self._new, self._sum, self._is_stale = [], {}, False
            if not self._old or self._old[-1][0] >= first:
                return evicted
            number, groups, _ = self._old.pop()
            evicted.append(((number + 1) * self._size, groups))

    def total(self) -> Groups:
        """Return the sum by group."""
        if self._is_stale:
            self._sum, self._is_stale = {}, False
            for _, groups in self._new:
                self._sum = merged(self._sum, groups)
        return merged(self._old[-1][2], self._sum) if self._old else self._sum

    def observed(self, now: float) -> float:
        """Return the seconds of the window that have been observed, at least one piece."""
        return min(max(now - self._begin, self._size), self.seconds)

    def covers(self, now: float) -> bool:
        """Return whether all of the window has been observed."""
        return now - self._begin >= self.seconds


def merged(one: Groups, other: Groups) -> Groups:
    """Return the sum of two, group by group."""
    if not one or not other:
        return one or other
    total = dict(one)
    for key, tally in other.items():
        total[key] = add(total[key], tally) if key in total else tally
    return total
