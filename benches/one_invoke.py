"""Real calls, for valgrind: `python -m benches.one_invoke empty|meter TIMES`."""

from __future__ import annotations

import gc
import sys
from typing import Any

from benches.model import PROMPT, FakeChat
from benches.peers import Empty
from langmeter import Meter


def main(kind: str, times: int) -> None:
    """Raises SystemExit where a count is wrong."""
    chat, meter = FakeChat(), Meter()
    meter.cost.prices.warm(wait=True)
    # No observers, whose threads go by time: under valgrind they would run in nearly every call.
    meter._services.makers = ()
    handler: Any = Empty() if kind == "empty" else meter
    config: Any = {"callbacks": [handler]}
    gc.disable()
    for _ in range(times):
        chat.invoke(PROMPT, config)
    counted = meter.snapshot().totals.priced_calls
    if counted != (times if kind == "meter" else 0):
        raise SystemExit(f"{counted} calls priced, {times} made")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
