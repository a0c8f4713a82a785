"""The meter for a call, a scope, and the whole process."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

import langmeter
from langmeter import Meter, MeterConfig, TokenCountingCallback, install, track, uninstall
from langmeter.prices import PriceBook
from langmeter.scopes import _Installed
from tests.support.models import chat_model


def calls(meter: Meter) -> int:
    """How many model calls it has counted."""
    return meter.snapshot().totals.calls


def test_a_meter_has_everything_on(prices: PriceBook) -> None:
    """Tokens, cost, time, streams and fixes, from one snapshot."""
    heard: list[str] = []
    meter = Meter(prices=prices, on_token_callback=heard.append, max_series=99)
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    chat_model().invoke("hi", config={"callbacks": [meter]})
    meter.defects.record_fix(True)
    # The fake model leaves the usage out of its stream, which is counted offline.
    tokens = meter.snapshot().totals.tokens
    assert tokens.total - tokens.estimated == 140 < meter.tokens.total_tokens
    assert meter.cost.total_cost > 0  # type: ignore[operator]
    assert meter.performance.percentile(50) > 0
    assert meter.streaming.time_to_first_token.count == 1
    assert meter.defects.success_rate == 1.0
    assert "".join(heard) == "alpha beta gamma"
    assert meter.config.max_series == 99
    assert meter.handlers[0] is meter.tokens


def test_installed_every_call_of_every_thread_is_metered() -> None:
    """Also in a plain ThreadPoolExecutor, which carries no context along."""
    meter = install()
    chat_model().invoke("hi")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: chat_model().invoke("hi"), range(8)))
    contextvars.Context().run(chat_model().invoke, "hi")
    assert uninstall() is meter
    chat_model().invoke("hi")
    assert calls(meter) == 10
    assert uninstall() is None


def test_install_is_idempotent() -> None:
    """The meter that is there is returned; another one is refused."""
    meter = install(max_runs=99)
    assert install() is meter
    assert install(meter) is meter
    assert install(max_runs=99) is meter
    with pytest.raises(ValueError, match="uninstall"):
        install(Meter())
    with pytest.raises(ValueError, match="uninstall"):
        install(max_runs=98)
    with pytest.raises(TypeError, match="either a meter or max_runs"):
        install(meter, max_runs=99)
    chat_model().invoke("hi")
    assert calls(meter) == 1


@pytest.mark.parametrize("wrong", [3, "x", Meter])
def test_what_is_no_meter_is_refused(wrong: Any) -> None:
    """Before LangChain gets it; nothing is installed, and calls go on."""
    with pytest.raises(TypeError, match=r"must be a langmeter callback, got .*; pass a Meter\(\)"):
        install(wrong)
    with pytest.raises(TypeError, match=r"must be a langmeter callback"), track(wrong):
        pass
    assert uninstall() is None
    chat_model().invoke("hi")


def test_any_handler_of_langmeter_has_a_scope() -> None:
    """A scope of tokens alone."""
    tokens = TokenCountingCallback()
    with track(tokens):  # type: ignore[arg-type]
        chat_model().invoke("hi")
    assert tokens.total_tokens == 140


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"config": MeterConfig(), "max_runs": 3}, "either config or max_runs, not both"),
        ({"config": 3}, r"config must be a langmeter\.MeterConfig, got 3"),
    ],
)
def test_what_a_meter_cannot_be_made_of_is_a_type_error(wrong: Any, message: str) -> None:
    """Named with what helps, instead of ignored."""
    with pytest.raises(TypeError, match=message):
        Meter(**wrong)


def test_installing_from_many_threads_gives_one_meter() -> None:
    """The first one wins, everybody gets it."""
    barrier = threading.Barrier(8)

    def work(_: int) -> Meter:
        barrier.wait()
        return install()

    with ThreadPoolExecutor(8) as pool:
        meters = set(pool.map(work, range(8)))
    assert len(meters) == 1


def test_a_scope_meters_what_runs_inside_it() -> None:
    """Not what runs before and after, and it ends after an exception too."""
    chat_model().invoke("hi")
    meter = Meter()

    def work() -> None:
        with track(meter):
            chat_model().invoke("hi")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    chat_model().invoke("hi")
    assert calls(meter) == 1
    with track(meter) as same:
        chat_model().invoke("hi")
    assert same is meter
    assert calls(meter) == 2
    with pytest.raises(TypeError, match="either a meter or max_runs"), track(meter, max_runs=9):
        pass


def test_a_scope_in_a_scope_reports_to_both() -> None:
    """Also inside install(); a meter is told once, however often it is named."""
    whole = install()
    with track() as outer:
        chat_model().invoke("hi")
        with track(max_series=9) as inner, track(outer):
            chat_model().invoke("hi", config={"callbacks": [inner, whole]})

            def nested(x: str) -> Any:
                with track() as innermost:
                    answer = chat_model().invoke(x)
                assert calls(innermost) == 1
                return answer

            RunnableLambda(nested).invoke("hi")
    assert (calls(inner), calls(outer), calls(whole)) == (2, 3, 3)
    assert not whole.snapshot().dropped


def test_langchain_is_told_of_few_hooks(hooks: list[Any]) -> None:
    """A thousand scopes and installs add none to the list that LangChain walks on every call."""
    with track():
        install()
    before = len(hooks)
    for _ in range(500):
        with track():
            install()
            uninstall()
    assert len(hooks) == before


async def test_tasks_have_scopes_of_their_own() -> None:
    """Two tasks at a time, each metered by its own meter, with what they start."""

    async def work(n: int) -> int:
        with track() as meter:
            await asyncio.gather(*(chat_model().ainvoke("hi") for _ in range(n)))
            await asyncio.to_thread(chat_model().invoke, "hi")
            chat_model().batch(["a", "b"])
        return calls(meter)

    assert await asyncio.gather(work(2), work(5)) == [5, 8]


def test_a_scope_that_ends_elsewhere_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A generator closed in another context: there is nothing to restore there."""

    def scope() -> Any:
        with track() as meter:
            yield meter

    generator = scope()
    contextvars.copy_context().run(next, generator)
    with caplog.at_level("DEBUG", "langmeter"):
        generator.close()
    assert "another context" in caplog.text


def test_uninstalling_between_langchains_two_questions_is_safe() -> None:
    """It asks "is there one?" and "which?"; the second answer repeats the first."""
    install()
    hook = _Installed()
    first = hook.get()
    uninstall()
    assert hook.get() is first is not None
    assert hook.get() is None


def test_runs_in_flight_are_metered_to_their_end() -> None:
    """Uninstalling in the middle of a stream loses nothing of it."""
    meter = install()
    stream = chat_model().stream("hi")
    next(stream)
    uninstall()
    list(stream)
    assert meter.snapshot().totals.outcomes["ok"] == 1


def test_the_public_names_are_those_of_the_modules() -> None:
    """`langmeter.install` and its like are lazy, and the same objects."""
    assert langmeter.install is install
    assert langmeter.Meter is Meter
