"""The session of `langmeter run`: its meter, its workers, and the report at the end.

The report is written however the process ends: by its last line or an exception, by `os._exit`, by
a signal that ends a process by default (SIGTERM, SIGHUP, SIGALRM…). On Linux a worker (a process
that the program forks, or starts by `multiprocessing`) is metered too: all of them count into a
temporary directory, which the first process reads in the end. A worker that is killed loses
nothing.
"""

from __future__ import annotations

import _thread
import atexit
import os
import pickle
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from langmeter._base import output
from langmeter._base.forks import at_fork
from langmeter._base.on_import import when_loaded
from langmeter.cli.nudge import Nudge
from langmeter.errors import SourceError

if TYPE_CHECKING:
    from langmeter.meter import Meter
    from langmeter.snapshot import Snapshot

#: Signals that end a process without a word: those that are sent to ask it to, then alarms and the
#: limit of processor time. Not those of a fault (SIGSEGV, SIGABRT…), after which no code is to run.
_SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in (
        *("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"),
        *("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXCPU"),
    )
    if hasattr(signal, name)
)
#: Seconds that a signal waits for the report. Its thread may need a lock that the interrupted code
#: holds.
_PATIENCE: Final = 10.0
#: Module that LangChain loads at its first call, and keeps its hooks in: a worker that makes no
#: call is spared loading LangChain, which takes a second.
_HOOKS: Final = "langchain_core.tracers.context"
#: What a worker runs before it unpickles anything of the program. As text, so that a worker that
#: cannot import langmeter goes on without it.
_JOIN: Final = """
try:
    import pickle
    from langmeter.cli.session import join
    join(folder, pickle.loads(settings))
except Exception:
    pass
"""


class MeterSettings(Protocol):
    """Settings that a meter is made of, in every process of a session; picklable."""

    def meter(self, directory: str | None) -> Meter:
        """Return a new meter, which counts into a file of a directory; in memory without one."""


