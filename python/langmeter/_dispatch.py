"""Users' callbacks that are nobody's business to wait for: one daemon thread, started by need."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from langmeter import _core

_log = logging.getLogger("langmeter")

#: Calls that may wait; one more is refused.
_ROOM: Final = 1024


class _Dispatcher:
    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Callable[[Any], Any], Any, _core.Recorder]]
        self._queue = queue.Queue(_ROOM)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, callback: Callable[[Any], Any], argument: Any, recorder: _core.Recorder) -> bool:
        try:
            self._queue.put_nowait((callback, argument, recorder))
        except queue.Full:
            return False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="langmeter", daemon=True)
                    thread.start()
                    self._thread = thread
        return True

    def _run(self) -> None:
        reported = False
        while True:
            callback, argument, recorder = self._queue.get()
            try:
                callback(argument)
            except BaseException as exc:  # this thread's alone: it has to live for the next one
                recorder.dropped("callback_errors")
                if not reported:
                    reported = True
                    _log.warning(
                        "%r failed; further failures are only counted", callback, exc_info=exc
                    )
            del callback, argument, recorder


_dispatcher = _Dispatcher()


def _after_fork() -> None:
    # The parent's thread is not here, and its lock may be held for ever.
    global _dispatcher  # noqa: PLW0603
    _dispatcher = _Dispatcher()


os.register_at_fork(after_in_child=_after_fork)


def dispatch(callback: Callable[[Any], Any], argument: Any, recorder: _core.Recorder) -> bool:
    """Call `callback(argument)` soon, in a thread of its own; False when too much is waiting.

    What it raises is counted in the recorder as `callback_errors` and logged once.
    """
    return _dispatcher.put(callback, argument, recorder)
