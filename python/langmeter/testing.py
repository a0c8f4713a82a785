"""For the tests of code that is metered: a clock that moves only when told to.

    clock = ManualClock()
    meter = Meter(clock=clock)
    ...
    clock.advance(60.0)
"""

from __future__ import annotations

from langmeter._core import ManualClock

__all__ = ["ManualClock"]
