"""For the tests of code that is metered: a clock that moves only when told to.

`meter = Meter(clock=(clock := ManualClock()))`, and later `clock.advance(60.0)`.
"""

from __future__ import annotations

from langmeter._core import ManualClock

__all__ = ["ManualClock"]