class Session:
    """A run of a program, in one of its processes.

    `json` is where the first process writes the snapshot; `folder`, of a worker's session, is the
    directory that all count into.
    """

    def __init__(self, *, json: Path | None = None, folder: str | None = None) -> None:
        self._json = json
        self._folder = folder
        #: The process that reports; None in a worker.
        self._reporter = os.getpid() if folder is None else None
        self._meter: Meter | None = None
        self._errors = sys.stderr
        self._errors_at = _identity(2)
        self._undo: list[Callable[[], object]] = []
        self._busy = False
        self._finished = False
        self._signalled = False
        self._pending: int | None = None
        self._nudge = Nudge(_SIGNALS)

    def begin(self, settings: MeterSettings) -> None:
        """Begin in the first process. Raises what making the meter raises."""
        # Registered before multiprocessing's, and therefore run after it has waited for workers.
        atexit.register(self._at_exit)
        self._undo.append(lambda: atexit.unregister(self._at_exit))
        if sys.platform == "linux":
            with suppress(OSError):  # without a folder, without the figures of workers
                self._folder = tempfile.mkdtemp(prefix="langmeter-run-")
        self._start_metering(settings.meter(self._folder))
        self._take_hold(settings)

    def join(self, settings: MeterSettings) -> None:
        """Begin in a worker that was started afresh; its metering begins with its first call."""
        atexit.register(self._at_exit)
        self._take_hold(settings)

        def start() -> None:
            try:
                self._start_metering(settings.meter(self._folder))
            except Exception as error:
                output.complain(f"langmeter run: a worker is not metered: {error!r}")

        when_loaded(_HOOKS, start)

    def end(self) -> None:
        """Give back what was replaced; the session reports no more."""
        self._finished = True
        if self._meter is not None:
            from langmeter.scopes import run_beside

            run_beside(None)
        while self._undo:
            self._undo.pop()()
        if self._folder is not None and self._is_reporter:
            shutil.rmtree(self._folder, ignore_errors=True)
        _sessions.clear()

    @property
    def _is_reporter(self) -> bool:
        return os.getpid() == self._reporter

    def _start_metering(self, meter: Meter) -> None:
        from langmeter.scopes import run_beside

        run_beside(meter)
        self._meter = meter

    def _take_hold(self, settings: MeterSettings) -> None:
        """Replace what ends a process, and what starts workers."""
        _sessions[:] = [self]
        self._replace(os, "_exit", _exiting)
        self._replace(signal, "signal", _setting)
        self._replace(signal, "getsignal", _getting)
        for number in _SIGNALS:
            with suppress(ValueError, OSError):  # not in the main thread
                # By the replaced function: the default action is where the report goes.
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, signal.SIG_DFL)
                    self._undo.insert(0, _restoring(number))
        self._replace(signal, "set_wakeup_fd", self._nudge.wrap)
        self._nudge.begin()
        self._undo.append(self._nudge.end)
        if self._folder is None:
            return
        with suppress(ImportError):
            import multiprocessing.spawn as spawn
            from multiprocessing.util import register_after_fork

            register_after_fork(self._nudge, Nudge.resume)
            handed = (self._folder, settings)
            self._replace(spawn, "get_preparation_data", lambda of: _handing(of, *handed))

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, wrap(original))
        self._undo.append(lambda: setattr(owner, name, original))

    def forked(self) -> None:
        """Go on in a child: it counts from zero, into a file of its own, and never reports."""
        self._busy, self._pending = False, None
        self._nudge.forked()

    def _at_exit(self) -> None:
        if self._is_reporter:
            # Does nothing when it has run, as it has unless it was loaded before the session.
            waits = getattr(sys.modules.get("multiprocessing.util"), "_exit_function", None)
            if waits is not None:
                waits()
        self.last_words()
        if self._pending is not None:
            _die(self._pending)

    def last_words(self) -> None:
        """Write the report once, or in a worker its history; no failure reaches the program."""
        if self._busy or self._finished:
            return
        self._busy = True
        try:
            self._leave_budgets()
            if not self._is_reporter:
                if self._meter is not None:
                    self._meter.snapshot()  # prices calls whose price came late
                self._write_history()
                return
            snapshot, workers = self._everything()
            if snapshot is not None:
                self._report(snapshot, workers)
            self._write_history()
            self._finished = True
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        except Exception as error:
            output.complain(f"langmeter run: the report failed: {error!r}")
        finally:
            self._busy = False

    def _leave_budgets(self) -> None:
        """Report what was spent of shared budgets; likewise without `atexit`."""
        renewals = sys.modules.get("langmeter.budgets.shared.renewals")
        if renewals is not None:
            renewals.shared.leave()

    def _write_history(self) -> None:
        # A signal and `os._exit` end the process without `atexit`.
        if self._meter is not None:
            self._meter.flush(_PATIENCE / 2)

    def _everything(self) -> tuple[Snapshot | None, int]:
        """Return the figures of this process and its workers, and how many of these had any."""
        if self._meter is None:
            return None, 0
        snapshot, workers = self._meter.snapshot(), 0
        if self._folder is not None:
            from langmeter.directory.reading import Directory

            try:
                directory = Directory(self._folder, warn=_lost)
                others, workers = directory.others(self._meter.file)
                snapshot += others
            except (OSError, SourceError) as error:
                _lost(str(error))
        return snapshot, workers

    def _report(self, snapshot: Snapshot, workers: int) -> None:
        from langmeter._base.text import plural
        from langmeter.report.terminal import report

        # The file first: standard error may be a pipe without a reader.
        failure = None
        if self._json is not None:
            failure = output.write_file(self._json, snapshot.to_json(indent=1) + "\n")
        text = f"\n{report(snapshot, output.terminal_width(self._errors))}"
        if workers:
            text += f"\n\nthis process and {plural(workers, 'worker')}"
        if failure is not None:
            text += f"\nlangmeter run: {failure}"
        self._print(text + "\n")

    def _print(self, text: str) -> None:
        """Print to standard error as it was at the start, though the program closed its stream."""
        if not self._signalled:
            with suppress(Exception):  # whatever the program has put there
                sys.stdout.flush()
        try:
            self._errors.write(text)
            self._errors.flush()
            return
        except Exception:
            pass
        # A closed stream leaves the descriptor open, unless that was closed and is another file's.
        if self._errors_at is not None and _identity(2) == self._errors_at:
            with suppress(OSError):
                os.write(2, text.encode("utf-8", "backslashreplace"))

    def signalled(self, number: int) -> bool:
        """Speak the last words in a thread of their own: this one may be anywhere.

        Where no thread can be started they are spoken in this one: none can once Python 3.12 runs
        the functions of `atexit`. Should these hold a lock that the report needs, a second signal
        ends the process.

        Returns whether the process may end now; False while it is at its last words already, after
        which it ends by the signal.
        """
        self._nudge.handled()
        if self._busy and not self._signalled:
            self._pending = number
            return False
        if self._signalled:  # a second signal asks for the end at once
            return True
        self._signalled = True
        done = _thread.allocate_lock()
        done.acquire()

        def speak() -> None:
            try:
                self.last_words()
            finally:
                done.release()

        try:
            _thread.start_new_thread(speak, ())
        except RuntimeError:
            speak()
        else:
            done.acquire(timeout=_PATIENCE)
        return True


