"""Prices of deployments and tiers, by the native end of a call and by the careful one."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_openai import AzureChatOpenAI

from langmeter import (
    Budget,
    BudgetExceeded,
    CostTrackingCallback,
    Meter,
    PriceBook,
    track_embeddings,
)
from langmeter.cli.main import main
from langmeter.prices import catalogue
from langmeter.testing.simulator import Raw
from langmeter.testing.simulator.server import Server
from tests.usage.test_beside import WAYS, call

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
HEAD = {"id": "c", "created": 1, "model": "gpt-4o-2024-08-06"}
WHOLE: Any = {
    **HEAD,
    "object": "chat.completion",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
    ],
    "usage": USAGE,
}
#: USD of a call at one dollar a million tokens.
ONE = Decimal("0.0011")


def flat(price: float) -> dict[str, Any]:
    return {"input": price, "output": price}


def events() -> list[dict[str, Any]]:
    """The same answer, streamed."""
    chunk = {**HEAD, "object": "chat.completion.chunk", "type": "chunk"}
    said = {"index": 0, "delta": {"role": "assistant", "content": "ok"}}
    done = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [
        {**chunk, "choices": [said]},
        {**chunk, "choices": [done]},
        {**chunk, "choices": [], "usage": USAGE},
    ]


CLIENTS: list[dict[str, Any]] = [
    {"azure_deployment": "My-Deployment"},
    {"azure_deployment": "My-Deployment", "model": "gpt-4o"},
    {"azure_deployment": "My-Deployment", "model": "gpt-4o", "model_version": "2024-08-06"},
]
OWN = {"azure/my-deployment": flat(7), "azure/gpt-4o": flat(1)}


@pytest.mark.parametrize("kind", [Meter, CostTrackingCallback])
@pytest.mark.parametrize("made", CLIENTS)
@pytest.mark.parametrize("how", WAYS)
def test_the_price_of_a_deployment_is_charged(
    how: str, made: dict[str, Any], kind: Any, service: Server
) -> None:
    """Before that of the model which answered, whatever else the client names."""
    handler = kind(prices=PriceBook(OWN))
    service.script(Raw(WHOLE, events()))
    azure = AzureChatOpenAI(
        azure_endpoint=service.root,
        api_version="1",
        api_key="k",  # type: ignore[arg-type]
        stream_usage=True,
        **made,
    )
    for _ in range(3):
        call(azure, how, handler)
    assert handler.snapshot().totals.cost == 3 * 7 * ONE


def client(deployment: str | None, answered: str = "inner", **meta: Any) -> Any:
    """A start and an end as AzureChatOpenAI has them, without a server."""

    def invoke(handler: Any, run: Any = None, response: Any = None) -> Any:
        run = run or uuid4()
        params = {"model": None, "azure_deployment": deployment} if deployment else {}
        metadata = {"ls_provider": "azure", "ls_model_name": meta.get("model", "house")}
        handler.on_chat_model_start(
            {"name": "AzureChatOpenAI", "kwargs": {}},
            [[HumanMessage("?")]],
            run_id=run,
            metadata=metadata,
            invocation_params={**params, **meta.get("params", {})},
        )
        end(handler, run, answered, response, **meta.get("said", {}))

    return invoke


def end(handler: Any, run: Any, answered: str, response: Any = None, **said: Any) -> None:
    message = AIMessage(
        "ok",
        usage_metadata={"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
        response_metadata={"model_name": answered, **said},
    )
    generation = ChatGeneration(message=message)
    handler.on_llm_end(response or LLMResult(generations=[[generation]]), run_id=run)


def test_two_deployments_of_a_model_have_prices_of_their_own() -> None:
    """Also where they take turns: the name of each call goes from its start to its end."""
    meter = Meter(prices=PriceBook({"azure/a": flat(1), "azure/b": flat(10), "azure/*": flat(100)}))
    runs = {name: uuid4() for name in ("a", "b", "c")}
    for _ in range(3):
        for name in runs:
            client(name)(meter)
    assert meter.cost.total_cost == 3 * 111 * ONE


def test_a_price_that_is_set_later_is_that_of_the_deployment() -> None:
    """Groups of calls remember which deployment they called."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    for name in ("a", "a", "b"):
        client(name, answered="unheard-of")(meter)
    assert meter.cost.total_cost is None
    meter.cost.prices.set("azure", "a", input=1, output=1)
    assert meter.cost.total_cost == 2 * ONE
    meter.cost.prices.set("azure", "b", input=10, output=10)
    assert meter.cost.total_cost == 12 * ONE


def test_a_budget_holds_the_price_of_the_deployment() -> None:
    """Though the model that is requested is cheaper."""
    own = {"azure/dear": flat(1_000_000), "azure/gpt-4o": flat(1)}
    budget = Budget(usd=100, action="block")
    meter = Meter(prices=PriceBook(own), budgets=[budget])
    limited: Any = {"params": {"max_tokens": 10}, "model": "gpt-4o"}
    client("cheap", **limited)(meter)
    assert budget.spent == ONE
    with pytest.raises(BudgetExceeded):
        client("dear", **{**limited, "params": {"max_tokens": 200}})(meter)


