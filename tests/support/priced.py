"""A model with a price, and budgets for it."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langmeter import Budget, Meter
from langmeter.prices import PriceBook


class Priced(FakeListChatModel):
    """A model that says which it is, asks for at most 100 tokens, and gives exactly those."""

    responses: list[str] = ["ok"]  # noqa: RUF012
    name_of_model: str = "big"
    fails: bool = False

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "acme", "ls_model_name": self.name_of_model}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"max_tokens": 100}

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        if self.fails:
            raise RuntimeError("no answer")
        usage: Any = {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110}
        told = {"model_name": self.name_of_model}
        message = AIMessage("ok", usage_metadata=usage, response_metadata=told)
        return ChatResult(generations=[ChatGeneration(message=message)])


#: 1 dollar per 1,000 tokens in and out.
ACME = PriceBook({"acme/*": {"input": 1000, "output": 1000}})


def blocking(**limit: Any) -> tuple[Budget, Meter]:
    """A budget that blocks, and the meter it belongs to."""
    budget = Budget(**limit, action="block")
    return budget, Meter(prices=ACME, budgets=[budget])
