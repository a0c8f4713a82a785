"""Responses of chat models, and the figures that are read from them."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langmeter.usage import Usage, read

RAW_OPENAI = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def figures(
    inputs: int, outputs: int, total: int | None = None, *, into: Any = None, out_of: Any = None
) -> dict[str, Any]:
    """LangChain's usage_metadata, details only where given."""
    made: dict[str, Any] = {
        "input_tokens": inputs,
        "output_tokens": outputs,
        "total_tokens": inputs + outputs if total is None else total,
    }
    if into is not None:
        made["input_token_details"] = into
    if out_of is not None:
        made["output_token_details"] = out_of
    return made


def chat(usage: Any = None, meta: Any = None, *, info: Any = None, llm_output: Any = None) -> Any:
    message = AIMessage(content="hello", response_metadata=meta or {})
    message.usage_metadata = usage  # past pydantic: what is wrong must get here too
    return LLMResult(
        generations=[[ChatGeneration(message=message, generation_info=info)]],
        llm_output=llm_output,
    )


def usage_of(response: Any) -> Usage:
    usage = read(response).usage
    assert usage is not None
    return usage