def test_a_budget_holds_the_price_of_whoever_answered_before() -> None:
    """Of an alias that has no price, once it is known that a model with one answers."""
    budget = Budget(usd="0.9", action="block")
    meter = Meter(prices=PriceBook({"azure/gpt-x": flat(1000)}).warm(wait=True), budgets=[budget])
    alias = client(None, answered="gpt-x", params={"max_tokens": 800})
    alias(meter)  # nothing is known of it
    assert budget.spent == Decimal("1.1")
    budget.set_limit(10)
    run = uuid4()
    meter.on_chat_model_start(
        {"name": "AzureChatOpenAI"},
        [[HumanMessage("?")]],
        run_id=run,
        metadata={"ls_provider": "azure", "ls_model_name": "house"},
        invocation_params={"max_tokens": 800},
    )
    assert budget.reserved >= Decimal("0.8")
    end(meter, run, "gpt-x")
    assert (budget.spent, budget.reserved) == (Decimal("2.2"), 0)


@pytest.mark.parametrize(
    ("own", "requested", "tier", "worst"),
    [
        ({"openai/m": flat(1), "openai/m-2026-01-31": flat(5)}, "m", "", 5),
        ({"openai/m": flat(5), "openai/m-2026-01-31": flat(1)}, "m", "", 5),
        ({"openai/m": {**flat(2), "tiers": {"flex": flat(1)}}}, "m", "flex", 2),
        ({"openai/m": {**flat(2), "tiers": {"priority": flat(4)}}}, "m", "priority", 4),
        ({"openai/m": flat(2), "openai/*": flat(9)}, "m", "", 2),
        ({"openai/gpt-4o-2024-08-06": flat(50)}, "gpt-4o", "", 50),
    ],
)
def test_a_budget_holds_the_dearest_price_that_may_count(
    own: Any, requested: str, tier: str, worst: int
) -> None:
    """Of dated versions, and the standard price where a cheaper tier may not be granted."""
    budget = Budget(usd=1, action="block")
    meter = Meter(prices=PriceBook(own).warm(wait=True), budgets=[budget])
    run = uuid4()
    params = {"max_tokens": 1000} | ({"service_tier": tier} if tier else {})
    meter.on_chat_model_start(
        {"name": "ChatOpenAI"},
        [[HumanMessage("")]],
        run_id=run,
        metadata={"ls_provider": "openai", "ls_model_name": requested},
        invocation_params=params,
    )
    held = budget.reserved * 10**6
    assert 1000 * worst <= held <= 1100 * worst


def test_the_name_of_a_deployment_is_found_where_clients_have_it() -> None:
    """Invocation parameters, the constructor, the address, the ARN that Bedrock is called by."""
    from langmeter.usage.requested import asked

    azure = {"ls_provider": "azure", "ls_model_name": "m"}
    at = "https://x.openai.azure.com/openai/deployments/mine/"
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    bedrock = {"ls_provider": "amazon_bedrock", "ls_model_name": "m"}
    assert asked(azure, {"azure_deployment": "mine"}, None)[3] == "mine"
    assert asked(azure, {}, {"kwargs": {"deployment_name": "mine"}})[3] == "mine"
    assert asked(azure, {}, {"kwargs": {"openai_api_base": at}})[3] == "mine"
    assert asked(bedrock, {}, {"kwargs": {"model_id": arn}})[3] == arn
    assert asked({"ls_provider": "openai"}, {"model": "m"}, {"kwargs": {}})[3] == ""


def test_embeddings_of_a_deployment_have_its_price() -> None:
    """By the attribute that AzureOpenAIEmbeddings has."""

    class Deployed(DeterministicFakeEmbedding):
        deployment: str = "mine"

    book = PriceBook({"deterministicfake/mine": flat(3), "deterministicfake/*": flat(1)})
    meter = Meter(prices=book)
    track_embeddings(Deployed(size=3), meter, token_counter=len).embed_query("four")
    assert meter.cost.total_cost == Decimal("0.000012")


def test_the_command_line_takes_a_deployment(capsys: Any, tmp_path: Any) -> None:
    """`langmeter prices --deployment` prints the own price of the deployment."""
    prices = tmp_path / "prices.json"
    prices.write_text('{"prices": {"azure/mine": {"input": 7, "output": 8}}}')
    assert main(["prices", "azure/gpt-4o", "--deployment", "mine", "--prices", str(prices)]) == 0
    shown = capsys.readouterr().out
    assert "listed as azure.ai.openai/mine" in shown
    assert " 7 USD" in shown


TIERS: list[tuple[dict[str, Any], str]] = [
    ({"service_tier": "flex"}, "flex"),
    ({"service_tier": "priority"}, "priority"),
    ({"service_tier": "batch"}, "batch"),
    ({"usage": {"speed": "fast", "input_tokens": 1000, "output_tokens": 100}}, "fast"),
]


