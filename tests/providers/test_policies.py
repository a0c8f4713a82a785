"""The order in which providers are asked, by each policy, on measurements of a real meter."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langmeter import Budget, BudgetExceeded, Meter, PriceBook, ProviderManager
from langmeter.testing import ManualClock
from tests.support.chats import ScriptedChat, refusal

PRICES: dict[str, Any] = {
    "dear/dear-1": {"input": 10, "output": 30, "cache_read": 1},
    "cheap/cheap-1": {"input": 1, "output": 3, "cache_read": 0.5},
    "middle/middle-1": {"input": 5, "output": 10},
}


def several(*names: str, meter: Any = None, **settings: Any) -> Any:
    """A manager of models with these names, and the models by name."""
    models: dict[str, Any] = {n: ScriptedChat(text=n, model=f"{n}-1") for n in names}
    return ProviderManager(models, meter=meter, **settings), models


def asked(manager: Any, times: int = 1, prompt: Any = "hello", config: Any = None) -> list[str]:
    """Which providers answer."""
    return [manager.invoke(prompt, config).content for _ in range(times)]


def test_the_cheapest_is_asked_first() -> None:
    """By the price of this prompt and of the usual output."""
    meter = Meter(prices=PriceBook(PRICES))
    manager, _ = several("dear", "middle", "cheap", meter=meter, policy="cheapest")
    assert asked(manager, 3) == ["cheap"] * 3
    preview = manager.preview("x" * 4000)
    assert preview.order == ("cheap", "middle", "dear")
    # 1,000 tokens in; 10 out on average where it was measured, 500 where it was not.
    manager.refresh()
    costs = manager.preview("x" * 4000).costs
    assert costs["cheap"] == pytest.approx((1000 * 1 + 10 * 3) / 1e6)
    assert costs["dear"] == pytest.approx((1000 * 10 + 500 * 30) / 1e6)


def test_the_usual_output_decides_what_is_cheapest() -> None:
    """A model that writes ten times as much is dearer at half the price."""
    prices = {"brief/brief-1": {"input": 1, "output": 10}, "long/long-1": {"input": 1, "output": 5}}
    meter = Meter(prices=PriceBook(prices))
    manager, models = several("long", "brief", meter=meter, policy="cheapest")
    models["long"].usage = (100, 1000, 0)
    models["brief"].usage = (100, 100, 0)
    for model in models.values():
        model.invoke("hello")
    manager.refresh()
    assert asked(manager, 2) == ["brief", "brief"]


def test_a_provider_without_a_price_is_the_last() -> None:
    """It is not taken for free."""
    meter = Meter(prices=PriceBook(PRICES))
    manager, _ = several("unknown", "dear", meter=meter, policy="cheapest")
    assert manager.preview("hello").order == ("dear", "unknown")


def _timed(*seconds: float, clock: ManualClock, meter: Meter) -> Any:
    manager, models = several("a", "b", "c", meter=meter, policy="fastest")
    for model, taken in zip(models.values(), seconds, strict=True):
        for _ in range(3):
            with _slowed(model, clock, taken):
                model.invoke("hello")
    manager.refresh()
    return manager


class _slowed:  # noqa: N801 (a context manager)
    """Let the meter's clock pass while a model answers."""

    def __init__(self, model: Any, clock: ManualClock, seconds: float) -> None:
        self._model, self._clock, self._seconds = model, clock, seconds

    def __enter__(self) -> None:
        generate = type(self._model)._generate

        def slow(*args: Any, **kwargs: Any) -> Any:
            self._clock.advance(self._seconds)
            return generate(self._model, *args, **kwargs)

        vars(self._model)["_generate"] = slow

    def __exit__(self, *_: object) -> None:
        del vars(self._model)["_generate"]


def test_the_fastest_is_asked_first_and_equals_take_turns() -> None:
    """By the p95 of the last minutes; within 10 % of the best."""
    clock = ManualClock()
    manager = _timed(1.0, 2.0, 3.0, clock=clock, meter=Meter(clock=clock))
    assert asked(manager, 2) == ["a", "a"]
    clock = ManualClock()
    manager = _timed(1.05, 1.0, 3.0, clock=clock, meter=Meter(clock=clock))
    assert Counter(asked(manager, 10)) == {"a": 5, "b": 5}
    assert manager.decisions["a", "rotated"] == 5


