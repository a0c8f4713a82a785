"""Warnings that cannot flood a log: each subject once, ten in all, the rest counted."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count as count_from
from typing import Final

from langmeter._base.log import log

#: Warnings of one kind that are logged; later ones are counted.
MAX_WARNINGS: Final = 10
#: Subjects remembered, so that each is warned about once; beyond these a subject is ignored.
_MAX_SUBJECTS: Final = 1024


class LimitedWarnings:
    """Warnings of one kind (a model without a price, a budget that matches no call).

    Each subject is warned about once. The first ten are logged to the logger `langmeter`, the tenth
    with a note that no more will be; the rest are counted in `suppressed`.

    Args:
        kind: plural noun for that note: "models without a price".
        count: called with 1 for each warning that is not logged; None where nothing counts them.

    Attributes:
        count: as given; `langmeter` counts in `snapshot().dropped["warnings"]`.
        suppressed: warnings that were not logged.
    """

    __slots__ = ("_kind", "_numbers", "_subjects", "count", "suppressed")

    def __init__(self, kind: str, count: Callable[[int], object] | None = None) -> None:
        self._kind = kind
        self.count = count
        self._subjects: set[Hashable] = set()
        self._numbers = count_from(1)
        self.suppressed = 0

    def __contains__(self, subject: Hashable) -> bool:
        return subject in self._subjects or len(self._subjects) >= _MAX_SUBJECTS

    def warn(self, subject: Hashable, message: str, *args: object) -> None:
        """Log `message % args` unless `subject` was warned about before or ten others were."""
        if subject in self:
            return
        self._subjects.add(subject)
        logged = next(self._numbers)  # in one step, for threads that warn at once
        if logged < MAX_WARNINGS:
            log.warning(message, *args)
        elif logged == MAX_WARNINGS:
            log.warning(message + "; further %s are only counted", *args, self._kind)
        else:
            self.suppressed += 1
            if self.count is not None:
                self.count(1)
