"""Observers, which look at a recorder every few seconds while both are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

from langmeter._base import periodic


class ObservedRecorder(Protocol):
    """The least that is asked of a recorder."""

    def dropped(self, name: str, n: int = 1) -> object:
        """Count what was lost."""


RecorderT = TypeVar("RecorderT", bound=ObservedRecorder)


class RecorderObserver(Generic[RecorderT]):
    """Looks at a recorder every `seconds`, from `start()` to `stop()`.

    It holds the recorder weakly, and nothing holds the watch but who made it: with either of them
    it ends. What goes wrong is counted in the recorder as `hook_errors`, and logged once.
    """

    def __init__(self, recorder: RecorderT, seconds: float, tasks: periodic.PeriodicTasks) -> None:
        self._recorder = ref(recorder)
        self._seconds = seconds
        self._tasks = tasks
        self._task: periodic.Task | None = None

    @property
    def changes(self) -> Sequence[Any]:
        """Return its findings for snapshots, as `Recorder.snapshot` takes them."""
        return ()

    @property
    def seconds(self) -> float:
        """Seconds between two looks."""
        return self._seconds

    def start(self) -> None:
        """Begin, unless begun; in a forked child, go on.

        ValueError when `seconds` is outside 0.001 to 86,400.
        """
        if self._task is None:
            self._task = self._tasks.every(self._seconds, self.tick, first=self._first())
        else:
            self._tasks.resume()

    def _first(self) -> float:
        """Return the seconds until the first observation."""
        return self._seconds

    def stop(self) -> None:
        """End; what is known is kept for another `start`."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def tick(self) -> None:
        """Observe once; the periodic task calls this."""
        recorder = self._recorder()
        if recorder is None:
            self.stop()
            return
        try:
            self._observe(recorder)
        except Exception:
            recorder.dropped("hook_errors")
            raise  # the periodic task logs it

    def _observe(self, recorder: RecorderT) -> None:
        raise NotImplementedError
