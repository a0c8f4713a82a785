"""Calls that ended without a price: priced as if it had been there at once, and bounded."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import queue
import subprocess
import sys
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import Budget, CostTrackingCallback, Meter, _core, track_embeddings
from langmeter.prices import PriceBook, catalogue
from langmeter.prices.book import Priced
from langmeter.prices.unpriced import Call, UnpricedCalls
from langmeter.testing import ManualClock
from tests.support.laws import examples
from tests.support.models import chat_model

OK, ERROR, CANCELLED = map(_core.OUTCOMES.index, ("ok", "error", "cancelled"))
NAMES = ("acme", "one")

rates = st.integers(0, 50)
counts = st.integers(0, 5)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """An own price: flat, or with bands that begin at edges of the groups, and tiers."""
    edges = draw(st.lists(st.sampled_from([8192, 32_000, 128_000, 200_000]), unique=True))
    bands = [{"above": edge, "input": draw(rates), "output": draw(rates)} for edge in sorted(edges)]
    spec = {"input": draw(rates), "output": draw(rates), "bands": bands}
    if draw(st.booleans()):
        spec |= {"cache_read": draw(rates), "request": draw(counts), "reasoning": draw(rates)}
    if draw(st.booleans()):
        spec["tiers"] = {"flex": {"input": draw(rates), "output": draw(rates)}}
    return spec


@st.composite
def usages(draw: st.DrawFn) -> tuple[int, ...]:
    """Counts around the edges, now and then with parts that exceed their whole."""
    near = st.sampled_from([0, 8192, 32_000, 128_000, 200_000])
    given = max(0, draw(near) + draw(st.integers(-2, 2)))
    out = draw(st.integers(0, 500))
    odd = draw(st.integers(0, 9)) == 0
    read = draw(st.integers(0, given + 5 if odd else given))
    thought = draw(st.integers(0, out + 5 if odd else out))
    searches = draw(st.integers(0, 2))
    usage = (given, out, given + out, read, 0, 0, thought, *[0] * 9, searches, 0, 0)
    return usage if any(usage) else (1, 0, 1, *usage[3:])


calls = st.lists(
    st.tuples(
        usages(),
        st.sampled_from(["", "flex"]),
        st.sampled_from([OK, ERROR, CANCELLED]),
        st.sampled_from([None, "red", "blue"]),
        st.sampled_from([0.0, 1700.0, 1900.0]),
    ),
    max_size=12,
)


class Books:
    """A recorder with one budget, and calls that end in it without a price."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.recorder = _core.Recorder(max_series=64, max_runs=64, clock=self.clock)
        self.budget = self.recorder.open_budget(0, 10**18, 0, False, [], 0)

    def call(
        self, usage: tuple[int, ...], outcome: int, label: str | None, cost: int | None
    ) -> tuple[int, int, float]:
        """Its budgets, labels and start."""
        run = uuid.uuid4()
        demand = (1 << self.budget, 0, 0, 1, (0, 0, 0, 0))
        labels = [("colour", label)] if label else None
        self.recorder.run_started(run, None, 0, "Chat", *NAMES, demand=demand, labels=labels)
        asked = self.recorder.requested(run)
        assert asked is not None
        self.recorder.run_ended(run, 0, outcome, *NAMES, usage, cost)
        return asked[3], asked[4], asked[2]

    def money(self) -> dict[tuple[str, str, str], tuple[int, ...]]:
        """Cost, priced and unpriced calls of each series, and what the budget has spent."""
        series = [s for s in self.recorder.snapshot().series() if s.kind in ("model", "label")]
        places = {name: place for place, name in enumerate(_core.COUNTERS)}
        shown = ("cost", "cost_error", "cost_cancelled", "priced_calls")
        money = {
            (s.kind, s.a, s.b): (
                *(s.counters[places[name]] for name in shown),
                s.counters[places["unpriced_calls"]] - s.counters[places["repriced_calls"]],
                s.counters[places["unpriced_total"]] - s.counters[places["repriced_total"]],
            )
            for s in series
        }
        return {**money, ("budget", "", ""): self.recorder.standing(self.budget)[:2]}


