"""A chat model that costs next to nothing: what is measured is LangChain and the handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

#: Tokens of a streamed answer; the usage follows in a chunk of its own, as OpenAI sends it.
TOKENS = 100
INPUT_TOKENS = 28
MODEL = "gpt-4o-mini"
ANSWERED_BY = "gpt-4o-mini-2024-07-18"
PROMPT: list[BaseMessage] = [HumanMessage("Explain what a histogram is, in a hundred tokens.")]

_ID = "chatcmpl-bench"


def _usage() -> UsageMetadata:
    return {
        "input_tokens": INPUT_TOKENS,
        "output_tokens": TOKENS,
        "total_tokens": INPUT_TOKENS + TOKENS,
        "input_token_details": {"audio": 0, "cache_read": 0},
        "output_token_details": {"audio": 0, "reasoning": 0},
    }


def _metadata(model: str) -> dict[str, Any]:
    return {
        "token_usage": {
            "completion_tokens": TOKENS,
            "prompt_tokens": INPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + TOKENS,
            "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
        },
        "model_provider": "openai",
        "model_name": model,
        "system_fingerprint": "fp_bench",
        "finish_reason": "stop",
        "service_tier": "default",
    }


# Made once: building a hundred chunks costs more than handing them to a handler. LangChain writes
# the same metadata into each of them again and merges them into a new one.
_CHUNKS = [
    ChatGenerationChunk(
        message=AIMessageChunk(
            content=f"word{i} ", id=_ID, response_metadata={"model_provider": "openai"}
        )
    )
    for i in range(TOKENS)
]


@cache
def _last(model: str) -> list[ChatGenerationChunk]:
    end = {
        "finish_reason": "stop",
        "model_name": model,
        "service_tier": "default",
        "model_provider": "openai",
    }
    return [
        ChatGenerationChunk(message=AIMessageChunk(content="", id=_ID, response_metadata=end)),
        ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                id=_ID,
                usage_metadata=_usage(),
                response_metadata={"model_provider": "openai"},
            )
        ),
    ]


class FakeChat(BaseChatModel):
    """Answers at once, or after `delay` seconds in async calls."""

    model: str = MODEL
    answered_by: str = ANSWERED_BY
    delay: float = 0.0
    #: Times that a streamed answer has its tokens, for one that is longer than its usage says.
    repeats: int = 1

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """As the real clients are: their start hooks see the constructor's arguments."""
        return True

    @property
    def _llm_type(self) -> str:
        return "fake-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name=self.model, ls_model_type="chat")

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        metadata = _metadata(self.answered_by)
        message = AIMessage(
            content="A histogram counts.",
            id=_ID,
            usage_metadata=_usage(),
            response_metadata=metadata,
        )
        return ChatResult(
            generations=[
                ChatGeneration(message=message, generation_info={"finish_reason": "stop"})
            ],
            llm_output=metadata,
        )

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        if self.delay:
            await asyncio.sleep(self.delay)
        return self._generate()

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for _ in range(self.repeats):
            yield from _CHUNKS
        yield from _last(self.answered_by)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(self.repeats):
            for chunk in _CHUNKS:
                yield chunk
        for chunk in _last(self.answered_by):
            yield chunk
