"""The events of one real call, recorded from LangChain once, to be played to a handler's hooks.

So millions of runs take seconds: what is left out is LangChain's own work, not a handler's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.utils.uuid import uuid7

from benches.model import ANSWERED_BY, PROMPT, FakeChat

Event = tuple[tuple[Any, ...], dict[str, Any]]


class _Tape(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: dict[str, Event] = {}

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events["start"] = args, kwargs

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.events.setdefault("token", (args, kwargs))

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events["end"] = args, kwargs


@dataclass(frozen=True)
class Events:
    """Start, first token and end of a streamed call."""

    start: Event
    token: Event
    end: Event

    @classmethod
    def of(cls, model: str = ANSWERED_BY, *, streamed: bool = True) -> Events:
        """Record a call that `model` answered; the end is that of an `invoke` unless streamed."""
        chat, ends = FakeChat(answered_by=model), _Tape()
        tape = _Tape()
        for _ in chat.stream(PROMPT, {"callbacks": [tape]}):
            pass
        chat.invoke(PROMPT, {"callbacks": [ends]})
        return cls(
            tape.events["start"], tape.events["token"], (tape if streamed else ends).events["end"]
        )

    def started(self, handler: BaseCallbackHandler) -> UUID:
        """A run of a fresh id begins."""
        run_id = uuid7()
        args, kwargs = self.start
        handler.on_chat_model_start(*args, **{**kwargs, "run_id": run_id})
        return run_id

    def streamed(self, handler: BaseCallbackHandler, run_id: UUID) -> None:
        """One token comes."""
        args, kwargs = self.token
        handler.on_llm_new_token(*args, **{**kwargs, "run_id": run_id})

    def ended(self, handler: BaseCallbackHandler, run_id: UUID) -> None:
        """The run ends."""
        args, kwargs = self.end
        handler.on_llm_end(*args, **{**kwargs, "run_id": run_id})