def load(
    book: PriceBook, ended: list[Any], ready: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[Books, UnpricedCalls]:
    """The calls, ended while the catalogue was not there, or was and had no price."""
    books, later = Books(), UnpricedCalls(book)
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "ready", lambda: ready)
        for usage, tier, outcome, label, wait in ended:
            books.clock.advance(wait)
            budgets, labels, at = books.call(usage, outcome, label, None)
            names = Priced(*NAMES, NAMES[1], tier=tier)
            call = Call(names, outcome, budgets, labels, False, at, at, usage)
            assert later.add(call, books.recorder) == []
    return books, later


@examples(60)
@given(specs(), calls, st.booleans())
def test_late_is_as_at_once(spec: dict[str, Any], ended: list[Any], ready: bool) -> None:
    """Whatever the price, every counter and budget is as if each call had been priced at its end.

    Where the catalogue comes late each call is priced by itself; where the price does, those
    between two edges are together, which changes nothing.
    """
    with pytest.MonkeyPatch.context() as patch:
        book = PriceBook().warm(wait=True)
        late, later = load(book, ended, ready, patch)
        book.set(*NAMES, **spec)
        later.price_pending(late.recorder)
    once = Books()
    for usage, tier, outcome, label, wait in ended:
        once.clock.advance(wait)
        card = book.card(*NAMES, tier=tier, at=0.0)
        assert card is not None
        once.call(usage, outcome, label, card.cost(usage))
    assert late.money() == once.money()
    assert not later


@pytest.mark.parametrize(("inputs", "unpriced"), [((1500, 1600), 0), ((1500, 2000), 2)])
def test_an_odd_band_is_exact_or_leaves_calls_unpriced(
    inputs: tuple[int, int], unpriced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A band that begins among calls added up already: they stay unpriced, and are not guessed."""
    book = PriceBook().warm(wait=True)
    ended = [((n, 0, n, *[0] * 16), "", OK, None, 0.0) for n in inputs]
    books, later = load(book, ended, True, monkeypatch)
    book.set(*NAMES, input=1, output=1, bands=[{"above": 1700, "input": 2, "output": 2}])
    later.price_pending(books.recorder)
    cost, *_, priced, left, _ = books.money()["model", *NAMES]
    assert (cost, priced, left) == ((0, 0, 2) if unpriced else (3100 * 10**6, 2, 0))


@pytest.mark.parametrize("inputs", [(1500, 2000), (5, 40_000)])
def test_before_the_catalogue_each_call_waits_by_itself(
    inputs: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own prices with any band are exact for calls that ended before the catalogue was loaded."""
    spec = {"input": 1, "output": 1, "bands": [{"above": 1700, "input": 2, "output": 2}]}
    book = PriceBook({"acme/one": spec}).warm(wait=True)
    ended = [((n, 0, n, *[0] * 16), "", OK, None, 0.0) for n in inputs]
    books, later = load(book, ended, False, monkeypatch)
    later.price_pending(books.recorder)
    assert books.money()["model", *NAMES][0] == (inputs[0] + 2 * inputs[1]) * 10**6


def test_prices_of_the_half_hour_in_which_a_call_began() -> None:
    """DeepSeek's nightly discount of 2025: by the catalogue, priced as each call at once."""
    book = PriceBook().warm(wait=True)
    books, later = Books(), UnpricedCalls(book)
    usage = (1000, 100, 1100, *[0] * 16)
    expected = 0
    for minutes in range(0, 24 * 60, 10):
        at = 1_748_736_000.0 + 60 * minutes
        call = Call(Priced("deepseek", "deepseek-chat"), OK, 0, 0, False, at, at, usage)
        later._keep(call, books.recorder)
        card = book.card("deepseek", "deepseek-chat", at=at)
        assert card is not None
        expected += card.cost(usage)
    later.price_pending(books.recorder)
    assert books.money()["model", "deepseek", "deepseek-chat"][0] == expected
    assert not later


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 calls wait one by one, 1,024 groups of them; more are counted as forgotten."""
    monkeypatch.setattr(catalogue, "ready", lambda: False)
    books, later = Books(), UnpricedCalls(PriceBook())
    usage = (1, 1, 2, *[0] * 16)
    for n in range(4096):
        later.add(Call(Priced("acme", f"m{n}"), OK, 0, 0, False, 0.0, 0.0, usage), books.recorder)
    assert len(later._new) + len(later._groups) <= 2048
    assert books.recorder.snapshot().dropped == {"unpriced_forgotten": 3072}


def response(model: str = "fake-1", provider: str = "acme") -> LLMResult:
    """A chat answer of 100 tokens in and 40 out, whose metadata name a provider."""
    usage = {"input_tokens": 100, "output_tokens": 40, "total_tokens": 140}
    meta = {"model_name": model, "model_provider": provider}
    message = AIMessage("x", usage_metadata=usage, response_metadata=meta)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def call(meter: Any, *, ends: int = 1, model: str = "fake-1", labels: Any = None) -> None:
    """One call of acme's, ended so many times."""
    run = uuid.uuid4()
    metadata = {"ls_provider": "acme", "ls_model_name": model, **(labels or {})}
    meter.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run, metadata=metadata)
    for _ in range(ends):
        meter.on_llm_end(response(model), run_id=run)


