"""Whether the pieces of a stream add up to its final message."""

from __future__ import annotations

import json
from typing import Any

from langmeter._base.text import as_text
from langmeter.streaming.events import Partial, ToolCall
from langmeter.usage import Usage

_THOUGHTS = ("reasoning", "thinking", "redacted")


def message_of(response: Any) -> Any:
    """The message of a response, or the generation of a text model's; None if it has none."""
    try:
        generation = response.generations[0][0]
    except (AttributeError, IndexError, TypeError):
        return None
    message = getattr(generation, "message", None)
    return generation if message is None else message


def mismatches(partial: Partial, message: Any, usage: Usage | None) -> tuple[str, ...]:
    """In what a stream and its final message differ: "text", "tool_calls", "usage".

    A text that was cut is not compared. Usage differs when the provider reports no output.
    """
    differences = []
    if not partial.cut and message is not None:
        if partial.text != as_text(text_of(message)):
            differences.append("text")
        if not _same_calls(partial.tool_calls, calls_of(message)):
            differences.append("tool_calls")
    if partial.events and usage is not None and not usage.output:
        differences.append("usage")
    return tuple(differences)


def text_of(message: Any) -> str:
    """The text of a message's answer, without its reasoning."""
    content = getattr(message, "content", None)
    if content is None:
        content = getattr(message, "text", "")
    if isinstance(content, str):
        return content
    return "".join(_text(block) for block in content) if isinstance(content, list) else ""


def _text(block: Any) -> str:
    if isinstance(block, dict):
        thought = str(block.get("type", "")).startswith(_THOUGHTS)
        block = None if thought else block.get("text")
    return block if isinstance(block, str) else ""


def calls_of(message: Any) -> tuple[ToolCall, ...]:
    """Return the tool calls of a message, also those whose arguments are not JSON."""
    kinds = ("tool_calls", "invalid_tool_calls")
    whole = [
        ToolCall(str(call.get("id") or ""), str(call.get("name") or ""), _json(call.get("args")))
        for kind in kinds
        for call in getattr(message, kind, None) or ()
    ]
    more = getattr(message, "additional_kwargs", None)
    old = more.get("function_call") if isinstance(more, dict) else None
    if not whole and isinstance(old, dict):
        whole.append(ToolCall("", str(old.get("name") or ""), _json(old.get("arguments"))))
    return tuple(whole)


def _json(args: Any) -> str:
    return args if isinstance(args, str) else json.dumps(args)


def _same_calls(told: tuple[ToolCall, ...], final: tuple[ToolCall, ...]) -> bool:
    def key(call: ToolCall) -> tuple[str, str, str]:
        return call.id, call.name, _normal(call.args)

    return sorted(map(key, told)) == sorted(map(key, final))


def _normal(args: str) -> str:
    """Arguments as JSON of one form; none at all are an empty object."""
    if not args:
        return "{}"
    try:
        return json.dumps(json.loads(args), sort_keys=True)
    except ValueError:
        return args


def completed(partial: Partial, message: Any) -> Partial:
    """With the arguments of tool calls that came without pieces, known from the final message."""
    if all(args for _, _, args in partial.calls):
        return partial
    final = {(call.id, call.name): call.args for call in calls_of(message)}
    calls = [(id_, name, args or final.get((id_, name), "")) for id_, name, args in partial.calls]
    return partial._replace(calls=calls)


def finish_reason(response: Any) -> str:
    """Why a model stopped, in its provider's word; "" if it does not say."""
    message = message_of(response)
    for holder in ("response_metadata", "generation_info"):
        metadata = getattr(message, holder, None)
        if isinstance(metadata, dict):
            for key in ("finish_reason", "stop_reason", "status"):
                reason = metadata.get(key)
                if reason and isinstance(reason, str):
                    return reason
    return ""


class _Answer:
    """Pieces as the response that never came, for the counting of tokens."""

    def __init__(self, partial: Partial) -> None:
        self.generations = [[self]]
        self.message = self
        self.content = partial.text
        self.tool_calls = [
            {"id": id_, "name": name, "args": args} for id_, name, args in partial.calls
        ]
        self.additional_kwargs = {"reasoning_content": partial.reasoning}


def response_or_collected(response: Any, partial: Partial | None) -> Any:
    """Return a response, or the pieces that were collected of one that broke off without text."""
    if partial is None or not partial.has_content:
        return response
    message = message_of(response)
    if message is not None and (text_of(message) or getattr(message, "content", None)):
        return response
    return _Answer(partial)
