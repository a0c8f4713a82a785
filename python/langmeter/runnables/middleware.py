"""For `langchain.agents`: an agent that runs out of budget ends, with an answer that says so.

Needs the package `langchain` (1.0 or newer), and is not imported by anything else here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import AIMessage

from langmeter.errors import BudgetExceeded

try:
    from langchain.agents.middleware import AgentMiddleware
except ImportError as exc:
    raise ImportError(
        "langmeter.runnables.middleware needs langchain: pip install 'langchain>=1.0'"
    ) from exc


class BudgetMiddleware(AgentMiddleware):
    """Ends an agent gracefully where a blocking budget refuses its next model call.

    `create_agent(model, tools, middleware=[BudgetMiddleware()])`, and a meter with budgets among
    the callbacks as ever. Instead of `BudgetExceeded` the caller gets the agent's state: everything
    it has found out, and a last message without tool calls, which is what ends an agent. That
    message holds the figures under `response_metadata["budget_exceeded"]`.

    Put it first: middleware that retries or falls back to another model then tries that before.
    """

    def __init__(self, message: Callable[[BudgetExceeded], str] = str) -> None:
        """`message` makes the text of the last message from the exception."""
        super().__init__()
        self._message = message

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call the model, or answer in its place."""
        try:
            return handler(request)
        except BudgetExceeded as exc:
            return self._answer(exc)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call the model, or answer in its place."""
        try:
            return await handler(request)
        except BudgetExceeded as exc:
            return self._answer(exc)

    def _answer(self, exc: BudgetExceeded) -> AIMessage:
        answer = {
            "budget": exc.budget,
            "limit": str(exc.limit),
            "spent": str(exc.spent),
            "resets_at": exc.resets_at and exc.resets_at.isoformat(),
        }
        return AIMessage(self._message(exc), response_metadata={"budget_exceeded": answer})