def test_a_call_told_twice_is_priced_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its second end is a duplicate, and gets no price of its own later."""
    meter = Meter(prices=PriceBook().warm(wait=True), labels=("team",))
    call(meter, ends=3, labels={"team": "a"})
    assert meter.snapshot().unpriced == {("acme", "fake-1"): 140}
    meter.cost.prices.set("acme", "fake-1", input=1, output=1)
    stats = meter.snapshot().totals
    assert (stats.calls, stats.priced_calls, stats.unpriced_calls) == (1, 1, 0)
    assert stats.cost == Decimal("0.00014") == meter.cost.label_costs["team", "a"]
    assert meter.snapshot().unpriced == {}


def test_one_warning_a_model_names_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    """What it tells to type is what prices the calls."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    with caplog.at_level(logging.WARNING, "langmeter"):
        for model in ("one", "one", "two", "one"):
            call(meter, model=model)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "meter.cost.prices.set('acme', 'one', input=..., output=...)" in told[0]
    remedy = told[0].split("Give it one: ")[1].split(", USD")[0].replace("...", "2")
    exec(remedy, {"meter": meter})
    assert meter.snapshot().models["acme", "one"].cost == Decimal("0.00084")
    assert meter.snapshot().models["acme", "two"].cost is None


def test_a_model_of_nobody_is_warned_of_with_what_helps(caplog: pytest.LogCaptureFixture) -> None:
    """No price can be set without a provider: the warning says how to name one."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    run = uuid.uuid4()
    meter.on_chat_model_start({}, [[]], run_id=run, metadata={"ls_model_name": "who"})
    with caplog.at_level(logging.WARNING, "langmeter"):
        meter.on_llm_end(response("who", ""), run_id=run)
    assert "ls_provider" in caplog.text
    assert "prices.set('', " not in caplog.text


def test_a_budget_is_charged_when_the_price_comes() -> None:
    """Spent money that was not known at first is the budget's all the same, thresholds too."""
    told: queue.Queue[Any] = queue.Queue()
    budget = Budget(usd=Decimal("0.0002"), at=(0.5,), on_threshold=told.put)
    meter = Meter(prices=PriceBook().warm(wait=True), budgets=[budget])
    call(meter)
    assert budget.spent == 0
    meter.cost.prices.set("acme", "fake-1", input=1, output=1)
    meter.snapshot()
    assert budget.spent == Decimal("0.00014")
    assert told.get(timeout=60).budget is budget


