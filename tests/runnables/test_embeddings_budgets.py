"""Budgets of embeddings: refused before a call, held in flight."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    Meter,
    TokenCountingCallback,
    track_embeddings,
)
from langmeter.prices import PriceBook
from tests.support.counted import words
from tests.support.embeddings import TEXTS, WAYS, fake

#: 1 USD per 1,000 tokens.
DEAR = PriceBook({"deterministicfake/*": {"input": 1000, "output": 0}})


@pytest.mark.parametrize("way", WAYS)
def test_a_budget_refuses_a_call_before_it_is_made(way: str) -> None:
    """Two calls of 5 tokens fit 12, a third does not: `BudgetExceeded`, sync and async."""
    made = []

    class Noted(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            made.append(texts)
            return super().embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            made.append([text])
            return super().embed_query(text)

    tokens = Budget(tokens=12, action="block")
    dollars = Budget(usd=1, per="day", at=[0.01])
    meter = Meter(prices=DEAR, budgets=[tokens, dollars])
    embeddings = track_embeddings(Noted(size=2), meter, token_counter=words)
    for _ in range(2):
        WAYS[way](embeddings)
    with pytest.raises(BudgetExceeded, match="10 spent of 12 tokens"):
        WAYS[way](embeddings)
    assert (len(made), tokens.spent, tokens.reserved) == (2, 10, 0)
    assert dollars.spent == meter.cost.total_cost == Decimal("0.01")
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, snapshot.in_flight) == (2, 0)
    assert snapshot.dropped == {"budget_refused": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_call_in_flight_holds_what_its_texts_cost(way: str) -> None:
    """5 tokens of input and none of output, at the list price; settled when it ends or fails."""
    held = []

    class Look(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            held.append((dollar.reserved, tokens.reserved))
            raise ConnectionError

        def embed_query(self, text: str) -> list[float]:
            held.append((dollar.reserved, tokens.reserved))
            raise ConnectionError

    dollar, tokens = Budget(usd=1, action="block"), Budget(tokens=100, action="block")
    book = PriceBook({"deterministicfake/*": {"input": 1000, "output": 5}})
    meter = Meter(prices=book, budgets=[dollar, tokens])
    with pytest.raises(ConnectionError):
        WAYS[way](track_embeddings(Look(size=2), meter, token_counter=words))
    assert held == [(Decimal("0.005"), 5)]
    assert (dollar.reserved, dollar.spent, tokens.reserved, tokens.spent) == (0, 0, 0, 0)


def test_texts_that_nobody_counts_hold_a_token_a_byte() -> None:
    """Of which nothing is spent, as their tokens stay unknown; the call is."""
    tokens, calls = Budget(tokens=100, action="block"), Budget(calls=2, action="block")
    embeddings = track_embeddings(fake(), Meter(prices=DEAR, budgets=[tokens, calls]))
    embeddings.embed_documents(TEXTS)
    with pytest.raises(BudgetExceeded, match="of 100 tokens"):
        embeddings.embed_documents(["x" * 101])
    embeddings.embed_documents(iter(TEXTS))  # type: ignore[arg-type]
    with pytest.raises(BudgetExceeded, match="of 2 calls"):
        embeddings.embed_query("x")
    assert (tokens.spent, calls.spent, calls.reserved) == (0, 2, 0)


def test_scopes_hold_for_embeddings_by_provider_and_model() -> None:
    """They have neither tags nor metadata: a budget of a tenant does not cover them."""
    ours, theirs = (
        Budget(calls=9, scope={"provider": "deterministicfake"}),
        Budget(calls=9, scope={"model": "gpt*"}),
    )
    tenant = Budget(calls=9, scope={"tenant": "a"}, action="block")
    embeddings = track_embeddings(fake(), Meter(budgets=[ours, theirs, tenant]))
    embeddings.embed_query("x")
    assert (ours.spent, theirs.spent, tenant.spent) == (1, 0, 0)


def test_thresholds_are_told_of_embeddings_too() -> None:
    """By the call that crosses one, and by the first that is refused."""
    told: list[float] = []
    done = threading.Semaphore(0)

    def tell(event: Any) -> None:
        told.append(event.fraction)
        done.release()

    budget = Budget(tokens=9, at=[0.5, 1.0], action="block", on_threshold=tell)
    embeddings = track_embeddings(fake(), Meter(budgets=[budget]), token_counter=words)
    embeddings.embed_documents(TEXTS)
    assert done.acquire(timeout=30)
    with pytest.raises(BudgetExceeded):
        embeddings.embed_documents(TEXTS)
    assert done.acquire(timeout=30)
    assert told == [0.5, 1.0]


def test_budgets_are_those_of_the_composite_whichever_part_is_given() -> None:
    """A part of a composite counts into its recorder and is held to its budgets."""
    tokens, dollar = TokenCountingCallback(limit=12), Budget(usd="0.012", action="block")
    cost = CostTrackingCallback(DEAR, budgets=[dollar])
    both = CompositeCallback([tokens, cost])
    for part in (tokens, cost):
        track_embeddings(fake(), part, token_counter=words).embed_documents(TEXTS)
    with pytest.raises(BudgetExceeded):
        track_embeddings(fake(), both, token_counter=words).embed_documents(TEXTS)
    assert tokens.budget is not None
    assert (tokens.budget.spent, dollar.spent) == (10, Decimal("0.01"))


def test_sixty_four_threads_of_embeddings_stay_within_a_budget() -> None:
    """Each call holds what it costs: exactly 200 of 640 fit 1,000 tokens of 5."""
    budget = Budget(tokens=1000, action="block")
    embeddings = track_embeddings(fake(), Meter(budgets=[budget]), token_counter=words)

    def call(_: int) -> bool:
        try:
            embeddings.embed_documents(TEXTS)
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(call, range(640))) == 200
    assert (budget.spent, budget.reserved) == (1000, 0)
