"""The alerts of one meter: a difference every five seconds, judged, and sent to its sinks.

Where the meter has a history, the state of alerts is kept there, and of all processes that write it
one judges each rule, over the figures of all of them.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, time
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from langmeter._base.delivery import Count, Listener, Queue, Queued
from langmeter._base.log import log
from langmeter.alerts.alert import Alert, moment
from langmeter.alerts.engine import Engine, GaugeValue
from langmeter.alerts.options import Rule, Sink
from langmeter.alerts.sinks import Deliveries, Delivery
from langmeter.snapshot import Snapshot

if TYPE_CHECKING:
    from langmeter.history.leases import Leases

__all__ = ["AlertMonitor"]

#: Seconds that the end of the process waits for sinks at most.
_EXIT: Final = 5.0
#: Seconds that one evaluation may wait for another.
_TURN: Final = 5.0


class AlertMonitor:
    """Judges rules over what a meter counts, and sends what fires and resolves.

    Args:
        rules: the rules.
        sinks: what gets alerts.
        count: counts what was lost, as `Recorder.dropped`.
        gauges: gives the state of the process.
        link: address that alerts have.
        leases: of the history of the meter; None without.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        sinks: Iterable[Sink],
        *,
        count: Count,
        gauges: Callable[[], Iterable[GaugeValue]],
        link: str = "",
        leases: Leases | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._count = count
        self._gauges = gauges
        self._link = link
        self._leases = leases
        self._take: Callable[[], Snapshot | None] = lambda: None
        self._sinks = Deliveries(sinks, count)
        self._queue = Queue(Queued(queue_size=2, when_full="drop_newest"))
        self._listener = Listener("alerts", self._due, self._queue, count)
        self.reset_after_fork()
        _monitors.add(self)

    def reset_after_fork(self) -> None:
        """Begin anew: a forked child counts from zero, and has not the threads of its parent."""
        self._engine = Engine(self._rules, link=self._link)
        self._queue.reset()
        self._turn = threading.Lock()
        self._closed = False
        self._led: frozenset[str] = frozenset()
        self._is_reported = False
        for sink in self._sinks.each:
            sink.reset_after_fork()

    def observe(self, take: Callable[[], Snapshot | None]) -> None:
        """Take differences by this function."""
        self._take = take

    def due(self) -> bool:
        """Evaluate soon, in a thread of its own."""
        return not self._closed and self._listener.notify(None)

    @property
    def open(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and begin (Unix seconds) of the alerts that fire in this process."""
        return self._engine.open()

    @property
    def dead_letters(self) -> Mapping[str, int]:
        """How many alerts each sink did not accept."""
        return {sink.name: sink.dead_letters for sink in self._sinks.each}

    def flush(self, timeout: float) -> bool:
        """Evaluate now; returns whether every sink has got its alerts within `timeout` seconds."""
        deadline = monotonic() + timeout
        if not self._closed:
            self.evaluate()
        return self._sinks.flush(deadline)

    def close(self, timeout: float) -> bool:
        """Do the same, and end; what a sink has not accepted by then is a dead letter."""
        if self._closed:
            return True
        is_sent = self.flush(timeout)
        self._closed = True
        _monitors.discard(self)
        for sink in self._sinks.each:
            sink.close()
        if self._leases is not None:
            try:
                self._leases.release()
            except Exception as error:
                self._history_failed(error)
        return is_sent

    def evaluate(self) -> None:
        """Take what was counted since the last time, and judge it."""
        if not self._turn.acquire(timeout=_TURN):
            return
        try:
            difference = self._take()
            if difference is None:
                return
            now, native = time(), difference._native
            led = self._engine.titles if self._leases is None else self._lead(self._leases, now)
            self._engine.observe(native.started_at / 1e9, native.taken_at / 1e9, difference)
            for alert in self._engine.evaluate(now, self._gauges(), led):
                self._sinks.notify(alert)
            if self._leases is not None and led:
                self._save(self._leases, led)
            for sink in self._sinks.each:
                if problem := sink.problem():
                    self._sinks.notify(_of_sink(sink, problem, now, self._link), without=sink)
        finally:
            self._turn.release()

    def _due(self, _: None) -> None:
        self.evaluate()

    def _lead(self, leases: Leases, now: float) -> frozenset[str]:
        """Return the rules that this process judges; of those that are new, takes the state."""
        try:
            held = leases.hold(self._engine.titles, now)
            new = held.keys() - self._led
            if new:
                self._engine.restore({title: held[title] for title in new})
            if held:
                for started, ended, snapshot in leases.news(now - self._engine.longest, now):
                    self._engine.observe(started, ended, snapshot)
            self._led, self._is_reported = frozenset(held), False
        except Exception as error:  # whatever the driver of the database raises
            self._history_failed(error)
        return self._led

    def _save(self, leases: Leases, led: frozenset[str]) -> None:
        try:
            leases.save(self._engine.state(led))
        except Exception as error:
            self._history_failed(error)

    def _history_failed(self, error: Exception) -> None:
        """Log that the database does not answer; this process goes on with what it judged."""
        if not self._is_reported:
            self._is_reported = True
            log.warning(
                "the state of alerts cannot be read or written: %s; it is tried again",
                str(error).splitlines()[0],
            )


def _of_sink(sink: Delivery, problem: str, now: float, link: str) -> Alert:
    """Return the alert that the other sinks get about a sink that does not work."""
    return Alert(
        event_id=f"evt_sink_{os.getpid()}_{now:.0f}_{sink.dead_letters}",
        status="firing",
        name="a sink of alerts does not work",
        rule=f"sink {sink.name}: {problem}",
        severity="warning",
        labels={"sink": sink.name},
        metric="sink",
        value=sink.dead_letters,
        threshold=0,
        unit="count",
        count=sink.dead_letters,
        before=None,
        window_start=moment(now),
        at=moment(now),
        started_at=moment(now),
        link=link,
    )


#: Monitors that are not closed.
_monitors: Final[WeakSet[AlertMonitor]] = WeakSet()


def _close_all() -> None:
    deadline = monotonic() + _EXIT
    for monitor in list(_monitors):
        try:
            monitor.close(deadline - monotonic())
        except Exception as error:
            log.warning("alerts failed at the end", exc_info=error)


def _after_fork() -> None:
    for monitor in list(_monitors):
        monitor.reset_after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