def test_what_was_not_measured_is_tried() -> None:
    """In turn with the best; three calls make a measurement."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    manager, models = several("a", "b", meter=meter, policy="fastest")
    for _ in range(3):
        models["a"].invoke("hello")
    manager.refresh()
    assert Counter(asked(manager, 4)) == {"a": 2, "b": 2}


def test_streams_go_to_the_first_token() -> None:
    """The provider that begins first is the fastest for a stream, however long it goes on."""
    from langmeter.runnables.providers.figures import Figures
    from langmeter.runnables.providers.request import read_request

    manager, _ = several("a", "b", meter=Meter(), policy="fastest")
    manager._router.live.of = {
        "a": Figures(latency=1.0, first_token=0.9),
        "b": Figures(latency=5.0, first_token=0.1),
    }
    order = manager._router.policy.order
    known = manager._router.known
    assert order(("a", "b"), read_request("x"), known).names == ("a", "b")
    assert order(("a", "b"), read_request("x", streamed=True), known).names == ("b", "a")


def test_the_healthiest_has_failed_least() -> None:
    """By its own calls of the last minute; it needs no meter."""
    manager, models = several("a", "b", policy="healthiest")
    models["a"].script[:] = [ConnectionResetError()] * 2
    assert asked(manager, 5) == ["b"] * 5
    assert len(models["a"].calls) == 1


def test_the_best_fix_rate_is_that_of_the_type_of_defect() -> None:
    """A provider that fixes leaks is asked for leaks, by block and by metadata."""
    meter = Meter()
    manager, models = several("leaks", "nulls", meter=meter, policy="best_fix_rate")
    for kind in ("LEAK", "NULL"):
        for name, model in models.items():
            for number in range(6):
                attempt = meter.defects.attempt(f"{kind}-{name}-{number}", type=kind)
                with attempt:
                    model.invoke("fix")
                fixed = name[0].upper() == kind[0]
                (attempt.succeeded if fixed else attempt.failed)(source="tests")
    manager.refresh()
    for kind, name in (("LEAK", "leaks"), ("NULL", "nulls")):
        with meter.defects.attempt(f"new {kind}", type=kind):
            assert asked(manager, 3) == [name] * 3
        metadata = {"defect_id": f"next {kind}", "type": kind}
        assert asked(manager, 3, config={"metadata": metadata}) == [name] * 3
    assert set(asked(manager, 4)) == {"leaks", "nulls"}  # of no defect nothing is known


def test_weights_are_shares() -> None:
    """Of many calls each provider has its share, and one of weight 0 is only a fallback."""
    random.seed(7)
    weights = {"a": 3, "b": 1, "c": 0}
    manager, models = several("a", "b", "c", policy=weights)
    shares = Counter(asked(manager, 1000))
    # Four standard deviations of a binomial around 750.
    assert abs(shares["a"] - 750) < 4 * (1000 * 0.75 * 0.25) ** 0.5
    assert shares["a"] + shares["b"] == 1000
    models["a"].script[:] = models["b"].script[:] = [refusal(401)]
    asked(manager, 3)
    assert asked(manager) == ["c"]


def test_a_function_of_the_snapshot_decides() -> None:
    """It gets the live snapshot and the names that can take the call."""
    seen: list[Any] = []

    def fewest_calls(snapshot: Any, names: tuple[str, ...]) -> Any:
        seen.append((snapshot, names))
        calls = Counter({key[0]: row.calls for key, row in snapshot.models.items()})
        return min(names, key=lambda name: calls[name])

    manager, _ = several("a", "b", "c", meter=Meter(), policy=fewest_calls)
    answers = []
    for _ in range(6):
        answers += asked(manager)
        manager.refresh()
    assert Counter(answers) == {"a": 2, "b": 2, "c": 2}
    assert seen[-1][0].totals.calls == 5
    assert seen[-1][1] == ("a", "b", "c")


@pytest.mark.parametrize("wrong", [lambda s, n: 1 / 0, lambda s, n: "x", lambda s, n: []])
def test_a_function_that_fails_leaves_the_given_order(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and the calls go on."""
    manager, _ = several("a", "b", meter=Meter(), policy=wrong)
    assert asked(manager, 3) == ["a"] * 3
    assert caplog.text.count("the policy of a ProviderManager failed") == 1


def _conversation(cached: int, **prices: Any) -> Any:
    meter = Meter(prices=PriceBook({**PRICES, **prices}))
    manager, models = several("dear", "cheap", meter=meter, policy="priority")
    for model in models.values():
        model.usage = (1000, 10, cached)
        model.invoke("hello")
    manager.refresh()
    models["dear"].script[:] = [ConnectionResetError()]
    return manager


THREAD: Any = {"configurable": {"thread_id": "t-1"}}


