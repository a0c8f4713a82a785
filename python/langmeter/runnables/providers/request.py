"""Needs of a call, read from its input without a copy; and cache marks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables.config import var_child_runnable_config

from langmeter.defects.attempt import current_type

#: Characters of an average token; models differ by `token_counters.ratio_of`.
CHARACTERS_A_TOKEN: Final = 4
#: Where a call names its conversation.
_THREADS: Final = ("thread_id", "conversation_id", "session_id")
_IMAGES: Final = frozenset({"image", "image_url", "input_image"})
#: Keys of content blocks that tell one provider what to cache, and the providers that know them.
MARKS: Final[Mapping[str, frozenset[str]]] = {
    "cache_control": frozenset({"anthropic", "aws.bedrock", "gcp.vertex_ai", "openrouter"}),
    "cachePoint": frozenset({"aws.bedrock"}),
    "cache_point": frozenset({"aws.bedrock"}),
}


_NO_MARKS: Final[frozenset[str]] = frozenset()


class Request(NamedTuple):
    """The needs of a call.

    Attributes:
        characters: length of the text of the prompt.
        images: whether the prompt has images.
        marks: the cache marks in it, keys of `MARKS`.
        thread: id of the conversation; "" without one.
        defect_type: type of the defect that is to be fixed; "" outside of an attempt.
        streamed: whether the answer is streamed.
    """

    characters: int
    images: bool = False
    marks: frozenset[str] = _NO_MARKS
    thread: str = ""
    defect_type: str = ""
    streamed: bool = False


def read_request(
    prompt: Any,
    config: Any = None,
    *,
    streamed: bool = False,
    threads: bool = False,
    type_key: str = "",
) -> Request:
    """Return what a call with this input and this config needs; never raises for its content.

    The conversation is read if `threads` is true, the type of the defect if it has a key.
    """
    characters, images, marks = 0, False, None
    for message in _messages(prompt):
        # By attributes: `isinstance` of a message goes through pydantic, 1 µs each time.
        content = getattr(message, "content", message)
        if type(content) is str:
            characters += len(content)
            if not getattr(message, "additional_kwargs", None):
                continue
        for part in _parts(message, content):
            if isinstance(part, str):
                characters += len(part)
            elif isinstance(part, dict):
                text = part.get("text")
                characters += len(text) if isinstance(text, str) else 0
                images = images or part.get("type") in _IMAGES
                for mark in MARKS:
                    if mark in part:
                        marks = (marks or frozenset()) | {mark}
    thread = defect_type = ""
    if threads or type_key:
        config = config or var_child_runnable_config.get() or {}
        metadata, options = config.get("metadata") or {}, config.get("configurable") or {}
        if threads:
            values = (options.get(key) or metadata.get(key) for key in _THREADS)
            thread = str(next(filter(None, values), ""))
        if type_key:
            defect_type = str(metadata.get(type_key) or current_type())
    return Request(characters, images, marks or _NO_MARKS, thread, defect_type, streamed)


def _messages(prompt: Any) -> Collection[Any]:
    if type(prompt) is list:
        return prompt
    if isinstance(prompt, PromptValue):
        return prompt.to_messages()
    return prompt if isinstance(prompt, tuple) else (prompt,)


def _parts(message: Any, content: Any) -> Collection[Any]:
    """Return the blocks of a message of any form that LangChain takes, and its extra arguments."""
    if isinstance(message, BaseMessage):
        blocks = content if isinstance(content, list) else ()
        return [*blocks, message.additional_kwargs]
    if isinstance(message, dict):
        content = message.get("content")
        return [*(content if isinstance(content, list) else (content,)), {**message, "text": None}]
    if isinstance(message, tuple | list) and len(message) == 2:  # (role, content)
        content = message[1]
        return content if isinstance(content, list) else (content,)
    return ()


def without_marks(prompt: Any, foreign: Collection[str]) -> Any:
    """Return the input without the cache marks of other providers; the given one is not changed."""
    if isinstance(prompt, PromptValue):
        prompt = prompt.to_messages()
    if not isinstance(prompt, list | tuple):
        return prompt
    return [_clean_message(message, foreign) for message in prompt]


def _clean_message(message: Any, foreign: Collection[str]) -> Any:
    if isinstance(message, BaseMessage):
        extra = {k: v for k, v in message.additional_kwargs.items() if k not in foreign}
        update = {"content": _clean(message.content, foreign), "additional_kwargs": extra}
        return message.model_copy(update=update)
    if isinstance(message, dict):
        rest = {key: value for key, value in message.items() if key not in foreign}
        return {**rest, "content": _clean(message.get("content"), foreign)}
    if isinstance(message, tuple | list) and len(message) == 2:
        return (message[0], _clean(message[1], foreign))
    return message


def _clean(content: Any, foreign: Collection[str]) -> Any:
    if not isinstance(content, list):
        return content
    blocks = []
    for block in content:
        if isinstance(block, dict) and any(mark in block for mark in foreign):
            rest = {key: value for key, value in block.items() if key not in foreign}
            if not rest.keys() - {"type"}:
                continue  # a block that is nothing but the mark
            blocks.append(rest)
        else:
            blocks.append(block)
    return blocks
