"""Runs of a handler, event by event, and a listener that records them."""

from __future__ import annotations

import uuid
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from langmeter import StreamingCallback
from langmeter.streaming import StreamEvent, StreamFailure, StreamResult

METADATA = {"ls_provider": "p", "ls_model_name": "m"}


def lost(handler: Any) -> dict[str, int]:
    """What was dropped; a run without a provider is so fast that its figures may be clamped."""
    return {k: n for k, n in handler.snapshot().dropped.items() if k != "clamped"}


class Run:
    """A model call as LangChain's manager would report it, hook by hook."""

    def __init__(self, handler: Any, run_id: uuid.UUID | None = None) -> None:
        self.handler = handler
        self.run_id = run_id or uuid.uuid4()
        handler.on_chat_model_start({}, [[]], run_id=self.run_id, metadata=METADATA, batch_size=1)

    def token(self, token: Any = "", chunk: Any = None, **message: Any) -> None:
        if message or (chunk is None and isinstance(token, list)):
            content = message.pop("content", token)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=content, **message))
        self.handler.on_llm_new_token(token, chunk=chunk, run_id=self.run_id)

    def event(self, name: str, **data: Any) -> None:
        self.handler.on_stream_event({"event": name, **data}, run_id=self.run_id)

    def end(self, content: Any = "", **message: Any) -> None:
        generation = ChatGeneration(message=AIMessage(content, **message))
        self.handler.on_llm_end(LLMResult(generations=[[generation]]), run_id=self.run_id)

    def fail(self, error: BaseException, response: Any = None) -> None:
        self.handler.on_llm_error(error, run_id=self.run_id, response=response)


class Heard:
    """A `StreamingCallback` that writes down everything it is told."""

    def __init__(self, **more: Any) -> None:
        self.texts: list[str] = []
        self.events: list[StreamEvent] = []
        self.results: list[StreamResult] = []
        self.failures: list[StreamFailure] = []
        self.handler = StreamingCallback(
            self.texts.append,
            on_event=self.events.append,
            on_complete=self.results.append,
            on_error=self.failures.append,
            **more,
        )

    @property
    def said(self) -> list[tuple[str, str]]:
        """(kind, text) of each event."""
        return [(event.kind, event.text) for event in self.events]


def call(index: Any, args: str = "", name: str | None = None, id_: str | None = None) -> Any:
    return {"index": index, "args": args, "name": name, "id": id_, "type": "tool_call_chunk"}
