"""pytest plugin: run another project's tests with one inline handler installed in the process.

The environment says which: `PEER_HANDLER=empty` installs a handler that does nothing, `meter` a
`Meter`. The outcome of each test, and for the meter what is in flight and dropped at the end, is
written as JSON to `PEER_RESULTS`.
"""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

#: Longest run that the meter keeps waiting for, seconds; the clock is moved beyond it at the end.
_MAX_RUN_AGE = 3600.0

_outcomes: dict[str, str] = {}
#: The first test after which each counter of `dropped` was above zero.
_dropped_in: dict[str, str] = {}
_meter: Any = None
_clock: Any = None


class EmptyHandler(BaseCallbackHandler):
    """The floor: inline, and no hook is overridden but the one that LangChain would replace."""

    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, where the base class would turn the messages into text."""


def pytest_configure(config: pytest.Config) -> None:
    """Install the handler before the first test module is imported."""
    global _meter, _clock  # noqa: PLW0603
    if os.environ["PEER_HANDLER"] == "empty":
        empty = EmptyHandler()
        handler: ContextVar[Any] = ContextVar("empty_handler", default=empty)
        register_configure_hook(handler, inheritable=True)
        return
    from langmeter import Meter, install
    from langmeter.testing import ManualClock

    _clock = ManualClock()
    _meter = install(Meter(clock=_clock, max_run_age=_MAX_RUN_AGE))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst outcome of the phases of each test."""
    if report.when == "call" or report.outcome != "passed":
        outcome: str = "xfailed" if hasattr(report, "wasxfail") else report.outcome
        if report.when != "call" and report.failed:
            outcome = "error"
        _outcomes[report.nodeid] = outcome
    if _meter is not None and report.when == "teardown":
        for name in _meter.snapshot().dropped:
            _dropped_in.setdefault(name, report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes, and what the meter holds once every run has passed its age."""
    found: dict[str, Any] = {"outcomes": _outcomes}
    if _meter is not None:
        before = _meter.snapshot()
        _clock.advance(2 * _MAX_RUN_AGE)
        after = _meter.snapshot()
        found["calls"] = after.totals.calls
        found["components"] = sum(stats.calls for stats in after.components.values())
        found["in_flight"] = [before.in_flight, after.in_flight]
        found["dropped_in"] = dict.fromkeys(after.dropped, "no test") | _dropped_in
        found["dropped"] = {name: n for name, n in after.dropped.items() if n}
    Path(os.environ["PEER_RESULTS"]).write_text(json.dumps(found))
