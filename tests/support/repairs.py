"""Models that repair defects, their prices, and what a meter says of the attempts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from langmeter import Meter, Snapshot
from langmeter.snapshot import DefectStats
from tests.support.models import chat_model

PRICES = {
    "openai/small": {"input": "1", "output": "2"},
    "openai/large": {"input": 10, "output": 20},
}


#: What a call costs: 100 input tokens and 40 output tokens.
SMALL, LARGE = Decimal("0.00018"), Decimal("0.0018")


def model(name: str = "small", **more: Any) -> GenericFakeChatModel:
    """A priced model that answers at once."""
    llm = chat_model(metadata={"model_name": name, "model_provider": "openai"}, **more)
    llm.metadata = {"ls_provider": "openai", "ls_model_name": name}
    return llm


def failing(error: BaseException) -> Runnable[Any, Any]:
    """A step that raises."""

    def fail(value: Any) -> Any:
        raise error

    return RunnableLambda(fail)


def only(snapshot: Snapshot) -> DefectStats:
    """The one row there is."""
    [row] = snapshot.defects.values()
    return row


def outcomes(row: DefectStats) -> dict[str, int]:
    """Outcomes that are not 0."""
    return {name: n for name, n in row.outcomes.items() if n}


def attempted(meter: Meter, defect: str = "D", **about: Any) -> Any:
    """An attempt that has ended without a call."""
    with meter.defects.attempt(defect, **about) as attempt:
        pass
    return attempt
