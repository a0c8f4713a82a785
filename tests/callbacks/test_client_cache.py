"""The cache of clients: no call is counted under the names of another call of its client."""

from __future__ import annotations

import itertools
import os
import uuid
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter import Budget, BudgetExceeded, Meter, TokenCountingCallback
from langmeter.prices import PriceBook

SERIALIZED = {"name": "ChatX", "id": ["a", "ChatX"]}


def response(model: str | None, tokens: int = 10) -> LLMResult:
    """An answer that says what it used, and which model gave it."""
    usage: Any = {"input_tokens": tokens, "output_tokens": 5, "total_tokens": tokens + 5}
    metadata = {} if model is None else {"model_name": model}
    message = AIMessage("hi", usage_metadata=usage, response_metadata=metadata)
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def call(
    handler: Any, answer: str | None = None, serialized: Any = SERIALIZED, **given: Any
) -> uuid.UUID:
    """One call from start to end; `given` as in the start hook."""
    run = uuid.uuid4()
    handler.on_chat_model_start(serialized, [[]], run_id=run, **given)
    handler.on_llm_end(response(answer), run_id=run)
    return run


def calls(handler: Any) -> dict[tuple[str, str], int]:
    """Calls by provider and model."""
    return {name: stats.calls for name, stats in handler.snapshot().models.items()}


@pytest.mark.parametrize("key", ["model", "model_name", "model_id", "azure_deployment"])
@pytest.mark.parametrize("named", [True, False], ids=["answer names it", "answer does not"])
@pytest.mark.parametrize("make", [Meter, TokenCountingCallback])
def test_two_models_of_one_client_are_two(make: Callable[[], Any], named: bool, key: str) -> None:
    """A client may request another model at each call, by whatever parameter it names it."""
    handler = make()
    for model in ("a", "b", "a"):
        params = {key: model, "temperature": 0}
        call(
            handler,
            model if named else None,
            metadata={"ls_provider": "acme"},
            invocation_params=params,
        )
    assert calls(handler) == {("acme", "a"): 2, ("acme", "b"): 1}


def test_the_first_name_that_is_a_text_counts() -> None:
    """`ls_model_name` precedes the parameters; what is empty or not a text is passed over."""
    handler = TokenCountingCallback()
    for metadata, params in (
        ({"ls_model_name": "a"}, {"model": "x"}),
        ({"ls_model_name": "a"}, {"model": "y"}),
        ({"ls_model_name": ""}, {"model": "b"}),
        ({"ls_model_name": 7}, {"model": None, "model_name": "c"}),
        ({}, {"model": "", "deployment_name": "d"}),
    ):
        call(handler, metadata={"ls_provider": "acme", **metadata}, invocation_params=params)
    names = {("acme", "a"): 2, ("acme", "b"): 1, ("acme", "c"): 1, ("acme", "d"): 1}
    assert calls(handler) == names


def test_two_providers_of_one_client_are_two() -> None:
    """The provider of a call is that of its metadata, or of the address that the call names."""
    handler = TokenCountingCallback()
    for provider in ("acme", "other vendor"):
        metadata = {"ls_provider": provider, "ls_model_name": "m"}
        call(handler, metadata=metadata)
    openai = {"ls_provider": "openai", "ls_model_name": "m"}
    for url in ("https://api.groq.com/v1", "https://api.together.xyz", None):
        call(handler, metadata=openai, invocation_params={"base_url": url})
        call(handler, metadata={**openai, "endpoint": url}, invocation_params={"api_base": url})
    assert calls(handler) == {
        ("acme", "m"): 1,
        ("other vendor", "m"): 1,
        ("groq", "m"): 2,
        ("together", "m"): 2,
        ("openai", "m"): 2,
    }


def test_an_equal_client_that_is_another_object_is_another() -> None:
    """What a client was made with is asked of each `serialized` by itself."""
    handler = TokenCountingCallback()
    for url in ("https://api.groq.com", "https://api.x.ai"):
        made = {"name": "ChatOpenAI", "id": ["a"], "kwargs": {"base_url": url}}
        for _ in range(2):
            call(handler, serialized=made, metadata={"ls_model_name": "m"})
    assert calls(handler) == {("groq", "m"): 2, ("x_ai", "m"): 2}


def test_more_clients_and_answers_than_are_remembered_are_counted_right() -> None:
    """The caches are bounded, and what fell out of them is asked again."""
    handler = TokenCountingCallback()
    models = [f"m{number}" for number in range(70)]
    for _ in range(2):
        for model in models:
            metadata = {"ls_provider": "acme", "ls_model_name": model}
            call(handler, metadata=metadata)
        for answer in models:
            call(handler, answer, metadata={"ls_provider": "router", "ls_model_name": "auto"})
    expected = {("acme", model): 2 for model in models} | {("router", m): 2 for m in models}
    assert calls(handler) == expected


