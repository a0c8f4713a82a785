"""The meter: every class in one handler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import ref

from langmeter import _core
from langmeter.budgets import Budget
from langmeter.callbacks.composite import CompositeCallback
from langmeter.callbacks.cost import CostTrackingCallback
from langmeter.callbacks.defects import DefectAnalysisCallback
from langmeter.callbacks.performance import PerformanceCallback
from langmeter.callbacks.streaming import StreamingCallback
from langmeter.callbacks.tokens import TokenCountingCallback
from langmeter.config import Labels, MeterConfig
from langmeter.config.settings import KEYWORDS
from langmeter.defects import DefectOptions
from langmeter.directory import Directory
from langmeter.monitors.differences import DifferenceObserver, DirectoryObserver
from langmeter.monitors.stalls import Stall
from langmeter.prices import PriceBook
from langmeter.snapshot import Snapshot
from langmeter.streaming import (
    Collect,
    Delivery,
    StreamEvent,
    StreamFailure,
    StreamOptions,
    StreamResult,
)
from langmeter.usage import Source

if TYPE_CHECKING:
    from langmeter.alerts.monitor import AlertMonitor
    from langmeter.alerts.options import Rule, Sink
    from langmeter.directory import DirectoryOptions
    from langmeter.history.options import HistoryOptions
    from langmeter.history.writer import Writer

PartT = TypeVar("PartT")


class Meter(CompositeCallback):
    """A handler with everything on.

    `chain.invoke(question, config={"callbacks": [meter]})`, then `print(meter.snapshot())`.
    `Meter(budgets=[Budget(usd=5, per="day", action="block")])` refuses calls beyond 5 USD a day.
    `Meter(directory="/run/langmeter")` counts into a file, which other processes read.
    `Meter(history="metrics.db")` writes what it counts to a database every minute.
    `Meter(alerts=["error_rate > 5%"], sinks=["https://…"])` sends an alert when many calls fail.

    Keywords are the settings of `langmeter.MeterConfig`, and the options of
    `langmeter.streaming.StreamOptions` by their own names. One that is left out or None comes from
    the environment, the file, or the defaults, as of `MeterConfig.load`. `streams=False` and
    `defects=False` leave those views out; asking for one then raises AttributeError.

    Attributes:
        tokens, cost, performance, streaming, defects: the views of its recorder. A property of
            theirs takes a whole snapshot; `meter.tokens.of(snapshot)` reads all from one.

    Raises:
        ConfigError: settings are refused; it names all of them.
        TypeError: `config` is given beside other settings.
    """

    def __init__(
        self,
        *,
        on_token_callback: Callable[[str], Any] | None = None,
        on_event: Callable[[StreamEvent], Any] | None = None,
        on_complete: Callable[[StreamResult], Any] | None = None,
        on_error: Callable[[StreamFailure], Any] | None = None,
        collect: bool | Collect | None = None,
        delivery: Delivery | None = None,
        on_stall: Callable[[Stall], Any] | None = None,
        stall_after: float | None = None,
        streams: StreamOptions | bool | None = None,
        prices: PriceBook | bool | None = None,
        budgets: Iterable[Budget] | Literal[False] | None = None,
        token_counters: Mapping[str, Source] | None = None,
        labels: Labels | None = None,
        defects: DefectOptions | bool | None = None,
        anomalies: bool | None = None,
        directory: str | os.PathLike[str] | DirectoryOptions | Literal[False] | None = None,
        history: str | os.PathLike[str] | HistoryOptions | Literal[False] | None = None,
        alerts: Iterable[Rule | str] | Literal[False] | None = None,
        sinks: Iterable[Sink] | Sink | Literal[False] | None = None,
        alert_link: str | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        settings |= {
            "on_token_callback": on_token_callback,
            "on_event": on_event,
            "on_complete": on_complete,
            "on_error": on_error,
            "collect": collect,
            "delivery": delivery,
            "on_stall": on_stall,
            "stall_after": stall_after,
            "streams": streams,
            "prices": prices,
            "budgets": budgets,
            "token_counters": token_counters,
            "labels": labels,
            "defects": defects,
            "anomalies": anomalies,
            "directory": directory,
            "history": history,
            "alerts": alerts,
            "sinks": sinks,
            "alert_link": alert_link,
        }
        config = MeterConfig.chosen(config, settings, *KEYWORDS)
        # Counters of tokens are loaded once, for all.
        part = replace(config, token_counters=None) if config.token_counters else config
        self.tokens = TokenCountingCallback(config=part)
        self.cost = CostTrackingCallback(config=part)
        self.performance = PerformanceCallback(config=part)
        self._streaming = StreamingCallback(config=part) if config.streams else None
        self._defects = DefectAnalysisCallback(config=part) if config.defects else None
        views = (self.tokens, self.cost, self.performance, self._streaming, self._defects)
        super().__init__([view for view in views if view is not None], config=config)
        self._history = None
        if config.history is not None:
            self._history = self._begin_history(config.history, config.directory)
        self._alerts = self._begin_alerts(config) if config.alerts else None

    def _begin_history(self, history: HistoryOptions, directory: DirectoryOptions | None) -> Writer:
        from langmeter.history.writer import Writer

        services, writer = self._services, Writer(history)
        observer = DifferenceObserver(
            services.recorder,
            history.interval,
            services.snapshot,
            writer.due,
            begin=writer.begin,
            aligned=True,
        )
        recovery = None
        if directory is not None:
            from langmeter.history.recovery import Recovery

            recovery = Recovery(directory, history, partial(_file_of, ref(services.recorder)))
        writer.observe(observer, recovery)
        services.subscribe(observer)
        self._history_observer = observer
        return writer

    def _begin_alerts(self, config: MeterConfig) -> AlertMonitor:
        from langmeter.alerts.engine import INTERVAL
        from langmeter.alerts.monitor import AlertMonitor, Leases

        services, history, directory = self._services, config.history, config.directory
        monitor = AlertMonitor(
            config.alerts,  # type: ignore[arg-type]
            config.sinks,  # type: ignore[arg-type]
            count=services.recorder.dropped,
            link=config.alert_link,
        )
        arguments = (services.recorder, INTERVAL, services.snapshot, monitor.due)
        observer: DifferenceObserver
        leases: Leases | None = None
        # A directory knows at once what its processes count; a server knows other hosts.
        if directory is not None and self.file and not (history and history.is_server):
            from langmeter.directory.leases import DirectoryLeases

            leases = DirectoryLeases(directory)
            observer = DirectoryObserver(Directory(directory.path), *arguments)
            monitor.observe(observer, leases, skip=observer.skip)
        else:
            if history is not None and self._history is not None:
                from langmeter.history.leases import Leases as HistoryLeases

                leases = HistoryLeases(history.url, self._history.process)
            observer = DifferenceObserver(*arguments)
            observer.take()
            monitor.observe(observer, leases)
        services.states.add(monitor, type(monitor).states)
        services.subscribe(observer)
        self._alert_observer = observer
        return monitor

    @property
    def alerts(self) -> AlertMonitor:
        """Alerts that fire, and what sinks did not accept; AttributeError without rules."""
        return _switched_on(self._alerts, "alerts", "alerts=[…]")

    def flush(self, timeout: float = 5.0) -> Snapshot | None:
        """Judge alerts, and write what was counted up to now to the history.

        Tries until `timeout` seconds have passed. Returns what is still unwritten, which the meter
        keeps and writes later; None where all is written, and for a meter without a history.
        """
        begin = monotonic()
        rest = None if self._history is None else self._history.flush(timeout)
        if self._alerts is not None:
            self._alerts.flush(timeout - (monotonic() - begin))
        return rest

    def close(self, timeout: float = 5.0) -> Snapshot | None:
        """Do the same, and end history and alerts; the meter counts on.

        Returns what is still unwritten after `timeout` seconds, and is not written later:
        `langmeter history import URL FILE` adds a file of it (`Snapshot.to_bytes`). None where all
        is written. The end of the process does the same.
        """
        begin, rest = monotonic(), None
        if self._history is not None:
            rest = self._history.close(timeout)
            self._services.unsubscribe(self._history_observer)
        if self._alerts is not None:
            self._alerts.close(timeout - (monotonic() - begin))
            self._services.unsubscribe(self._alert_observer)
        return rest

    @property
    def file(self) -> Path | None:
        """The file that this process counts into; None while it counts in memory."""
        return self._services.recorder.file

    @property
    def streaming(self) -> StreamingCallback:
        """Streams and those who listen to them."""
        return _switched_on(self._streaming, "streams")

    @property
    def defects(self) -> DefectAnalysisCallback:
        """Attempts to fix defects."""
        return _switched_on(self._defects, "defects")


def _switched_on(view: PartT | None, facet: str, remedy: str = "") -> PartT:
    if view is None:
        remedy = f"with {remedy}" if remedy else f"without {facet}=False"
        raise AttributeError(f"{facet} of this meter are switched off; make it {remedy}")
    return view


def _file_of(recorder: Callable[[], _core.Recorder | None]) -> Path | None:
    held = recorder()
    return None if held is None else held.file
