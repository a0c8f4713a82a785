"""Attempts at defects, by blocks, on real chains, tasks and threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import OutputParserException
from langchain_core.runnables import RunnableLambda

from langmeter import Budget, BudgetExceeded, DefectAnalysisCallback, Meter, PriceBook, Snapshot
from langmeter.errors import ConfigError
from langmeter.testing import ManualClock
from tests.support.models import chat_model
from tests.support.repairs import LARGE, PRICES, SMALL, failing, model, only, outcomes


def test_a_block_counts_the_calls_in_it_under_the_model_that_answered(meter: Meter) -> None:
    """Tokens, money and retries of a block are those of its calls; calls outside count nowhere."""
    llm = model()
    llm.invoke("before", config={"callbacks": [meter]})
    with meter.defects.attempt("D1", type="LEAK", severity="high") as attempt:
        llm.invoke("one", config={"callbacks": [meter]})
        llm.with_retry().invoke("two", config={"callbacks": [meter]})
    attempt.succeeded(score=0.5)
    llm.invoke("after", config={"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert list(snapshot.defects) == [("LEAK", "openai", "small", "high")]
    row = only(snapshot)
    assert (row.calls.calls, row.tokens.total, row.cost) == (2, 280, 2 * SMALL)
    assert (row.defects, row.fixed, row.cost_per_fixed, row.wasted) == (1, 1, 2 * SMALL, 0)
    assert row.quality.mean == pytest.approx(0.5, rel=0.01)
    assert snapshot.totals.calls == 4


async def test_tasks_of_a_block_belong_to_it_and_neighbours_do_not(meter: Meter) -> None:
    """Fifty attempts at once, each with three concurrent calls in tasks of their own."""
    llm = model()

    async def fix(n: int) -> None:
        async with meter.defects.attempt(f"D{n}", type=f"T{n % 5}") as attempt:
            await asyncio.gather(
                *(llm.ainvoke("q", config={"callbacks": [meter]}) for _ in range(3))
            )
        if n % 2:
            attempt.failed()
        else:
            attempt.succeeded()

    await asyncio.gather(*map(fix, range(50)))
    rows = meter.snapshot().defects
    assert sorted(key[0] for key in rows) == ["T0", "T1", "T2", "T3", "T4"]
    assert {row.calls.calls for row in rows.values()} == {30}
    assert sum(row.fixed for row in rows.values()) == 25


def test_a_block_is_handed_to_threads_by_entering_it_again_or_by_its_context(meter: Meter) -> None:
    """A bare thread is outside; `with attempt:` and a copied context are inside."""
    llm = model()

    def call() -> None:
        llm.invoke("q", config={"callbacks": [meter]})

    def inside() -> None:
        with attempt:
            call()

    with meter.defects.attempt("D", type="T") as attempt:
        context = contextvars.copy_context()
        for target in (call, inside, lambda: context.run(call)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        batch = llm.batch(["a", "b"], config={"callbacks": [meter]})
    assert len(batch) == 2
    row = only(meter.snapshot())
    assert (row.attempts, row.calls.calls) == (1, 4)


def test_nested_blocks_count_to_the_innermost(meter: Meter) -> None:
    """Of two blocks, one in the other, each call counts once."""
    llm = model()
    with meter.defects.attempt("outer", type="A"):
        llm.invoke("q", config={"callbacks": [meter]})
        with meter.defects.attempt("inner", type="B"):
            llm.invoke("q", config={"callbacks": [meter]})
            llm.invoke("q", config={"callbacks": [meter]})
        llm.invoke("q", config={"callbacks": [meter]})
    calls = {key[0]: row.calls.calls for key, row in meter.snapshot().defects.items()}
    assert calls == {"A": 2, "B": 2}


def test_an_attempt_without_a_call_has_a_row_without_a_model(meter: Meter) -> None:
    """It was asked, and nothing answered."""
    with meter.defects.attempt("D", type="LEAK", severity="high"):
        pass
    row = meter.snapshot().defects["LEAK", "", "", "high"]
    assert (row.attempts, row.funnel["asked"], row.funnel["answered"], row.cost) == (1, 1, 0, None)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("503"), "infrastructure"),
        (asyncio.CancelledError(), "infrastructure"),
        (KeyboardInterrupt(), "infrastructure"),
        (OutputParserException("no JSON"), "unparsable"),
    ],
)
@pytest.mark.parametrize("by", ["block", "mark"])
def test_an_attempt_that_an_exception_ends_is_no_failure_of_the_model(
    meter: Meter, error: BaseException, outcome: str, by: str
) -> None:
    """Outside of every rate, until a verdict says otherwise; but what cannot be parsed counts."""
    config: Any = {"callbacks": [meter]}
    if by == "block":
        with pytest.raises(type(error)), meter.defects.attempt("D") as attempt:
            failing(error).invoke("q", config=config)
        row = only(meter.snapshot())
        assert (outcomes(row), row.closed) == ({outcome: 1}, int(outcome == "unparsable"))
        assert meter.defects.record(attempt.id, "fixed")
        row = only(meter.snapshot())
        assert (outcomes(row), row.success_rate, row.revisions) == ({"fixed": 1}, 1, 0)
    else:
        with pytest.raises(type(error)):
            failing(error).invoke("q", config={**config, "metadata": {"defect_id": "D"}})  # type: ignore[arg-type]
        assert outcomes(only(meter.snapshot())) == {outcome: 1}


def test_a_call_that_a_budget_refuses_is_infrastructure() -> None:
    """The provider was never asked."""
    budget = Budget(calls=1, action="block")
    meter = Meter(prices=PriceBook(PRICES), budgets=[budget])
    llm = model()
    for _ in range(2):
        with suppress(BudgetExceeded):
            llm.invoke("q", config={"callbacks": [meter], "metadata": {"defect_id": "D"}})
    with pytest.raises(BudgetExceeded), meter.defects.attempt("E"):
        llm.invoke("q", config={"callbacks": [meter]})
    rows = meter.snapshot().defects
    assert outcomes(rows["", "openai", "small", ""]) == {"unverified": 1}
    assert outcomes(rows["", "", "", ""]) == {"infrastructure": 1}


def test_the_recommended_candidate_decides_the_model_and_all_the_cost_goes_there(
    meter: Meter,
) -> None:
    """Else it would be the model of the last successful call."""
    small, large = model("small"), model("large")
    for recommended in (True, False):
        with meter.defects.attempt("D") as attempt:
            with attempt.candidate(0, recommended=recommended) as first:
                large.invoke("q", config={"callbacks": [meter]})
            with attempt.candidate(1) as second:
                small.invoke("q", config={"callbacks": [meter]})
        first.succeeded()
        second.failed()
    rows = meter.snapshot().defects
    assert {key[2]: row.cost for key, row in rows.items()} == {
        "large": SMALL + LARGE,
        "small": SMALL + LARGE,
    }
    row = rows["", "openai", "large", ""]
    assert (row.candidates, row.pass_at(1), row.pass_at(2), row.pass_all(2)) == (2, 0.5, 1, 0)


def test_a_candidate_from_the_response_cache_is_not_a_sample(meter: Meter) -> None:
    """The same answer again says nothing new about the model."""
    llm = chat_model(cache=InMemoryCache(), metadata={"model_name": "small"})
    with meter.defects.attempt("D") as attempt:
        for index in range(3):
            with attempt.candidate(index) as candidate:
                llm.invoke("q", config={"callbacks": [meter]})
            candidate.succeeded()
    row = only(meter.snapshot())
    assert (row.candidates, row.cached_candidates, row.pass_at(1)) == (3, 2, 1)
    assert row.pass_at(2) != row.pass_at(2), "no attempt has two samples"  # nan


def test_a_price_that_comes_later_counts_to_the_attempt_that_has_ended() -> None:
    """Also to what a fix costs, and to what was wasted."""
    meter = Meter(prices=PriceBook({"openai/large": {"input": 10, "output": 20}}))
    llm = model("small")
    for defect, fixed in (("D1", True), ("D2", False)):
        with meter.defects.attempt(defect) as attempt:
            llm.invoke("q", config={"callbacks": [meter]})
        meter.defects.record(attempt.id, "fixed" if fixed else "failed")
    row = only(meter.snapshot())
    assert (row.cost, row.calls.unpriced_calls) == (None, 2)
    meter.cost.prices.set("openai", "small", input=1, output=2)
    row = only(meter.snapshot())
    assert (row.cost, row.wasted, row.cost_per_fixed) == (2 * SMALL, SMALL, 2 * SMALL)
    assert row.calls.unpriced_calls == 0


def test_an_end_after_the_block_still_counts_to_it(meter: Meter) -> None:
    """A call in a thread outlives its block."""
    gate = threading.Event()

    def wait(value: Any) -> Any:
        gate.wait(30)
        return value

    chain = RunnableLambda(wait) | model()
    with ThreadPoolExecutor() as pool:
        with meter.defects.attempt("D", type="T") as attempt:
            context = contextvars.copy_context()
            future = pool.submit(
                context.run, lambda: chain.invoke("q", config={"callbacks": [meter]})
            )
        attempt.succeeded()
        gate.set()
        future.result()
    row = meter.snapshot().defects["T", "", "", ""]
    assert (row.attempts, row.fixed, row.calls.calls, row.cost) == (1, 1, 1, SMALL)


def test_time_and_attempts_to_the_first_fix() -> None:
    """From the begin of the first attempt to the end of the one that fixed it."""
    clock = ManualClock()
    meter = Meter(clock=clock)
    for fixed in (False, False, True, True):
        with meter.defects.attempt("D") as attempt:
            clock.advance(10)
        attempt.succeeded() if fixed else attempt.failed()
        clock.advance(100)
    row = only(meter.snapshot())
    assert row.time_to_fix.count == row.attempts_to_fix.count == 1
    assert row.time_to_fix.max == pytest.approx(230, rel=0.01)
    assert (row.attempts_to_fix.quantile(0.5), row.attempts_to_fix.max) == (3, pytest.approx(3))
    assert (row.first_attempt_rate, row.success_rate, row.attempt_rate) == (0, 1, 0.5)


def test_strategies_have_rows_of_their_own(meter: Meter) -> None:
    """By strategy and language, over all models and types."""
    for name, strategy in (("small", "guard"), ("large", "guard"), ("large", "")):
        with meter.defects.attempt("D", strategy=strategy, language="c" if strategy else ""):
            model(name).invoke("q", config={"callbacks": [meter]})
    snapshot = meter.snapshot()
    assert len(snapshot.defects) == 2
    [(key, row)] = snapshot.defect_strategies.items()
    assert (key, row.attempts, row.cost) == (("guard", "c"), 2, SMALL + LARGE)


def test_a_handler_alone_counts_attempts_too() -> None:
    """Without a meter; and in a composite once."""
    handler = DefectAnalysisCallback()
    chain = RunnableLambda(lambda q: q) | model()
    config: Any = {"callbacks": [handler], "metadata": {"defect_id": "D", "type": "T"}}
    chain.invoke("q", config=config)
    with handler.attempt("E", type="T") as attempt:
        chain.invoke("q", config={"callbacks": [handler]})
    attempt.succeeded()
    row = handler.rows["T", "openai", "small", ""]
    assert (row.attempts, row.calls.calls, handler.success_rate) == (2, 2, 1)


def test_texts_are_cut_at_64_characters_and_separators_do_no_harm(meter: Meter) -> None:
    """Names of rows come from outside."""
    names: Any = {"type": "t" * 99, "severity": "a\x1fb"}
    with meter.defects.attempt("d" * 99, **names) as attempt:
        pass
    attempt.failed(reason="r" * 99)
    snapshot = meter.snapshot()
    [(key, _)] = snapshot.defects.items()
    assert (key[0], key[3]) == ("t" * 64, "a\x1fb")
    assert list(meter.defects.failure_reasons) == [("failed", "r" * 64)]
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"defect_id": ""}, "defect_id must be a text that is not empty, got ''"),
        ({"defect_id": 3}, "defect_id must be a text, got 3"),
        ({"type": None}, "type must be a text, got None"),
        ({"number": 0}, "number must be a whole number from 1 to 4,294,967,295, got 0"),
        ({"number": True}, "number must be a whole number from 1"),
    ],
)
def test_wrong_arguments_are_named(meter: Meter, wrong: dict[str, Any], message: str) -> None:
    """With the range that is allowed."""
    with pytest.raises(ConfigError, match=message):
        meter.defects.attempt(**{"defect_id": "D", **wrong})


def test_an_attempt_outside_of_its_block_says_what_to_do(meter: Meter) -> None:
    """Neither id nor verdict before it begins, no receipt before it has ended."""
    attempt = meter.defects.attempt("D")
    for use in (lambda: attempt.id, attempt.succeeded, lambda: attempt.candidate(0)):
        with pytest.raises(RuntimeError, match="has not begun; enter it first: with attempt"):
            use()
    with attempt, pytest.raises(RuntimeError, match="has not ended"):
        _ = attempt.receipt
    assert attempt.receipt.startswith("lmfix1.")