def test_a_conversation_stays_while_the_cache_makes_a_switch_dearer() -> None:
    """After one failure the conversation stays with its new provider; others go to the first."""
    long = "x" * 40_000
    manager = _conversation(900)
    assert asked(manager, 3, long, THREAD) == ["cheap"] * 3
    assert manager.decisions["cheap", "sticky"] == 2
    assert asked(manager, 1, long, {"metadata": {"session_id": "t-2"}}) == ["dear"]
    assert asked(manager, 1, long) == ["dear"]


def test_a_conversation_is_found_in_the_context_of_a_graph() -> None:
    """A node calls its model without a config; the thread is that of the graph."""
    manager, long = _conversation(900), "x" * 40_000
    node = RunnableLambda(lambda _: manager.invoke(long).content)
    assert [node.invoke(1, THREAD) for _ in range(2)] == ["cheap", "cheap"]
    assert manager.decisions["cheap", "sticky"] == 1


def test_a_conversation_does_not_stay_without_a_measured_cache() -> None:
    """Nor where the other one is cheaper even so."""
    long = "x" * 40_000
    assert asked(_conversation(0), 3, long, THREAD) == ["cheap", "dear", "dear"]
    free = {"dear/dear-1": {"input": 0.01, "output": 0.01}}
    assert asked(_conversation(900, **free), 3, long, THREAD) == ["cheap", "dear", "dear"]


def test_a_budget_with_nothing_left_takes_its_provider_out() -> None:
    """The others go on; when it is the budget of all of them, the refusal reaches the caller."""
    own = Budget(calls=2, action="block", scope={"provider": "a"})
    manager, models = several("a", "b", meter=Meter(budgets=[own]))
    assert asked(manager, 4) == ["a", "a", "b", "b"]
    assert manager.explain().last[-1].obstacles == {"a": "budget"}
    everything = Budget(calls=1, action="block")
    manager, models = several("a", "b", meter=Meter(budgets=[everything]))
    assert asked(manager) == ["a"]
    with pytest.raises(BudgetExceeded, match="1 spent"):
        asked(manager)
    assert not models["b"].calls


@pytest.mark.parametrize("on_budget", ["stop", "cheaper"])
async def test_a_refusal_of_a_budget_stops_or_goes_to_a_cheaper_provider(on_budget: Any) -> None:
    """The dear provider's worst case does not fit; the cheapest one's does."""
    budget = Budget(usd="0.002", action="block")
    meter = Meter(prices=PriceBook(PRICES), budgets=[budget])
    manager, models = several("dear", "middle", "cheap", meter=meter, on_budget=on_budget)
    for model in models.values():
        vars(model)["metadata"] = {**model.metadata, "ls_max_tokens": 300}
    if on_budget == "stop":
        with pytest.raises(BudgetExceeded):
            await manager.ainvoke("hello")
        assert not any(model.calls for model in models.values())
        return
    assert (await manager.ainvoke("hello")).content == "cheap"
    assert manager.decisions == {("dear", "policy"): 1, ("cheap", "cheaper"): 1}
    assert manager.explain().states == dict.fromkeys(models, "ready")
    assert budget.spent > 0


def test_when_nothing_cheaper_fits_the_refusal_is_raised() -> None:
    """It is the budget's own exception, of the last provider that was asked."""
    budget = Budget(usd="0.000001", action="block")
    meter = Meter(prices=PriceBook(PRICES), budgets=[budget])
    manager, models = several("cheap", "dear", meter=meter, on_budget="cheaper")
    with pytest.raises(BudgetExceeded):
        asked(manager)
    assert not models["dear"].calls


def test_the_meter_is_read_off_the_path() -> None:
    """A periodic task reads it after calls; none of the calls does."""
    meter = Meter()
    manager, _ = several("a", "b", meter=meter, policy="fastest", refresh=0.02)
    reads: list[Any] = []
    snapshot = meter.snapshot
    vars(meter)["snapshot"] = lambda: reads.append(1) or snapshot()  # type: ignore[func-returns-value]
    asked(manager, 50)
    deadline = time.monotonic() + 10
    while manager._router.live.snapshot.totals.calls < 50 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert manager._router.live.snapshot.totals.calls == 50
    assert 1 <= len(reads) < 25
    manager._router.live._task.cancel()


def test_names_in_figures_are_those_of_the_manager() -> None:
    """Also without a meter of the manager; a name of the user's own on the model stays."""
    named = ScriptedChat(metadata={"langmeter_provider": "mine"})
    manager = ProviderManager({"nim": ScriptedChat(), "other": named})
    meter = Meter()
    for model in manager.providers.values():
        model.invoke([HumanMessage("hello")], {"callbacks": [meter]})
    assert {provider for provider, _ in meter.snapshot().models} == {"nim", "mine"}
