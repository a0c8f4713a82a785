"""Estimated usage, for calls whose provider reports none: the texts, counted here.

A lower bound of what was billed: images, the framing of tool calls and hidden reasoning are not
guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from langmeter import _core
from langmeter._base.warn import LimitedWarnings
from langmeter.usage.token_counters import (
    Source,
    TokenCounter,
    counted,
    counters_of,
    exact_counter,
    own_counter,
    rough_counter,
)
from langmeter.usage.tool_tokens import tools_tokens
from langmeter.usage.types import Usage

# Where blocks of content have text; `content` is that of a tool's result.
_TEXT: Final = ("text", "content", "refusal")
_REASONING: Final = ("reasoning", "thinking", "summary")
_MAX_KNOWN: Final = 1024

#: Models of which it was said that they send no usage.
_warned: set[tuple[str, str]] = set()


def unpack_prompt(packed: Any) -> tuple[Any, Any, bool]:
    """Prompts, tools, and whether they went alone, of what a start hook keeps; `()` is nothing.

    That is the prompts, in a tuple if others went with them; with tools (prompts, tools, alone).
    """
    if type(packed) is not tuple:
        return packed, None, True
    if len(packed) == 3:
        return packed
    return packed[0] if packed else (), None, False


class TokenEstimator:
    """Counts prompts and answers; keeps nothing of them."""

    def __init__(self, counters: Mapping[str, Source] | None = None) -> None:
        """`counters`: see `langmeter.usage.token_counters`; raises ConfigError."""
        self._factories = counters_of(counters)
        self._known: dict[tuple[str, str], TokenCounter] = {}
        self._warnings = LimitedWarnings("models without usage")

    def count_in(self, recorder: _core.Recorder) -> None:
        """Count warnings that are not logged in a recorder."""
        self._warnings.count = partial(recorder.dropped, "warnings")

    def join(self, other: TokenEstimator) -> None:
        """Take over what `other` was given and this one was not."""
        self._factories = other._factories | self._factories
        self._known.clear()

    def counter(self, provider: str, model: str) -> TokenCounter:
        """Counter of a model: the user's, tiktoken's vocabulary, or a ratio over o200k_base."""
        count = self._known.get((provider, model))
        if count is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            count = self.exact_counter(provider, model) or rough_counter(model)
            self._known[provider, model] = count
        return count

    def exact_counter(self, provider: str, model: str) -> TokenCounter | None:
        """Return the counter of a model; None if it is neither exact nor the user's own."""
        return own_counter(self._factories, provider, model) or exact_counter(model)

    def input(self, provider: str, model: str, prompts: Any, tools: Any = ()) -> int:
        """Tokens of what a start hook got: texts, or lists of messages with the chat's overhead.

        And of the definitions of tools that went with them.

        Raises what the counter raises, ValueError where it counts fewer than 0.
        """
        count, overhead = self.counter(provider, model), _core.chat_overhead(model)
        tokens = sum(_prompt(prompt, count, overhead) for prompt in _list(prompts))
        return tokens + tools_tokens(model, tools, count) if tools else tokens

    def with_input(
        self, provider: str, model: str, prompts: Any, told: Usage, tools: Any = ()
    ) -> Usage:
        """Return the reported usage of a call with its input estimated.

        Raises as `input`.
        """
        tokens = self.input(provider, model, prompts, tools)
        return told._replace(input=tokens, total=told.total + tokens, estimated=tokens)

    def usage(
        self,
        provider: str,
        model: str,
        prompts: Any,
        response: Any,
        *,
        ended: bool,
        tools: Any = (),
    ) -> Usage | None:
        """Everything as estimated; None where there is nothing to count.

        `ended`: the call was answered, if with no text; else it counts only if text had come.
        Raises as `input`.
        """
        count = self.counter(provider, model)
        said = thought = 0
        for is_thought, text in _received(response):
            tokens = counted(count, text)
            said += tokens
            thought += tokens * is_thought
        if not said and not ended:
            return None
        input_tokens = self.input(provider, model, prompts, tools)
        total = input_tokens + said
        if not total:
            return None
        if ended:
            self._warn(provider, model)
        return Usage(
            input=input_tokens, output=said, total=total, reasoning=thought, estimated=total
        )

    def _warn(self, provider: str, model: str) -> None:
        """Name the remedy, once for each model and process."""
        if (provider, model) not in _warned and len(_warned) < _MAX_KNOWN:
            _warned.add((provider, model))
            self._warnings.warn(
                (provider, model),
                "%s sends no usage: its tokens are counted offline and marked estimated; "
                "ask for it, as ChatOpenAI(stream_usage=True) does for streams",
                "/".join(filter(None, (provider, model))) or "a model",
            )


def _prompt(prompt: Any, count: TokenCounter, overhead: tuple[int, int, int]) -> int:
    if isinstance(prompt, str):
        return counted(count, prompt)
    if not prompt or not isinstance(prompt, list | tuple):
        return 0
    per_message, per_name, tokens = overhead
    for message in prompt:
        tokens += per_message + 1  # the role's name is one token
        for text in _texts(getattr(message, "content", None), _TEXT):
            tokens += counted(count, text)
        for text in _calls(message):
            tokens += counted(count, text)
        name = getattr(message, "name", None)
        # That of a tool's message is not sent.
        if name and isinstance(name, str) and getattr(message, "type", None) != "tool":
            tokens += per_name + counted(count, name)
    return tokens


def _received(response: Any) -> Iterator[tuple[bool, str]]:
    """(whether it is reasoning, text) of all that a model gave."""
    for candidates in _list(getattr(response, "generations", None)):
        for candidate in _list(candidates):
            message = getattr(candidate, "message", None)
            if message is None:
                yield from ((False, text) for text in _texts(getattr(candidate, "text", None), ()))
                continue
            content = getattr(message, "content", None)
            yield from ((False, text) for text in _texts(content, _TEXT))
            yield from ((False, text) for text in _calls(message))
            more = getattr(message, "additional_kwargs", None)
            thoughts = more.get("reasoning_content") if isinstance(more, dict) else None
            if not isinstance(content, str):
                thoughts = thoughts or [
                    block for block in _list(content) if isinstance(block, dict)
                ]
            yield from ((True, text) for text in _texts(thoughts, _REASONING))


def _texts(content: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """The texts of a content, which is one, or a list of texts and of blocks that have some."""
    if isinstance(content, str):
        yield content
    for block in _list(content):
        if isinstance(block, str):
            yield block
        elif isinstance(block, dict):
            for key in keys:
                inner = block.get(key)
                # A summary of reasoning is a list of blocks with a text.
                yield from _texts(inner, _TEXT if isinstance(inner, list) else ())


def _calls(message: Any) -> Iterator[str]:
    """Names and arguments of the tool calls of a message, those of a broken stream as they came."""
    whole = [*_list(getattr(message, "tool_calls", None))]
    whole += _list(getattr(message, "invalid_tool_calls", None))
    for call in _list(getattr(message, "tool_call_chunks", None)) or whole:
        if isinstance(call, dict):
            for part in (call.get("name"), call.get("args")):
                if isinstance(part, str):
                    yield part
                elif part is not None:
                    yield json.dumps(part, ensure_ascii=False, separators=(",", ":"), default=str)


def _list(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else ()
