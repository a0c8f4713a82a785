"""Users' names of providers: in figures, in prices and in budgets."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import Budget, BudgetExceeded, Meter, PriceBook
from langmeter._core import PROVIDER_KEY
from langmeter.usage import requested

SERIALIZED = {"name": "ChatX", "id": ["a", "ChatX"]}
#: USD of 1,000 tokens of input and 100 of output at one dollar a million tokens.
ONE = Decimal("0.0011")
NUMBERS = itertools.count(1)


def flat(price: float) -> dict[str, Any]:
    return {"input": price, "output": price}


def meter_of(own: Any, *, careful: bool = False, **settings: Any) -> Meter:
    """A meter with own prices; a listener for complete streams makes it end calls in Python."""
    listener: Any = (lambda result: None) if careful else None
    return Meter(prices=PriceBook(own).warm(wait=True), on_complete=listener, **settings)


def call(handler: Any, vendor: str, name: str | None, *, answered: str = "") -> None:
    """One call of the model `m` from start to end."""
    run = f"run {next(NUMBERS)}"
    metadata = {"ls_provider": vendor, "ls_model_name": "m"}
    if name is not None:
        metadata[PROVIDER_KEY] = name
    handler.on_chat_model_start(SERIALIZED, [[]], run_id=run, metadata=metadata)
    usage: Any = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    said = {"model_name": answered} if answered else {}
    message = AIMessage("ok", usage_metadata=usage, response_metadata=said)
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    handler.on_llm_end(result, run_id=run)


def costs(meter: Meter) -> dict[tuple[str, str], Decimal | None]:
    return {names: stats.cost for names, stats in meter.snapshot().models.items()}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("answered", ["", "m-2026-01-02"])
@pytest.mark.parametrize(
    ("name", "own", "price"),
    [
        ("Primary", {"openai/m": flat(2), "anthropic/m": flat(3)}, 2),
        ("Primary", {"openai/*": flat(2), "anthropic/m": flat(3)}, 2),
        ("Primary", {"openai/m": flat(2), "primary/m": flat(5)}, 5),
        ("Primary", {"openai/m": flat(2), "primary/*": flat(5)}, 5),
        ("nim", {"nvidia_nim/m": flat(7), "openai/m": flat(2)}, 7),
        ("nim", {}, "default"),
    ],
)
def test_the_name_is_in_figures_and_the_price_is_found_by_either(
    name: str, own: Any, price: Any, answered: str, careful: bool
) -> None:
    """First an own price under the user's name, then one under LangChain's, then the default."""
    meter = meter_of(own, careful=careful)
    for _ in range(3):
        call(meter, "openai", name, answered=answered)
    cost = Decimal("0.00022") if price == "default" else ONE * price
    assert costs(meter) == {(name, answered or "m"): 3 * cost}


def test_the_catalogue_is_asked_for_the_users_name_only_if_it_lists_it() -> None:
    """Otherwise for LangChain's; a name that is like a provider's is not that provider."""
    book = PriceBook().warm(wait=True)
    for name in ("primary", "backup-google", "anthropic"):
        card = book.card(name, "claude-sonnet-4-5", vendor="anthropic")
        assert card is not None
        assert card.provider == "anthropic"
    card = book.card("openrouter", "openai/gpt-4o", vendor="openai")
    assert card is not None
    assert card.provider == "openrouter"
    assert book.card("primary", "claude-sonnet-4-5") is None


@pytest.mark.parametrize("careful", [False, True])
def test_one_name_for_two_vendors_prices_each_by_its_own(careful: bool) -> None:
    """The vendor goes with each call, though both are counted in one series."""
    meter = meter_of({"openai/m": flat(1), "azure/m": flat(10)}, careful=careful)
    for vendor in ("openai", "azure", "azure", "openai", "openai"):
        call(meter, vendor, "primary")
    assert costs(meter) == {("primary", "m"): 23 * ONE}


def test_a_client_that_is_renamed_is_another_from_the_next_call_on() -> None:
    """Known clients differ by the name too; an empty name or one of spaces names nothing."""
    meter = Meter(prices=PriceBook({"openai/m": flat(1)}))
    for name in (None, "a", "a", "b", "", " ", None, "a"):
        call(meter, "openai", name)
    calls = {names: stats.calls for names, stats in meter.snapshot().models.items()}
    assert calls == {("openai", "m"): 4, ("a", "m"): 3, ("b", "m"): 1}
    assert meter.snapshot().totals.cost == 8 * ONE


def test_calls_that_are_priced_later_know_their_vendor() -> None:
    """A price that is set under LangChain's name is that of the calls that have ended before."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    call(meter, "acme", "primary")
    assert meter.cost.total_cost is None
    meter.cost.prices.set("acme", "m", input=1, output=1)
    assert meter.cost.total_cost == ONE
    assert costs(meter) == {("primary", "m"): ONE}


@pytest.mark.parametrize("scope", ["primary", "PRIMARY", "openai", "text-completion-openai"])
def test_a_budget_covers_a_provider_by_either_name(scope: str) -> None:
    """Of a provider or a model; calls of the vendor under no name are covered by its name alone."""
    for covers in ({"provider": scope}, {"model": f"{scope}/m"}):
        budget = Budget(calls=2, action="block", scope=covers)
        meter = Meter(budgets=[budget])
        call(meter, "anthropic", "other")
        call(meter, "openai", None)
        before = 0 if scope.lower() == "primary" else 1
        assert budget.spent == before
        for _ in range(2 - before):
            call(meter, "openai", "primary")
        with pytest.raises(BudgetExceeded):
            call(meter, "openai", "primary")


def test_a_blocking_budget_holds_the_price_of_the_vendor() -> None:
    """The worst case is that of either name's price, as the call will be charged."""
    book = PriceBook({"openai/m": flat(1_000_000), "azure/m": flat(0)})
    meter = Meter(prices=book, budgets=[Budget(usd=1, action="block")])
    call(meter, "azure", "primary")
    with pytest.raises(BudgetExceeded):
        call(meter, "openai", "primary")


def test_requested_names_the_provider_as_the_user_does() -> None:
    """The public reader of a start hook's arguments gives the same name as the figures."""
    metadata = {"ls_provider": "openai", "ls_model_name": "m", PROVIDER_KEY: "nim"}
    assert requested(metadata) == ("nim", "m")
    assert requested({**metadata, PROVIDER_KEY: 7}) == ("openai", "m")


def test_a_token_counter_is_chosen_by_langchains_name() -> None:
    """A call without usage is counted by what `token_counters` has for the vendor."""
    meter = Meter(token_counters={"acme/m": lambda text: 1000}, prices=PriceBook())
    for name in (None, "primary"):
        run = f"run {next(NUMBERS)}"
        metadata: Any = {"ls_provider": "acme", "ls_model_name": "m", PROVIDER_KEY: name}
        meter.on_llm_start(SERIALIZED, ["x"], run_id=run, metadata=metadata)  # type: ignore[arg-type]
        result = LLMResult(generations=[[ChatGeneration(message=AIMessage("ok"))]])
        meter.on_llm_end(result, run_id=run)  # type: ignore[arg-type]
    tokens = {names: stats.tokens.output for names, stats in meter.snapshot().models.items()}
    assert tokens[("primary", "m")] == tokens[("acme", "m")] >= 1000
