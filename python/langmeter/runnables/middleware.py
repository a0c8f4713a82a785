"""For `langchain.agents`: agents that run out of budget, and fallbacks that leave a refusal alone.

Needs the package `langchain` (1.0 or newer), and is not imported by anything else here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.messages import AIMessage

from langmeter.errors import BudgetExceeded

try:
    from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware
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
    `FallbackMiddleware` does not.
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


class FallbackMiddleware(ModelFallbackMiddleware):
    """Calls the next model where one fails; a refusal by a budget ends the call.

    LangChain's `ModelFallbackMiddleware` takes `BudgetExceeded` for one more failure, and goes on
    with the next model, and with spending. This one is made with the same arguments and does the
    same otherwise: `create_agent(model, tools, middleware=[FallbackMiddleware("openai:gpt-4o")])`.
    The exception reaches the caller, or `BudgetMiddleware` before this one.
    """

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call the models in turn until one answers, or a budget refuses the call."""

        def call(request: Any) -> Any:
            try:
                return handler(request)
            except BudgetExceeded as exc:
                raise _Refused(exc) from None

        try:
            return super().wrap_model_call(request, call)
        except _Refused as refused:
            exc = refused.exc
        raise exc  # outside of the handler, so that the carrier is not its context

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call the models in turn until one answers, or a budget refuses the call."""

        async def call(request: Any) -> Any:
            try:
                return await handler(request)
            except BudgetExceeded as exc:
                raise _Refused(exc) from None

        try:
            return await super().awrap_model_call(request, call)
        except _Refused as refused:
            exc = refused.exc
        raise exc  # outside of the handler, so that the carrier is not its context


class _Refused(BaseException):
    """Carries a refusal through `except Exception`; never leaves the middleware."""

    def __init__(self, exc: BudgetExceeded) -> None:
        super().__init__(exc)
        self.exc = exc
