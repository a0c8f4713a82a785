"""Chat models for tests of several providers: what they answer and how they fail is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx2
import openai
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field


def refusal(status: int, *, body: Any = None, **headers: str) -> openai.APIStatusError:
    """The error of OpenAI's client for a status."""
    request = httpx2.Request("POST", "http://service/v1")
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, json=body or {}, headers=fields, request=request)
    return openai.OpenAI(api_key="x")._make_status_error_from_response(response)


class ScriptedChat(BaseChatModel):
    """Answers `text`; as long as `script` has entries, each call takes one of them.

    An entry is an exception to raise, a message or text to answer, or a list of pieces of a stream,
    in which exceptions are raised where they stand, and numbers are seconds of silence.
    """

    text: str = "fine"
    model: str = "chat-1"
    vendor: str = "acme"
    script: list[Any] = Field(default_factory=list)
    #: The messages and further arguments of each call.
    calls: list[Any] = Field(default_factory=list)
    usage: tuple[int, int, int] = (100, 10, 0)
    tools: bool = True

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider=self.vendor, ls_model_name=self.model, ls_model_type="chat"
        )

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        if not self.tools:
            raise NotImplementedError
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _entry(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> Any:
        self.calls.append((messages, kwargs))
        return self.script.pop(0) if self.script else self.text

    @property
    def _usage(self) -> Any:
        given, made, cached = self.usage
        details = {"cache_read": cached}
        counts = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
        return {**counts, "input_token_details": details}

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        entry = self._entry(messages, kwargs)
        if isinstance(entry, BaseException):
            raise entry
        if isinstance(entry, list):
            entry = "".join(piece for piece in entry if isinstance(piece, str))
        message = entry if isinstance(entry, AIMessage) else AIMessage(entry)
        message.usage_metadata = self._usage
        message.response_metadata = {"model_name": self.model}
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _pieces(self, entry: Any) -> Iterator[ChatGenerationChunk | float]:
        if isinstance(entry, BaseException):
            raise entry
        for piece in entry if isinstance(entry, list) else entry.split(" "):
            if isinstance(piece, BaseException):
                raise piece
            if isinstance(piece, float):
                yield piece
            else:
                text = piece if isinstance(entry, list) else f"{piece} "
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        end = AIMessageChunk(
            content="",
            usage_metadata=self._usage,
            response_metadata={"model_name": self.model, "finish_reason": "stop"},
        )
        yield ChatGenerationChunk(message=end)

    def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        import time

        for piece in self._pieces(self._entry(messages, kwargs)):
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                yield piece

    async def _astream(
        self, messages: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        import asyncio

        for piece in self._pieces(self._entry(messages, kwargs)):
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                yield piece
