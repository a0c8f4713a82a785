"""Wake the main thread where it began to wait just before a signal came.

Python runs the handler of a signal in the main thread, between two instructions. A signal that
comes between the last of them and a wait in C, or that the kernel gives to another thread, finds no
instruction until the wait is over. That may be never: a pool of `multiprocessing` ends its workers
by SIGTERM while they wait for the next task, and then waits for them. Without a handler the signal
would have ended the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from langmeter._base import periodic

#: Seconds between two looks for signals whose handler has not run.
_SECONDS: Final = 0.5
#: Signal that interrupts a wait. The kernel, and programs that do not handle it, ignore it.
_WAKE: Final = getattr(signal, "SIGURG", None)


class Nudge:
    """Interrupts the main thread until it has run the handler of a signal.

    It learns of signals by the descriptor of `signal.set_wakeup_fd`, unless the program sets one.

    Args:
        numbers: the signals.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = frozenset(numbers)
        self._pipe: tuple[int, int] | None = None
        self._waiting = False
        self._task: periodic.Task | None = None

    def begin(self) -> None:
        """Begin; in the main thread, else without effect."""
        if _WAKE is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_WAKE) not in (signal.SIG_DFL, _nothing):
            return
        with suppress(ValueError, OSError):
            signal.signal(_WAKE, _nothing)
            self._open()
            self._task = periodic.every(_SECONDS, self._look)

    def end(self) -> None:
        """Give everything back."""
        if self._task is not None:
            self._task.cancel()
        if self._pipe is not None and _WAKE is not None:
            with suppress(ValueError):
                if (before := _set_wakeup(-1)) not in (-1, self._pipe[1]):
                    _set_wakeup(before)
                signal.signal(_WAKE, signal.SIG_DFL)
            self._close()

    def forked(self) -> None:
        """Go on in a child, where the signals of the parent are not seen, nor the other way."""
        if self._pipe is None:
            return
        ours = self._pipe[1]
        self._close()
        with suppress(ValueError, OSError):
            if (before := _set_wakeup(-1)) in (-1, ours):
                self._open()
            else:
                _set_wakeup(before)

    def resume(self) -> None:
        """Look in a child, too: one that makes no call has not started the thread that does."""
        periodic.resume()

    def handled(self) -> None:
        """Note that the handler runs."""
        self._read()
        self._waiting = False

    def wrap(self, original: Callable[..., int]) -> Callable[..., int]:
        """`signal.set_wakeup_fd`: our descriptor is none to the program."""

        def set_wakeup_fd(fd: int, **more: Any) -> int:
            if fd == -1 and self._pipe is not None:
                before = original(self._pipe[1], warn_on_full_buffer=False)
            else:
                before = original(fd, **more)
            return -1 if self._pipe is not None and before == self._pipe[1] else before

        return set_wakeup_fd

    def _open(self) -> None:
        pipe = os.pipe()
        if sys.platform != "win32":  # where `begin` has no effect
            for descriptor in pipe:
                os.set_blocking(descriptor, False)
        before = _set_wakeup(pipe[1], warn_on_full_buffer=False)
        if before != -1:  # the program's
            _set_wakeup(before)
        self._pipe = pipe

    def _close(self) -> None:
        pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            with suppress(OSError):
                os.close(descriptor)

    def _read(self) -> bytes:
        if self._pipe is None:
            return b""
        try:
            return os.read(self._pipe[0], 4096)
        except OSError:  # nothing has come
            return b""

    def _look(self) -> None:
        before = self._waiting
        self._waiting = before or not self._numbers.isdisjoint(self._read())
        # One look later: until then it may be on its way.
        if sys.platform != "win32" and before and self._waiting and _WAKE is not None:
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, _WAKE)


def _nothing(number: int, frame: object) -> None:
    """Handle the signal that wakes."""


#: `signal.set_wakeup_fd` as it is without a session.
_set_wakeup: Final = signal.set_wakeup_fd