def test_threads_lose_nothing() -> None:
    """Four threads end calls while the price is set and snapshots are taken: all are priced."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    go = threading.Barrier(6)

    def ends() -> None:
        go.wait()
        for _ in range(250):
            call(meter)

    def sets() -> None:
        go.wait()
        meter.cost.prices.set("acme", "fake-1", input=1, output=1)

    def reads() -> None:
        go.wait()
        for _ in range(20):
            stats = meter.snapshot().totals
            assert stats.unpriced_calls >= 0

    threads = [threading.Thread(target=t) for t in (ends, ends, ends, ends, sets, reads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = meter.snapshot().totals
    assert (stats.priced_calls, stats.unpriced_calls) == (1000, 0)
    assert stats.cost == 1000 * Decimal("0.00014")
    assert not meter.snapshot().dropped


def _in_child(meter: Meter, results: Any) -> None:
    call(meter)
    meter.cost.prices.set("acme", "fake-1", input=1, output=1)
    results.put((meter.cost.total_cost, meter.snapshot().totals.cost))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_prices_its_own_calls() -> None:
    """The parent's waiting calls are the parent's; every view of the child's meter sees its own."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    call(meter)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_child, args=(meter, results))
    child.start()
    assert results.get(timeout=60) == (Decimal("0.00014"), Decimal("0.00014"))
    child.join(60)
    assert meter.snapshot().totals.unpriced_calls == 1


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from langmeter import Meter
from tests.prices.test_unpriced import response
from langchain_core.messages import HumanMessage
import uuid
meter = Meter()
run = uuid.uuid4()
metadata = {{"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}}
meter.on_chat_model_start({{}}, [[HumanMessage("hi")]], run_id=run, metadata=metadata)
meter.on_llm_end(response("gpt-4o-mini", "openai"), run_id=run)
print(meter.cost.total_cost)
"""


@pytest.mark.process
def test_a_short_script_is_priced() -> None:
    """One call and its cost, in a process that ends before the catalogue would be there."""
    script = SCRIPT.format(root=str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    price = PriceBook().cost("openai", "gpt-4o-mini", input=100, output=40)
    assert Decimal(done.stdout) == price


def test_an_event_loop_is_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`snapshot()` waits for the catalogue in a plain thread, never in one that runs a loop."""
    waited: list[bool] = []
    monkeypatch.setattr(catalogue, "ready", lambda: False)
    monkeypatch.setattr(catalogue, "warm", lambda *, wait=False: waited.append(wait))
    cost = CostTrackingCallback()
    call(cost)

    async def ask() -> int:
        return cost.snapshot().totals.unpriced_calls

    waited.clear()
    assert asyncio.run(ask()) == 1
    assert waited == []
    assert cost.snapshot().totals.unpriced_calls == 1
    assert waited == [True]


def test_what_fails_while_pricing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price book that breaks is a hook error, and the snapshot comes all the same."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    call(meter)

    def breaks(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no")

    meter.cost.prices.set("other", "x", input=1, output=1)
    monkeypatch.setattr(PriceBook, "card", breaks)
    assert meter.snapshot().dropped == {"hook_errors": 1}


def test_a_call_of_nothing_is_never_unpriced() -> None:
    """A usage of zeros waits for no price, and no count falls below zero."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    nothing = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    chat_model(usage=nothing, content="").invoke("hi", config={"callbacks": [meter]})
    assert meter.snapshot().totals.unpriced_calls == 0
    meter.cost.prices.set("genericfakechatmodel", "fake-1", input=1, output=1)
    assert meter.snapshot().totals.unpriced_calls == 0


def test_a_cost_beyond_all_sense_is_none() -> None:
    """More than 9.2 million USD for a call is refused and counted, told or computed; it ends."""
    sum_ = {"input_tokens": 2**36, "output_tokens": 1, "total_tokens": 2**36 + 1}
    key = ("genericfakechatmodel", "fake-1")
    for early in (True, False):
        meter = Meter(prices=PriceBook().warm(wait=True))
        if early:
            meter.cost.prices.set(*key, input=10**6, output=1)
        model = chat_model(usage=sum_, metadata={"model_name": "fake-1", "cost": 2e7})
        model.invoke("hi", config={"callbacks": [meter]})
        meter.cost.prices.set(*key, input=10**6, output=1)
        snapshot = meter.snapshot()
        assert (snapshot.totals.calls, snapshot.in_flight) == (1, 0)
        assert (snapshot.totals.cost, snapshot.totals.billed) == (None, None)
        assert snapshot.totals.unpriced_calls == 1
        assert snapshot.dropped == {"usage_refused": 2 if early else 1}
        meter.cost.prices.set(*key, input=1, output=1)
        assert meter.snapshot().totals.cost == Decimal(2**36 + 1).scaleb(-6)


class House(DeterministicFakeEmbedding):
    """Embeddings that say which model they are of."""

    model: str = "embed"


def test_embeddings_are_priced_later_too() -> None:
    """One that ended before its price was known."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    model = House(size=2)
    track_embeddings(model, meter, token_counter=len).embed_query("how are you")
    (((provider, name), tokens),) = meter.snapshot().unpriced.items()
    assert (name, tokens) == ("embed", 11)
    meter.cost.prices.set(provider, name, input=1, output=0)
    assert meter.snapshot().totals.cost == Decimal(tokens).scaleb(-6)
    assert meter.snapshot().totals.unpriced_calls == 0


def test_a_chain_that_returns_a_priced_answer_is_not_priced() -> None:
    """A real model's call is priced once, whatever ends around it."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    (chat_model() | (lambda message: message)).invoke("hi", config={"callbacks": [meter]})
    meter.cost.prices.set("genericfakechatmodel", "fake-1", input=1, output=1)
    assert meter.snapshot().totals.priced_calls == 1
