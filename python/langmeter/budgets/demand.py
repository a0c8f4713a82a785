"""What a call can use at its worst, from what its start hook is given.

Nobody has counted the prompt yet, and counting it would cost what the call should not wait for: the
bound is one token a byte of UTF-8. No byte-level vocabulary exceeds it: tiktoken's and DeepSeek's
have no exception in all of Unicode. One that rewrites the text before it looks at it can: that of
Claude 2 (NFKC) for 252 ligatures and their like, U+FDFA the worst with 15 tokens for 3 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langmeter.usage.provider_formats import tier_name

#: Where clients state how many tokens an answer may have.
_MAX_OUTPUT: Final = frozenset(
    (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_new_tokens",
        "max_tokens_to_sample",
        "num_predict",
        "maxTokens",
        "maxOutputTokens",
    )
)
#: And how many answers it is to give, each of them billed.
_ANSWERS: Final = frozenset(
    ("n", "best_of", "candidate_count", "num_generations", "num_return_sequences")
)
_TOOLS: Final = frozenset(("tools", "functions", "toolConfig"))
#: What else a client sends beside the messages that counts as input.
_ALSO_SENT: Final = _TOOLS | frozenset(
    (
        "response_format",
        "response_schema",
        "response_json_schema",
        "output_format",
        "output_config",
        "format",
        "text",
        "system",
        "system_instruction",
        "instructions",
        "documents",
        "nvext",
        "extra_body",
        "suffix",
    )
)
_TIER: Final = "service_tier"
#: Without one of these in its parameters a call is of the plain kind.
UNUSUAL: Final = _MAX_OUTPUT | _ANSWERS | _ALSO_SENT | {_TIER}

#: Tokens a chat adds to a message (3 or 4 at OpenAI), rounded up.
_PER_MESSAGE: Final = 16
#: Tokens taken for an image, a sound or a file: no bound, but above what most models charge.
_PER_MEDIUM: Final = 2048
#: What providers put before tools (Anthropic: up to 804 tokens), and bring with each of their own.
_FOR_TOOLS: Final = 1024
#: Messages that have nothing beside a content, a name and `additional_kwargs`.
_PLAIN: Final = frozenset(("human", "system"))
#: Kinds of blocks that are no text, and the keys under which such things stand or are to be had.
_MEDIA: Final = frozenset(
    ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "media")
)
_CARRIERS: Final = frozenset(
    ("data", "base64", "bytes", "url", "image_url", "file_data", "file_url", "file_uri", "uri")
)
#: Blocks that are text throughout, whatever their keys are called.
_ARGUMENTS: Final = frozenset(
    ("tool_use", "tool_call", "function_call", "server_tool_use", "thinking", "reasoning")
)


def input_bound(prompts: Any) -> int:
    """At least the tokens of these prompts or messages, media apart; may raise what they raise."""
    if type(prompts) is not list:
        return size(str(prompts))  # the inputs of a decision model
    total = 0
    for prompt in prompts:
        if type(prompt) is str:
            total += size(prompt) + _PER_MESSAGE
            continue
        for message in prompt if type(prompt) is list else (prompt,):
            # Not by attribute: pydantic takes 6 µs to say that a message has no tool calls.
            fields = message.__dict__
            content = fields["content"]
            if type(content) is str and content.isascii():
                total += len(content) + _PER_MESSAGE
            else:
                total += _content(content) + _PER_MESSAGE
            if fields["type"] not in _PLAIN or fields["additional_kwargs"] or fields["name"]:
                total += _beside(fields)
    return total


def beside_bound(params: Mapping[str, Any]) -> int:
    """At least the tokens of what goes with the messages: tools, schemas, instructions."""
    total = 0
    for name in _ALSO_SENT.intersection(params):
        sent = params[name]
        if name in _TOOLS and sent:
            total += _FOR_TOOLS
            total += sum(map(_tool, sent if isinstance(sent, list | tuple) else (sent,)))
        elif sent is not None:
            total += size(_written(sent))
    return total


def output_bound(params: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> int | None:
    """The most tokens that one answer may have; None where nothing says so."""
    named = _MAX_OUTPUT.intersection(params)
    if named:
        return max(filter(_is_count, map(params.__getitem__, named)), default=None)
    return usual_bound(metadata)


def usual_bound(metadata: Mapping[str, Any] | None) -> int | None:
    """The same without such a parameter: LangChain's own word, which finds nested ones."""
    most = metadata.get("ls_max_tokens") if metadata else None
    return most if type(most) is int and most > 0 else None


def answers(params: Mapping[str, Any]) -> int:
    """How many answers a call asks for, 1 or more."""
    return max(filter(_is_count, map(params.__getitem__, _ANSWERS.intersection(params))), default=1)


def tier_of(params: Mapping[str, Any]) -> str:
    """The service tier that a call asks for, as prices know it; "" for the standard one."""
    return tier_name(params.get(_TIER))


def size(text: str) -> int:
    """Bytes of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _written(value: Any) -> str:
    """A schema or a value as text; of a class its JSON schema, which is what a client sends."""
    schema = getattr(value, "model_json_schema", None)
    try:
        return str(schema() if callable(schema) else value)
    except Exception:  # of a class that has no schema: the client will say so
        return repr(type(value))


def _tool(tool: Any) -> int:
    own = isinstance(tool, dict) and not ("function" in tool or "parameters" in tool)
    # One that the provider runs is described by the provider: {"type": "web_search_20250305"}.
    brought = _FOR_TOOLS if own and "input_schema" not in tool else 0
    return _PER_MESSAGE + brought + size(_written(tool))


def _beside(fields: dict[str, Any]) -> int:
    """What a message has beside its content."""
    total = 0
    for key in ("name", "tool_call_id", "tool_calls", "invalid_tool_calls"):
        if more := fields.get(key):
            total += _PER_MESSAGE + size(str(more))
    if more := fields["additional_kwargs"]:
        total += _weight(more)
    return total


def _content(content: Any) -> int:
    return size(content) if type(content) is str else sum(map(_block, content))


def _block(block: Any) -> int:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind in _ARGUMENTS:
        return _PER_MESSAGE + size(str(block))
    weight = _weight(block)
    return _PER_MESSAGE + (max(weight, _PER_MEDIUM) if kind in _MEDIA else weight)


def _weight(value: Any) -> int:
    """Bytes of all texts in a value; for each medium `_PER_MEDIUM`, as base64 is no text."""
    if type(value) is str:
        return size(value)
    if isinstance(value, dict):
        text = value.get("type") == "text" or str(value.get("media_type")).startswith("text/")
        total = 0
        for key, inner in value.items():
            total += len(str(key)) + 1
            if key in _CARRIERS and not text and isinstance(inner, str | bytes):
                total += _PER_MEDIUM
            elif inner is not None:
                total += _weight(inner)
        return total
    if isinstance(value, list | tuple):
        return sum(map(_weight, value))
    return size(str(value))