def test_a_router_is_priced_by_who_answered() -> None:
    """Each answer of one requested model has the price of the model that gave it."""
    prices = PriceBook({"acme/a": {"input": 1, "output": 0}, "acme/b": {"input": 3, "output": 0}})
    prices.warm(wait=True)
    meter = Meter(prices=prices)
    for answer in ("a", "b", "a", "b"):
        call(meter, answer, metadata={"ls_provider": "acme", "ls_model_name": "auto"})
    costs = {name: stats.cost for (_, name), stats in meter.snapshot().models.items()}
    assert costs["b"] == 3 * costs["a"] > 0  # type: ignore[operator]


def test_a_new_price_holds_from_the_next_call_on() -> None:
    """A remembered answer is not priced by a card that was replaced."""
    prices = PriceBook({"acme/m": {"input": 1, "output": 0}})
    prices.warm(wait=True)
    meter = Meter(prices=prices)
    spent = []
    for price in (1, 1, 5, 5):
        prices.set("acme", "m", input=price, output=0)
        for _ in range(2):
            before = meter.cost.total_cost or 0
            call(meter, "m", metadata={"ls_provider": "acme", "ls_model_name": "m"})
            spent.append((meter.cost.total_cost or 0) - before)
    assert spent == [spent[0]] * 4 + [5 * spent[0]] * 4


def test_names_without_a_series_of_their_own_are_counted_each_time() -> None:
    """Names beyond `max_series`, and names that are cut, are counted as such at every use."""
    handler = TokenCountingCallback(max_series=2)
    for model, _ in itertools.product(("a", "b", "c" * 300), range(3)):
        call(handler, metadata={"ls_provider": "acme", "ls_model_name": model})
    snapshot = handler.snapshot()
    assert snapshot.totals.calls == 9
    assert snapshot.dropped["series_capped"] >= 6
    assert snapshot.dropped["labels_cut"] >= 3


def test_a_budget_judges_each_model_of_one_client_by_itself() -> None:
    """A budget of one model refuses its calls alone."""
    budget = Budget(calls=1, scope={"model": "dear"}, action="block")
    meter = Meter(budgets=[budget])
    for _ in range(2):
        call(meter, metadata={"ls_provider": "acme"}, invocation_params={"model_id": "cheap"})
    call(meter, metadata={"ls_provider": "acme"}, invocation_params={"model_id": "dear"})
    with pytest.raises(BudgetExceeded):
        call(meter, metadata={"ls_provider": "acme"}, invocation_params={"model_id": "dear"})


def test_prompts_are_kept_until_a_client_is_known_to_report_usage() -> None:
    """A prompt is needed where usage is missing, or where a stream may break."""
    handler = TokenCountingCallback()

    def kept(**given: Any) -> bool:
        run = uuid.uuid4()
        handler.on_chat_model_start(SERIALIZED, [["hi"]], run_id=run, metadata=metadata, **given)  # type: ignore[list-item]
        there = run.int in handler._services.prompts
        if given.get("name") == "streams":
            handler.on_llm_new_token("x", run_id=run)
        answer = response("m") if given.get("name") != "silent" else LLMResult(generations=[[]])
        handler.on_llm_end(answer, run_id=run)
        assert not handler._services.prompts
        return there

    metadata = {"ls_provider": "acme", "ls_model_name": "m"}
    assert [kept(), kept(), kept(name="silent"), kept(), kept()] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert [kept(name="streams"), kept(), kept()] == [False, True, True]


def test_who_wants_to_know_of_stalls_has_every_prompt_kept() -> None:
    """A stall names its run, whose id is kept beside its prompt."""
    meter = Meter(on_stall=print)
    call(meter, "m", metadata={"ls_provider": "acme", "ls_model_name": "m"})
    run = uuid.uuid4()
    metadata = {"ls_provider": "acme", "ls_model_name": "m"}
    meter.on_chat_model_start(SERIALIZED, [[]], run_id=run, metadata=metadata)
    assert run.int in meter._services.prompts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_counts_under_its_own_handles() -> None:
    """The handles of the parent's recorder mean nothing in a child, whose recorder begins anew."""
    handler = TokenCountingCallback()
    for model in ("x", "y", "m"):
        call(handler, model, metadata={"ls_provider": "acme", "ls_model_name": model})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            call(handler, "m", metadata={"ls_provider": "acme", "ls_model_name": "m"})
            os._exit(0 if calls(handler) == {("acme", "m"): 1} else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
