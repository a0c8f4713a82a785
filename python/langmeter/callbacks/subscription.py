"""Subscriptions: functions of users' that get what was counted, every so many seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from langmeter._base.check import real_number
from langmeter._base.delivery import notice_listener, plain_function
from langmeter.callbacks.services import Services
from langmeter.monitors.differences import DifferenceObserver
from langmeter.snapshot import Snapshot

__all__ = ["subscribe"]


class _Subscriber:
    """Calls a function with a difference, in the thread of users' callbacks."""

    def __init__(self, function: Callable[[Snapshot], Any]) -> None:
        self._function = function
        self.observer: DifferenceObserver | None = None

    def __repr__(self) -> str:
        return repr(self._function)

    def __call__(self, _: None) -> None:
        difference = None if self.observer is None else self.observer.take()
        if difference is not None:
            self._function(difference)


def subscribe(
    services: Services, seconds: float, function: Callable[[Snapshot], Any]
) -> Callable[[], None]:
    """Call a function with the differences of a recorder; see `Callback.subscribe`."""
    seconds = real_number("seconds", seconds, 0.001, 86_400, unit="seconds")
    subscriber = _Subscriber(plain_function("function", function, "Snapshot"))
    listener = notice_listener("function", subscriber, services.recorder.dropped)
    observer = DifferenceObserver(
        services.recorder, seconds, services.snapshot, lambda: listener.notify(None)
    )
    subscriber.observer = observer
    observer.take()
    services.subscribe(observer)
    owner = ref(services)

    def end() -> None:
        services = owner()
        if services is not None and services.unsubscribe(observer):
            listener.notify(None)

    return end