#: The session of this process, if there is one.
_sessions: list[Session] = []
#: `signal.signal` as it is without a session.
_set_handler: Final = signal.signal


def join(folder: str, settings: MeterSettings) -> None:
    """Make this process, which `multiprocessing` has started, a worker of a session."""
    if not _sessions:
        Session(folder=folder).join(settings)


def _forked() -> None:
    for session in _sessions:
        session.forked()


at_fork(after_in_child=_forked)


def _exiting(original: Callable[[int], Any]) -> Callable[[int], Any]:
    """`os._exit`, by which workers of `multiprocessing` and forked children end."""

    def _exit(status: int) -> Any:
        for session in _sessions:
            session.last_words()
        return original(status)

    return _exit


def _setting(original: Callable[..., Any]) -> Callable[..., Any]:
    """`signal.signal`: where the program wants the default action, the report comes before it."""

    def set_handler(signalnum: int, handler: Any) -> Any:
        ours = signalnum in _SIGNALS and handler == signal.SIG_DFL
        before = original(signalnum, _on_signal if ours else handler)
        return signal.SIG_DFL if before is _on_signal else before

    return set_handler


def _getting(original: Callable[[int], Any]) -> Callable[[int], Any]:
    """`signal.getsignal`: our handler is the default action to the program."""

    def get_handler(signalnum: int) -> Any:
        handler = original(signalnum)
        return signal.SIG_DFL if handler is _on_signal else handler

    return get_handler


def _restoring(number: int) -> Callable[[], None]:
    def restore() -> None:
        with suppress(ValueError):
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)

    return restore


def _on_signal(number: int, frame: object) -> None:
    for session in _sessions:
        if not session.signalled(number):
            return
    _die(number)


def _lost(why: str) -> None:
    output.complain(f"langmeter run: figures of a worker are lost: {why}")


def _die(number: int) -> None:
    """End by the signal, as without a handler."""
    _set_handler(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    if os.getpid() == 1:  # the first process of a container: the kernel ignores the default action
        os._exit(128 + number)


def _handing(
    original: Callable[[str], dict[str, Any]], folder: str, settings: MeterSettings
) -> Callable[[str], dict[str, Any]]:
    """Return what `multiprocessing` hands to a worker that it starts afresh, and ours with it."""

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**original(name), "langmeter": _Join(folder, settings)}

    return get_preparation_data


class _Join:
    """Unpickled in a worker, it makes the worker join the session."""

    def __init__(self, folder: str, settings: MeterSettings) -> None:
        self._handed = {"folder": folder, "settings": pickle.dumps(settings)}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, (_JOIN, self._handed)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return which file a descriptor is of; None where it is closed."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
