"""Handlers that are not langmeter's, in a composite: each is isolated from the others.

What a handler raises is counted and logged, and reaches neither another handler nor the chain,
unless its own `raise_error` says so. One that fails ten times in a row is switched off, and tried
again with the first run that begins after a minute.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import get_buffer_string

from langmeter._base.failures import error_label
from langmeter._base.log import log
from langmeter.callbacks.awaiting import RunQueues, leaves_task

#: Failures in a row after which a handler is switched off.
MAX_FAILURES: Final = 10
#: Seconds that it is switched off the first time; twice as long each time after, up to an hour.
_PAUSE: Final = 60.0
_LONGEST_PAUSE: Final = 3600.0
#: Runs in flight that a handler which was added or switched on later is in; the oldest go first.
_MAX_RUNS: Final = 65_536


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """The state of a handler of a composite.

    Attributes:
        name: class of the handler.
        errors: exceptions that its hooks have raised.
        last_error: class of the last of them; "" for none.
        off: whether it is switched off at this moment, after ten failures in a row.
        skipped: events that it did not receive while it was switched off.
        waiting: events that an async handler has not finished.
        dropped: events that found no room in its queues.
    """

    name: str
    errors: int = 0
    last_error: str = ""
    off: bool = False
    skipped: int = 0
    waiting: int = 0
    dropped: int = 0


class Foreign:
    """One handler that is not langmeter's.

    Args:
        handler: what LangChain would call.
        whole_runs: whether it is to receive events only of runs whose start it has received,
            because it was added while others may be in flight.
    """

    def __init__(self, handler: BaseCallbackHandler, *, whole_runs: bool = False) -> None:
        self.handler = handler
        self.name = type(handler).__name__
        self.is_removed = False
        self._runs: OrderedDict[object, None] | None = OrderedDict() if whole_runs else None
        self._queues: RunQueues | None = None
        self._errors = self._skipped = 0
        # Failures in a row of each hook: an inherited hook that does nothing is not a success.
        self._in_a_row: dict[str, int] = {}
        self._last_error = ""
        self._off_until: float | None = None
        self._pause = _PAUSE

    @property
    def raises(self) -> bool:
        """Whether what it raises has to reach the chain."""
        return bool(getattr(self.handler, "raise_error", False))

    @property
    def queues(self) -> RunQueues | None:
        """Events of its async hooks that wait; None where there was none."""
        return self._queues

    def status(self) -> HandlerStatus:
        """Return how it is doing."""
        off = self._off_until is not None and monotonic() < self._off_until
        queues = self._queues
        return HandlerStatus(
            self.name,
            self._errors,
            self._last_error,
            off,
            self._skipped,
            0 if queues is None else queues.waiting,
            0 if queues is None else queues.dropped,
        )

    def handle(self, hook: str, switch: str | None, args: Any, kwargs: Any) -> None:
        """Hand it an event; raises only what its `raise_error` lets through."""
        if self._is_left_out(hook, kwargs):
            return
        try:
            if switch is not None and getattr(self.handler, switch):
                return
            result = getattr(self.handler, hook)(*args, **kwargs)
        except Exception as error:
            # As LangChain has it: a handler without the hook of chat models gets that of texts.
            if isinstance(error, NotImplementedError) and hook == "on_chat_model_start":
                self.handle("on_llm_start", "ignore_llm", _as_texts(args), kwargs)
                return
            self._failed(hook, error)
            if self.raises:
                raise
        else:
            if inspect.iscoroutine(result):
                self._put(hook, result, args, kwargs)
            else:
                self._worked(hook)

    def _worked(self, hook: str) -> None:
        if self._in_a_row.pop(hook, None) is None or self._in_a_row:
            return
        if self._off_until is not None:
            self._off_until, self._pause = None, _PAUSE
            log.warning("%s works again and is switched on", self.name)

    def _is_left_out(self, hook: str, kwargs: Any) -> bool:
        if self.is_removed:
            return True
        if self._off_until is not None and monotonic() < self._off_until:
            self._skipped += 1
            return True
        if self._runs is not None:
            run = kwargs.get("run_id")
            if hook.endswith("_start"):
                self._runs[run] = None
                if len(self._runs) > _MAX_RUNS:
                    self._runs.popitem(last=False)
            elif run not in self._runs:
                return True
            elif hook.endswith(("_end", "_error")):
                self._runs.pop(run, None)
        return False

    def _put(self, hook: str, event: Coroutine[Any, Any, object], args: Any, kwargs: Any) -> None:
        if self._queues is None:
            self._queues = RunQueues()

        async def awaited() -> None:
            if self.is_removed:
                event.close()
                return
            called: str = hook
            try:
                try:
                    await event
                except NotImplementedError:
                    if hook != "on_chat_model_start":
                        raise
                    if self.handler.ignore_llm:
                        return
                    called = "on_llm_start"
                    result: Any = self.handler.on_llm_start(*_as_texts(args), **kwargs)
                    if inspect.isawaitable(result):
                        await result
            except BaseException as error:
                if leaves_task(error):
                    raise
                self._failed(called, error)
            else:
                self._worked(called)

        self._queues.put(kwargs.get("run_id"), awaited, event.close)

    def _failed(self, hook: str, error: BaseException) -> None:
        self._errors += 1
        self._in_a_row[hook] = self._in_a_row.get(hook, 0) + 1
        in_a_row = sum(self._in_a_row.values())
        self._last_error = error_label(error)
        if in_a_row == 1:
            log.warning(
                "%s.%s failed; further failures are only counted",
                self.name,
                hook,
                exc_info=error,
            )
        # One that raises may be a guard. What an async one still had to await is not a new try.
        if self.raises or self.status().off:
            return
        if self._off_until is not None:  # tried again: one more failure is enough
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        elif in_a_row < MAX_FAILURES:
            return
        self._off_until = monotonic() + self._pause
        # It misses the starts of runs from now on, and is to receive none of their ends later.
        self._runs = OrderedDict()
        log.warning(
            "%s failed %d times in a row, last with %s; it is switched off for %g s",
            self.name,
            in_a_row,
            self._last_error,
            self._pause,
        )


def _as_texts(args: Any) -> tuple[Any, ...]:
    """Return the arguments of `on_llm_start` for those of `on_chat_model_start`."""
    serialized, messages, *rest = args
    return (serialized, [get_buffer_string(each) for each in messages], *rest)
