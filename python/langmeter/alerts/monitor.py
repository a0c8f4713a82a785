"""The alerts of one meter: a difference every five seconds, judged, and sent to its sinks.

Where the meter has a history or a directory, the state of alerts is kept there, and of all its
processes one judges each rule, over the figures of all of them.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, time
from typing import Any, Final, Protocol
from weakref import WeakSet

from langmeter._base.delivery import Count, Listener, Queue, Queued
from langmeter._base.forks import at_fork
from langmeter._base.log import log
from langmeter.alerts.alert import Alert, moment
from langmeter.alerts.engine import Engine
from langmeter.alerts.gauges import gauges
from langmeter.alerts.options import Rule, Sink
from langmeter.alerts.sinks import Deliveries, Delivery
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import AlertState, State

__all__ = ["AlertMonitor"]

#: Seconds that the end of the process waits for sinks at most.
_EXIT: Final = 5.0
#: Seconds that one evaluation may wait for another.
_TURN: Final = 5.0


class Differences(Protocol):
    """A source that a monitor judges."""

    def take(self) -> Snapshot | None:
        """Return what was counted since the last call; None where its recorder has gone."""

    @property
    def state(self) -> State:
        """The state as of the last difference."""


class Leases(Protocol):
    """The arbiter of which process judges a rule: a history, or a directory."""

    def hold(self, titles: Iterable[str], now: float) -> dict[str, list[dict[str, Any]]]:
        """Take or keep rules; returns the states of the alerts of those that are held."""

    def save(self, states: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write the states of rules that are held."""

    def release(self) -> None:
        """Give back what is held."""

    def news(self, since: float, now: float) -> Iterable[tuple[float, float, Snapshot]]:
        """Return begin, end and figures of what other processes counted, each once."""


class AlertMonitor:
    """Judges rules over what a meter counts, and sends what fires and resolves.

    Args:
        rules: the rules.
        sinks: what gets alerts.
        count: counts what was lost, as `Recorder.dropped`.
        link: address that alerts have.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        sinks: Iterable[Sink],
        *,
        count: Count,
        link: str = "",
    ) -> None:
        self._rules = tuple(rules)
        self._count = count
        self._link = link
        self._differences: Differences | None = None
        self._leases: Leases | None = None
        self._skip: Callable[[], None] | None = None
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
        self._is_new = False
        self._is_reported = False
        for sink in self._sinks.each:
            sink.reset_after_fork()

    def observe(
        self,
        differences: Differences,
        leases: Leases | None = None,
        skip: Callable[[], None] | None = None,
    ) -> None:
        """Judge these differences.

        Args:
            differences: where they and the state come from.
            leases: of a history or a directory; None to judge every rule.
            skip: given where differences are of all processes: a process that holds no rule takes
                none, and calls this before its first.
        """
        self._differences, self._leases, self._skip = differences, leases, skip

    def due(self) -> bool:
        """Evaluate soon, in a thread of its own."""
        return not self._closed and self._listener.notify(None)

    @property
    def open(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, labels and begin (Unix seconds) of the alerts that fire in this process."""
        return self._engine.open()

    def states(self) -> list[AlertState]:
        """Return the alerts that are pending or fire in this process, for its snapshots."""
        return self._engine.states()

    @property
    def dead_letters(self) -> Mapping[str, int]:
        """Number of alerts that were not accepted, by sink."""
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
        differences = self._differences
        if differences is None or not self._turn.acquire(timeout=_TURN):
            return
        try:
            now, is_new = time(), self._is_new
            led = self._engine.titles if self._leases is None else self._lead(self._leases, now)
            self._is_new = not led
            if self._skip is not None:
                if not led:
                    return
                if is_new:
                    self._skip()
            difference = differences.take()
            if difference is None:
                return
            now, native = time(), difference._native
            self._engine.observe(native.started_at / 1e9, native.taken_at / 1e9, difference)
            for alert in self._engine.evaluate(now, gauges(differences.state), led):
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
                restored = {title: held[title] for title in new}
                self._engine.restore(restored, None if self._skip is None else now)
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
        """Log that the history or the directory fails; this process judges on what it judged."""
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
at_fork(after_in_child=_after_fork)
