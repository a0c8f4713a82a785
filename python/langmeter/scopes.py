"""Where a meter meters: the whole process (`install`), or a block of code (`track`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from langmeter._base.check import refusal, shown
from langmeter._base.log import log
from langmeter._base.same import same
from langmeter.callbacks.base import Callback
from langmeter.config import MeterConfig
from langmeter.config.settings import KEYWORDS
from langmeter.meter import Meter

#: The meters of `track()` around this code, outermost first.
_scopes: ContextVar[tuple[Meter, ...]] = ContextVar("langmeter_scopes", default=())
#: The meter of `install()`, and that of `langmeter run` beside it, which a program's own
#: `install()` shall not see. A dict, for an atomic "set unless set".
_installed: dict[str, Meter] = {}


class _Installed:
    """A stand-in for a context variable, whose value every thread sees.

    A ContextVar shows every thread its default alone, and that is fixed when it is made.
    """

    def __init__(self, key: str = "meter") -> None:
        self._key = key
        self._answer = threading.local()

    def get(self) -> Meter | None:
        # LangChain asks twice, "is there one?" and "which?", and would call None if another thread
        # uninstalled in between: the second answer repeats the first.
        meter = self._answer.__dict__.pop("meter", None)
        if meter is None:
            meter = _installed.get(self._key)
            if meter is not None:
                self._answer.meter = meter
        return cast("Meter | None", meter)


class _Scope:
    """A stand-in for a context variable: the n-th of the scopes around this code.

    One variable names one handler, but a scope in a scope reports to both. LangChain adds a handler
    unless that very handler is there already, so nothing is counted twice.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def get(self) -> Meter | None:
        scopes = _scopes.get()
        return scopes[self._depth] if self._depth < len(scopes) else None


#: What LangChain has been told of: it never forgets a hook and walks them all on every call, so one
#: for `install()`, one for `langmeter run`, and one for each depth that scopes were ever nested to,
#: usually one.
_hooks: dict[str | int, _Installed | _Scope] = {}


def _register(key: str | int, hook: _Installed | _Scope) -> None:
    if _hooks.setdefault(key, hook) is hook:
        # Loads langsmith, 130 ms that LangChain itself puts off to its first call.
        from langchain_core.tracers.context import register_configure_hook

        register_configure_hook(cast("ContextVar[Any]", hook), inheritable=True)


def _check(meter: object, settings: Mapping[str, Any]) -> None:
    # LangChain would take anything for a handler, and fail on it in every call.
    if not isinstance(meter, Callback):
        raise TypeError(
            f"meter must be a langmeter callback, got {meter!r}; "
            "pass a Meter(), or settings by keyword"
        )
    if settings:
        raise TypeError(f"give either a meter or {', '.join(settings)}, not both")


def install(meter: Meter | None = None, **settings: Any) -> Meter:
    """Meter every LangChain call of the process from now on, in every thread; returns the meter.

    A second `install()` returns the meter that is already there, without settings or with the same
    once more: they are compared by value, functions by their code. Raises ValueError when it asks
    for another meter, and ConfigError, a ValueError, when it asks for other settings, which names
    the first that differs.
    """
    if meter is not None:
        _check(meter, settings)
    _register("installed", _Installed())
    there = _installed.get("meter")
    if there is None:
        wanted = Meter(**settings) if meter is None else meter
        there = _installed.setdefault("meter", wanted)
        if there is wanted:
            return there
    if meter is not None and meter is not there:
        raise ValueError("another meter is installed; call langmeter.uninstall() first")
    if settings:
        _check_same(there, settings)
    return there


def _check_same(there: Meter, settings: dict[str, Any]) -> None:
    """Raise ConfigError unless a meter with these settings is as the one that is there."""
    if not isinstance(there, Meter):  # another handler
        raise ValueError(
            f"a {type(there).__name__} is installed, which has other settings than a Meter; "
            "call langmeter.uninstall() first"
        )
    known = there.config.leaves()
    wanted = MeterConfig.chosen(settings.pop("config", None), settings, *KEYWORDS).leaves()
    for name in known | wanted:
        if not same(known.get(name), wanted.get(name)):
            raise refusal(
                name,
                f"{shown(known.get(name))}, as of the meter that is installed",
                wanted.get(name),
                "call langmeter.uninstall() first",
            )


def run_beside(meter: Meter | None) -> None:
    """Meter every LangChain call for `langmeter run`, beside any meter of `install()`.

    None ends it.
    """
    if meter is None:
        _installed.pop("run", None)
        return
    _register("run", _Installed("run"))
    _installed["run"] = meter


def installed() -> Meter | None:
    """Return the meter of `install()`, None without one."""
    return _installed.get("meter")


def uninstall() -> Meter | None:
    """End what `install()` began; returns the meter, None when there was none.

    Runs in flight are still metered to their end.
    """
    return _installed.pop("meter", None)


@contextmanager
def track(meter: Meter | None = None, **settings: Any) -> Iterator[Meter]:
    """Meter what runs inside the `with` block.

    Inside means the same thread or task, and the threads and tasks that LangChain and asyncio
    start from it; a plain ThreadPoolExecutor does not carry the scope along, `install()` does.
    A scope in a scope reports to both meters; a meter that is also in `callbacks` counts once.
    """
    if meter is None:
        meter = Meter(**settings)
    else:
        _check(meter, settings)
    scopes = _scopes.get()
    if meter not in scopes:
        scopes = (*scopes, meter)
    depth = len(scopes) - 1
    _register(depth, _Scope(depth))
    token = _scopes.set(scopes)
    try:
        yield meter
    finally:
        try:
            _scopes.reset(token)
        except ValueError:
            # A generator that was finalised in another context, where this scope never was.
            log.debug("a track() scope ended in another context than it began", exc_info=True)
