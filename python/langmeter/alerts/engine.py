"""Engine of alerts: takes differences of snapshots, and says which alerts fire and resolve.

It has no clock and no thread: what happened comes by `observe`, the moment by `evaluate`. An alert
goes from inactive to pending to firing and back. Three things keep it from flapping: a threshold of
its own for the way back, a time that the figure must be better for, and a pause after that. Without
data it stays what it is, and no time passes for it.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from langmeter._base.spans import seconds_of
from langmeter.alerts.alert import Alert, Status, moment
from langmeter.alerts.gauges import GaugeValue
from langmeter.alerts.options import Rule
from langmeter.alerts.window import Groups, Window
from langmeter.analysis.conditions import Gauge
from langmeter.analysis.metrics import Figure, Sum, add, matches
from langmeter.analysis.parts import Parts
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import AlertState

__all__ = ["Engine"]

#: Seconds between two evaluations.
INTERVAL: Final = 5.0
#: Alerts that a rule may have at a time; groups beyond them are not judged.
_MOST: Final = 1000

#: What of a state survives a restart.
_KEPT: Final = ("status", "since", "bad_until", "quiet_until", "period")

Key = tuple[str, ...]


class _Reading(NamedTuple):
    """The reading of a rule in a group: the figure, beside its two thresholds."""

    value: float
    calls: int
    before: float | None
    worse: bool
    better: bool
    period: str = ""


@dataclass(slots=True)
class _State:
    """State of one alert; moments are Unix seconds, 0 for never."""

    status: str = "inactive"
    since: float = 0.0
    bad_until: float = 0.0
    quiet_until: float = 0.0
    judged_at: float = 0.0
    period: str = ""
    value: float = 0.0


class _Watch:
    """One rule, its windows, and its alerts."""

    def __init__(self, rule: Rule, interval: float) -> None:
        self.rule = rule
        self.states: dict[Key, _State] = {}
        #: When its window has all that it is of, Unix seconds.
        self.complete_at = 0.0
        condition = rule.condition
        self.metric = condition.metric
        self.is_gauge = isinstance(self.metric, Gauge)
        self.names = (self.metric.name.partition(".")[0],) if self.is_gauge else rule.names
        self.parts = None if self.is_gauge else Parts(rule.names, condition.where, condition.metric)
        self.long = Window(rule.seconds, interval)
        self.short: Window | None = None
        if rule.short is not None:
            self.short = Window(seconds_of("short", rule.short), interval)
        self.before: Window | None = None
        if condition.sign:
            self.before = Window(seconds_of("baseline", rule.baseline), interval)

    def observe(self, started: float, ended: float, snapshot: Snapshot) -> None:
        if self.parts is None:
            return
        groups: dict[Key, Any] = {}
        for key, stats in self.parts.of(snapshot):
            tally = self.metric.tally(stats)
            if tally is not None:
                groups[key] = add(groups[key], tally) if key in groups else tally
        for window in (self.long, self.short):
            if window is not None:
                window.add(ended, groups, started)

    def forget(self, now: float) -> None:
        """Forget what is too old, and the alerts, which another process judges."""
        self.states.clear()
        for window in (self.long, self.short, self.before):
            if window is not None:
                window.evict(now)

    def readings(self, now: float, gauges: Iterable[GaugeValue]) -> Iterator[tuple[Key, Any]]:
        """Yield the reading of each group, None where there is no data."""
        condition = self.rule.condition
        if self.is_gauge:
            for gauge in gauges:
                if gauge.gauge == self.metric.name and matches(condition.where, gauge.name):
                    worse = condition.beyond(gauge.value, self.rule.threshold)
                    better = not condition.beyond(gauge.value, self.rule.clear)
                    yield (gauge.name,), _Reading(gauge.value, 1, None, worse, better, gauge.period)
            return
        for ended, groups in self.long.evict(now):
            if self.before is not None:
                self.before.add(ended, groups, ended - self.long.seconds)
        total = self.long.total()
        short: Groups | None = None
        if self.short is not None:
            self.short.evict(now)
            short = self.short.total()
        before: Groups | None = None
        if self.before is not None:
            self.before.evict(now - self.long.seconds)
            before = self.before.total()
        active = [key for key, state in self.states.items() if state.status != "inactive"]
        keys = dict.fromkeys([*total, *active, *([()] if not self.names else [])])
        for key in list(keys)[:_MOST]:
            yield key, self._reading(key, now, total, short, before)

    def _reading(
        self, key: Key, now: float, total: Groups, short: Groups | None, before: Groups | None
    ) -> _Reading | None:
        rule, condition = self.rule, self.rule.condition
        figure = self._figure(total.get(key))
        if figure is None or (condition.sense < 0 and not self._complete(now)):
            return None
        value, earlier = figure.value, None
        if before is not None:
            base = self._figure(before.get(key))
            if base is None or not base.value:
                return None
            earlier = base.value
            if isinstance(self.metric, Sum) and self.before is not None:
                # A sum grows with its span.
                earlier *= self.long.seconds / self.before.observed(now - self.long.seconds)
            value = value / earlier - 1 if condition.relative else value - earlier
        worse = condition.beyond(value, rule.threshold)
        better = not condition.beyond(value, rule.clear)
        if short is not None and self.short is not None:
            scale = self.short.seconds / self.long.seconds if isinstance(self.metric, Sum) else 1.0
            recent = self._figure(short.get(key), least=1)
            is_worse = recent is not None and condition.beyond(recent.value, scale * rule.threshold)
            worse = worse and is_worse
            better = better or (
                recent is not None and not condition.beyond(recent.value, scale * rule.clear)
            )
        return _Reading(value, figure.count, earlier if condition.relative else None, worse, better)

    def _complete(self, now: float) -> bool:
        """Whether too little of a sum is too little, and not only not seen."""
        return not isinstance(self.metric, Sum) or self.long.covers(now)

    def _figure(self, tally: Any, least: int | None = None) -> Figure | None:
        if isinstance(self.metric, Sum):  # of nothing it is 0, and exact
            return Figure(0.0, 0) if tally is None else Figure(tally[0], tally[2])
        figure = None if tally is None else self.metric.figure(tally)
        wanted = self.rule.min_count if least is None else least
        return None if figure is None or figure.count < wanted else figure


class Engine:
    """Judges rules.

    Args:
        rules: the rules.
        interval: seconds between two evaluations.
        link: address that alerts have.
    """

    def __init__(
        self, rules: Iterable[Rule], *, interval: float = INTERVAL, link: str = ""
    ) -> None:
        self._watches = [_Watch(rule, interval) for rule in rules]
        self._link = link

    @property
    def titles(self) -> frozenset[str]:
        """Names of the rules."""
        return frozenset(watch.rule.title for watch in self._watches)

    @property
    def longest(self) -> float:
        """Seconds of the longest span that a rule looks back."""
        return max(
            (
                watch.long.seconds + (watch.before.seconds if watch.before else 0)
                for watch in self._watches
            ),
            default=0.0,
        )

    def observe(self, started: float, ended: float, snapshot: Snapshot) -> None:
        """Take what was counted in a span, Unix seconds; spans come in any order."""
        for watch in self._watches:
            watch.observe(started, ended, snapshot)

    def evaluate(
        self,
        now: float,
        gauges: Iterable[GaugeValue] = (),
        titles: Container[str] | None = None,
    ) -> list[Alert]:
        """Return the alerts that fire or resolve at a moment, Unix seconds.

        Args:
            now: the moment.
            gauges: the state of the process.
            titles: rules that are judged; None for all.
        """
        gauges = tuple(gauges)
        alerts = []
        for watch in self._watches:
            if titles is not None and watch.rule.title not in titles:
                watch.forget(now)
                continue
            for key, value in watch.readings(now, gauges):
                reading = value
                state = watch.states.get(key) or _State(judged_at=now)
                is_complete = now >= watch.complete_at
                if state.status == "firing" and not (is_complete or reading is None):
                    # Half a window does not say that what fired before is better.
                    reading = reading if reading.worse else None
                status = _step(watch.rule, state, reading, now)
                state.value = state.value if reading is None else reading.value
                if state.status == "inactive" and not state.period and now >= state.quiet_until:
                    watch.states.pop(key, None)
                else:
                    watch.states[key] = state
                if status is not None:
                    alerts.append(self._alert(watch, key, state, status, reading, now))
        return alerts

    def states(self) -> list[AlertState]:
        """Return the alerts that are pending or fire, with the figure at their last evaluation."""
        return [
            AlertState(
                watch.rule.title,
                ", ".join(f"{name}={value}" for name, value in zip(watch.names, key, strict=True)),
                watch.rule.severity,
                state.status,
                moment(state.since),
                state.value,
            )
            for watch in self._watches
            for key, state in list(watch.states.items())  # another thread may evaluate
            if state.status != "inactive"
        ]

    def open(self) -> list[tuple[str, dict[str, str], float]]:
        """Return name, labels and begin (Unix seconds) of the alerts that fire."""
        return [
            (watch.rule.title, dict(zip(watch.names, key, strict=True)), state.since)
            for watch in self._watches
            for key, state in watch.states.items()
            if state.status == "firing"
        ]

    def state(self, titles: Container[str]) -> dict[str, list[dict[str, Any]]]:
        """Return what must survive a restart, by rule, as JSON has it."""
        return {
            watch.rule.title: [
                {"key": list(key), **{name: getattr(state, name) for name in _KEPT}}
                for key, state in watch.states.items()
            ]
            for watch in self._watches
            if watch.rule.title in titles
        }

    def restore(
        self, states: Mapping[str, Iterable[Mapping[str, Any]]], now: float | None = None
    ) -> None:
        """Take the place of an engine that had this state of some rules.

        With `now`, Unix seconds, there are no figures of what came before: what fires does not
        resolve until its window is of what comes after.
        """
        for watch in self._watches:
            for row in states.get(watch.rule.title, ()):
                if now is not None and not watch.is_gauge:
                    watch.complete_at = now + watch.long.seconds
                if len(row["key"]) == len(watch.names):
                    state = _State(**{name: row[name] for name in _KEPT})
                    watch.states[tuple(row["key"])] = state

    def _alert(
        self, watch: _Watch, key: Key, state: _State, status: Status, reading: _Reading, now: float
    ) -> Alert:
        rule = watch.rule
        identity = repr((rule.title, rule.text, key, state.since, state.period, status))
        seconds = 0.0 if watch.is_gauge else watch.long.seconds
        return Alert(
            event_id=f"evt_{hashlib.sha256(identity.encode()).hexdigest()[:24]}",
            status=status,
            name=rule.title,
            rule=rule.text,
            severity=rule.severity,
            labels=dict(zip(watch.names, key, strict=True)),
            metric=watch.metric.name,
            value=reading.value,
            threshold=rule.threshold,
            unit=watch.metric.unit,
            count=reading.calls,
            before=reading.before,
            window_start=moment(now - seconds),
            at=moment(now),
            started_at=moment(state.since),
            link=self._link,
            source=f"{socket.gethostname()}/{os.getpid()}",
        )


def _step(rule: Rule, state: _State, reading: _Reading | None, now: float) -> Status | None:
    """Move an alert to its next state; returns what sinks hear of that."""
    passed, state.judged_at = now - (state.judged_at or now), now
    if reading is None:
        if state.status == "pending":  # no time passes where there is no data
            state.since += passed
        elif state.status == "firing":
            state.bad_until += passed
        return None
    if reading.worse:
        state.bad_until = now
    if state.status == "firing":
        calm = now - state.bad_until >= seconds_of("keep_firing", rule.keep_firing, or_zero=True)
        new_period = reading.period != state.period
        if not reading.better and not new_period:
            state.bad_until = now
        elif calm or new_period:
            state.status = "inactive"
            state.quiet_until = now + seconds_of("cool_down", rule.cool_down, or_zero=True)
            return "resolved"
        return None
    if not reading.worse:
        if state.status == "pending":
            state.status, state.since = "inactive", 0.0
        return None
    if reading.period and reading.period == state.period:
        return None  # this rule has fired in this period
    if state.status == "inactive":
        state.status, state.since = "pending", now
    lasted = now - state.since >= seconds_of("for_", rule.for_, or_zero=True)
    if not lasted or now < state.quiet_until:
        return None
    state.status, state.since, state.period = "firing", now, reading.period
    return "firing"
