"""Files of snapshots into a history: each once, as a process of its own."""

from __future__ import annotations

import hashlib
import os

from langmeter import _core
from langmeter.history.schema import INTERVAL
from langmeter.history.store import Span, Store, counted, interval_of
from langmeter.snapshot import Snapshot

#: Host of what was imported: a snapshot does not say where it was taken.
HOST = "import"
#: Seconds of an interval.
_INTERVAL = 60
#: Seconds that a statement may take.
_TIMEOUT = 30.0


def add_snapshot(url: str | os.PathLike[str], snapshot: Snapshot) -> bool:
    """Add a snapshot to a history, at the time that it covers.

    It is rolled up by the next meter that writes. Returns False where it counts nothing, or is
    there already: the same snapshot is known by its figures. Snapshots that overlap, e.g. two of
    one meter, are counted twice; add the later one alone.
    """
    figures = counted(snapshot)
    if figures is None:
        return False
    process = f"import-{hashlib.sha256(figures.to_bytes()).hexdigest()[:16]}"
    span = interval_of(figures, _INTERVAL)
    row = Span(INTERVAL, *span, HOST, _core.__version__, figures, process)
    return Store(url, timeout=_TIMEOUT).append([row]) > 0
