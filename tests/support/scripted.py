"""Models that stream by a script, and a handler that records what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

Script = list[Any]


BROKEN = ConnectionError("the line is dead")


class Scripted(BaseChatModel):
    """Streams the pieces of a script, one script a call; an exception among them is raised."""

    scripts: list[Script]
    calls: list[dict[str, Any]] = []  # noqa: RUF012 (pydantic copies it)
    closed: list[str] = []  # noqa: RUF012
    tools: Any = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _next(self, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self.calls.append(kwargs)
        for piece in self.scripts.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            chunk = piece if isinstance(piece, AIMessageChunk) else AIMessageChunk(content=piece)
            yield ChatGenerationChunk(message=chunk)

    def _stream(self, *args: Any, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        try:
            for chunk in self._next(**kwargs):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except GeneratorExit:
            self.closed.append("sync")
            raise

    async def _astream(
        self, *args: Any, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        try:
            for chunk in self._next(**kwargs):
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
                await asyncio.sleep(0)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed.append("async")
            raise

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        text = "".join(chunk.text for chunk in self._next())
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self.bind(tools=tools, **kwargs)


class Recorder(BaseCallbackHandler):
    """Every start, end and event, as LangChain tells it."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.tags: list[list[str]] = []
        self.open: set[Any] = set()
        self.chains: dict[Any, str] = {}
        self.parents: list[str | None] = []
        self.metadata: list[dict[str, Any]] = []

    def on_chain_start(self, *args: Any, run_id: Any, name: str, **kwargs: Any) -> None:  # type: ignore[override]
        self.chains[run_id] = name
        self.open.add(run_id)

    def on_chain_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.open.remove(run_id)

    on_chain_error = on_chain_end

    def on_chat_model_start(  # type: ignore[override]
        self, *args: Any, run_id: Any, parent_run_id: Any, tags: list[str], metadata: Any, **kw: Any
    ) -> None:
        self.tags.append(tags)
        self.open.add(run_id)
        self.parents.append(self.chains.get(parent_run_id))
        self.metadata.append(metadata)

    def on_llm_end(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
        self.open.remove(run_id)

    on_llm_error = on_llm_end

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))


def texts(chunks: list[Any]) -> list[str]:
    return [chunk.text for chunk in chunks if chunk.text]


async def collect(runnable: Runnable[Any, Any], how: str, *args: Any, **kwargs: Any) -> list[Any]:
    """The chunks of a stream, sync or async."""
    if how == "stream":
        return list(runnable.stream(*args, **kwargs))
    return [chunk async for chunk in runnable.astream(*args, **kwargs)]


BOTH = pytest.mark.parametrize("how", ["stream", "astream"])