@pytest.mark.parametrize(("said", "tier"), TIERS)
def test_a_tier_with_a_price_of_its_own_ends_natively(
    said: dict[str, Any], tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its second call on, at the same price; calls without the tier have the standard one."""
    own = {"azure/house": {**flat(1), "tiers": {tier: flat(3)}}}
    meter = Meter(prices=PriceBook(own).warm(wait=True))
    tiered, plain = client(None, "house", said=said), client(None, "house")
    tiered(meter)
    plain(meter)
    services = type(meter._services)
    with monkeypatch.context() as patch:

        def fails(*args: Any) -> None:
            raise AssertionError("not the native way")

        patch.setattr(services, "model_end", fails)
        for _ in range(3):
            tiered(meter)
            plain(meter)
    assert meter.cost.total_cost == 4 * (3 + 1) * ONE
    assert meter.snapshot().dropped == {}


def test_late_prices_of_groups_warn_of_a_tier_too(caplog: pytest.LogCaptureFixture) -> None:
    """A price that comes after the calls lacks their tier: as at once, a warning says so."""
    meter = Meter(prices=PriceBook().warm(wait=True))
    flex = client(None, "unheard-of", said={"service_tier": "flex"})
    for _ in range(3):
        flex(meter)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "langmeter"):
        meter.cost.prices.set("azure", "unheard-of", input=1, output=1)
        assert meter.cost.total_cost == 3 * ONE
    (record,) = caplog.records
    assert "azure.ai.openai/unheard-of as flex" in record.getMessage()


@pytest.mark.parametrize("action", ["warn", "block"])
@pytest.mark.parametrize(("price", "spent"), [(0.5, "0.00165"), (100, "0.33"), (0, "0")])
def test_a_price_set_later_replaces_what_a_call_without_one_was_charged(
    action: Any, price: float, spent: str
) -> None:
    """Up or down; what other calls spent stays, and a call that failed had been charged nothing."""
    budget = Budget(usd=1, unpriced=Decimal("0.01"), action=action)
    book = PriceBook({"azure/known": flat(10)}).warm(wait=True)
    meter = Meter(prices=book, budgets=[budget])
    for _ in range(3):
        client(None, "unheard-of")(meter)
    client("known")(meter)
    assert budget.spent == Decimal("0.03") + 10 * ONE
    book.set("azure", "unheard-of", input=price, output=price)
    assert meter.cost.total_cost == 3 * Decimal(str(price)) * ONE + 10 * ONE
    assert budget.spent == Decimal(spent) + 10 * ONE
    assert budget.remaining == 1 - budget.spent


def test_calls_that_end_before_the_catalogue_is_loaded_are_charged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a call without a price is charged holds until the price is there, then that does."""
    budget = Budget(usd=1, unpriced=Decimal("0.01"))
    meter = Meter(prices=PriceBook(), budgets=[budget])
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "ready", lambda: False)
        patch.setattr(catalogue, "loaded", lambda: False)
        client(None, "gpt-4o", model="gpt-4o")(meter)
        client(None, "unheard-of")(meter)
        assert budget.spent == Decimal("0.02")
    catalogue.warm(wait=True)
    cost = meter.cost.total_cost
    assert cost is not None
    assert budget.spent == cost + Decimal("0.01")


def test_an_alternating_tier_and_deployment_agree_with_the_careful_way() -> None:
    """Every pair of deployment and tier is charged what `PriceBook.card` says."""
    own = {f"azure/d{n}": {**flat(n + 1), "tiers": {"flex": flat(n + 0.5)}} for n in range(4)}
    book = PriceBook(own).warm(wait=True)
    meter = Meter(prices=book)
    expected = Decimal(0)
    for turn in range(40):
        name, tier = f"d{turn % 4}", ("", "flex")[turn % 3 == 0]
        said = {"service_tier": tier} if tier else {}
        client(name, "house", said=said)(meter)
        card = book.card("azure", "house", deployment=name, tier=tier)
        assert card is not None
        expected += Decimal(card.cost((1000, 100, 1100, *[0] * 16))).scaleb(-12)
    assert meter.cost.total_cost == expected


def test_a_deployment_of_an_async_batch_is_that_of_each_call() -> None:
    """Many at once, each with its own."""
    meter = Meter(prices=PriceBook({f"azure/d{n}": flat(n) for n in range(8)}))

    async def one(n: int) -> None:
        run = uuid4()
        metadata = {"ls_provider": "azure", "ls_model_name": "m"}
        params = {"azure_deployment": f"d{n}"}
        messages: Any = [[HumanMessage("?")]]
        meter.on_chat_model_start(
            {"name": "A"}, messages, run_id=run, metadata=metadata, invocation_params=params
        )
        await asyncio.sleep(0.001 * (8 - n))
        end(meter, run, "inner")

    async def every() -> None:
        await asyncio.gather(*(one(n) for n in range(8)))

    asyncio.run(every())
    assert meter.cost.total_cost == sum(range(8)) * ONE
