"""A second `install()` with the same settings returns the meter that is there."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from langmeter import (
    Budget,
    Meter,
    MeterConfig,
    PriceBook,
    TokenCountingCallback,
    install,
    uninstall,
)
from langmeter._base.same import same
from langmeter.alerts import Rule
from langmeter.config.settings import KEYWORDS
from langmeter.defects import DefectOptions
from langmeter.errors import ConfigError
from langmeter.history import HistoryOptions
from langmeter.streaming import Collect, StreamOptions
from langmeter.testing import ManualClock

HEARD: list[Any] = []
CLOCK = ManualClock()


def _listener(bonus: int = 0) -> Callable[[Any], Any]:
    """Return a new function; each has the same code and closes over what is given."""

    def listener(event: Any, *, often: int = 1) -> None:
        HEARD.extend([event] * (often + bonus))

    return listener


def _async_listener() -> Callable[[Any], Any]:
    async def listener(event: Any) -> None:
        HEARD.append(event)

    return listener


def _object(state: int = 0) -> Any:
    """Return an object of a class that is defined anew, as a cell of a notebook does."""

    class Listener:
        def __init__(self) -> None:
            self.state = state

        def __call__(self, event: Any) -> None:
            HEARD.append(event)

        def method(self, event: Any) -> None:
            HEARD.append(event)

    return Listener()


OWN = {"openai/gpt-4o": {"input": 2.5, "output": "10"}}
#: Setting → how it is given, then given otherwise.
SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "on_token_callback": (_listener, lambda: _listener(1)),
    "on_event": (_async_listener, _listener),
    "on_complete": (lambda: lambda result: HEARD.extend([result]), lambda: lambda result: None),
    "on_error": (lambda: _object().method, lambda: _object(1).method),
    "on_stall": (lambda: functools.partial(_listener(), often=2), lambda: functools.partial(print)),  # type: ignore[call-arg]
    "collect": (lambda: Collect(max_bytes=2_000_000), lambda: True),
    "delivery": (lambda: "".join(["que", "ued"]), lambda: "inline"),
    "stall_after": (lambda: 5.0, lambda: 6.0),
    "prices": (lambda: PriceBook(OWN), lambda: PriceBook({})),
    "budgets": (
        lambda: (Budget(usd=n, scope={"model": "a"}, on_threshold=_listener()) for n in (1, 2)),
        lambda: [Budget(usd=1)],
    ),
    "token_counters": (
        lambda: {"my-": lambda text: len(text) + 0, "b": print},
        lambda: {"my-": lambda text: 2 * len(text), "b": print},
    ),
    "labels": (lambda: ["team", "user"], lambda: ("user", "team")),
    "defects": (
        lambda: DefectOptions(keys={"type": "checker"}),
        lambda: DefectOptions(outcome=lambda output: None),
    ),
    "history": (
        lambda: HistoryOptions(url=os.path.join(tempfile.gettempdir(), "install.db")),
        lambda: "other.db",
    ),
    "directory": (
        lambda: os.path.join(tempfile.gettempdir(), "install"),
        lambda: os.path.join(tempfile.gettempdir(), "other"),
    ),
    "alerts": (lambda: ["cost > 1", Rule("calls > 1", by="model")], lambda: ["cost > 2"]),
    "sinks": (lambda: [_listener(), "logging"], lambda: ["logging"]),
    "alert_link": (lambda: "https://a.example", lambda: "https://b.example"),
    "streams": (lambda: StreamOptions(stall_after=5, on_event=_listener()), lambda: False),
    "max_failures": (lambda: 5, lambda: 6),
    "anomalies": (lambda: False, lambda: True),
    "config": (lambda: MeterConfig(max_runs=99), lambda: MeterConfig(max_runs=98)),
    "max_series": (lambda: 99, lambda: 98),
    "max_runs": (lambda: 99, lambda: 98),
    "max_run_age": (lambda: 60, lambda: 61.0),
    "significant_digits": (lambda: 2, lambda: 3),
    "clock": (lambda: CLOCK, ManualClock),
}


def test_every_setting_is_tried() -> None:
    """A new keyword of `Meter` has a row above."""
    assert SETTINGS.keys() == {*KEYWORDS, "config"}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_setting_once_more_is_the_same_meter(name: str) -> None:
    """Given in words of its own each time; otherwise an error that names it and the remedy."""
    again, otherwise = SETTINGS[name]
    more: Any = {} if name not in ("on_stall", "max_run_age") else {"labels": "team"}
    meter = install(**{name: again()}, **more)
    assert install(**{name: again()}, **more) is meter
    assert install() is meter
    setting = {"config": "max_runs"}.get(name, name)
    with pytest.raises(
        ConfigError, match=rf"{setting}(\.\w+)? must be .*, as of the meter"
    ) as caught:
        install(**{name: otherwise()}, **more)
    assert "langmeter.uninstall() first" in str(caught.value)
    with pytest.raises(TypeError if name == "config" else ConfigError, match=r" must be |not both"):
        install(**({} if name == "labels" else {"labels": "other"}), **({name: otherwise()}))  # type: ignore[arg-type]
    assert uninstall() is meter


def test_a_setting_that_is_left_out_is_another_setting() -> None:
    """Only `install()` without any asks for what is there, whatever it is."""
    meter = install(labels=("team",), collect=True)
    assert install() is meter
    with pytest.raises(ConfigError, match=r"collect must be True, .* got None; call"):
        install(labels=("team",))


def test_a_meter_that_was_made_before_is_compared_too() -> None:
    """By what it was made of; another handler is not comparable with settings."""
    meter = install(Meter(labels="team"))
    assert install(labels=["team"]) is meter
    uninstall()
    install(TokenCountingCallback())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a TokenCountingCallback is installed"):
        install(labels="team")


def test_a_budget_whose_limit_was_changed_is_still_the_one_it_was() -> None:
    """The program that is run again asks for what it asked for before."""
    meter = install(budgets=[Budget(usd=5)])
    meter.cost.budgets[0].set_limit(6)
    assert install(budgets=[Budget(usd=Decimal("5.0"))]) is meter


class _Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def test_values_that_cannot_be_compared_are_different() -> None:
    """Whatever they raise, and however they are nested."""
    circle: list[Any] = []
    circle.append(circle)
    other: list[Any] = []
    other.append(other)
    assert not same(_Hostile(), _Hostile())
    assert not same(circle, other)
    assert not same("1", 1)
    assert not same("ab", ["a", "b"])
    assert same([1, {"a": (2, 3)}], (1, {"a": [2, 3]}))
    assert same(_object, _object)
    assert same(type(_object()), type(_object()))
    assert not same(int, float)


def test_functions_are_compared_by_what_they_do() -> None:
    """Constants, defaults and what is closed over count; the line does not."""
    assert same(lambda x: x + 1, lambda x: x + 1)
    assert not same(lambda x: x + 1, lambda x: x + 2)
    assert not same(lambda x: x + 1, lambda x: x + 1.0)
    assert not same(lambda x, y=1: x, lambda x, y=2: x)
    assert same(lambda x: [y for y in x], lambda x: [y for y in x])  # noqa: C416
    assert not same(_listener(1), _listener(2))
    assert same(HEARD.append, HEARD.append)
    assert not same(HEARD.append, [].append)
    assert not same(print, len)

    def early() -> Callable[[], Any]:
        def inner() -> Any:
            return late  # type: ignore[has-type]

        found = inner
        if found is None:
            late = 1
        return found

    assert same(early(), early())
