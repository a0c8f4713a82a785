"""Tokens of tools' definitions, for calls whose provider reports none.

For OpenAI's models by the rule of its cookbook ("How to count tokens with tiktoken", section 7),
which gives what the API bills for its example: 101 tokens with gpt-4o, 105 with gpt-4. It knows no
nested objects: their properties are counted like those around them. For others no rule is public;
they put the definition as JSON before the messages, with a framing of their own (Anthropic: 313 to
804 tokens): the JSON alone is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from langmeter import _core
from langmeter.usage.token_counters import TokenCounter, counted

#: Of the vocabulary of gpt-3.5 and gpt-4, and of those since.
_EACH: Final = {"cl100k_base": 10}
_EACH_SINCE: Final = 7
_END: Final = 12
_PROPERTIES: Final = 3
_PROPERTY: Final = 3
_CHOICES: Final = -3
_CHOICE: Final = 3


def tools_tokens(model: str, tools: Any, count: TokenCounter) -> int:
    """Tokens of definitions as `invocation_params["tools"]` has them; raises what `count` does."""
    definitions = [tool for tool in _list(tools) if isinstance(tool, dict)]
    if not definitions:
        return 0
    encoding = _core.encoding_for_model(model)
    if encoding is None:
        return sum(counted(count, _json(definition)) for definition in definitions)
    each = _EACH.get(encoding, _EACH_SINCE)
    return _END + sum(each + _function(definition, count) for definition in definitions)


def _function(tool: dict[str, Any], count: TokenCounter) -> int:
    # The Responses API has the function's fields in the tool itself.
    function = tool.get("function", tool)
    if not isinstance(function, dict) or "name" not in function:
        return counted(count, _json(tool))
    line = f"{_text(function.get('name'))}:{_text(function.get('description'))}"
    return counted(count, line) + sum(_properties(function.get("parameters"), count))


def _properties(schema: Any, count: TokenCounter) -> Iterator[int]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        return
    yield _PROPERTIES
    for name, definition in properties.items():
        inner = definition if isinstance(definition, dict) else {}
        if choices := _list(inner.get("enum")):
            yield _CHOICES
            yield from (_CHOICE + counted(count, str(choice)) for choice in choices)
        line = f"{name}:{_text(inner.get('type'))}:{_text(inner.get('description'))}"
        yield _PROPERTY + counted(count, line)
        yield from _properties(inner, count)
        yield from _properties(inner.get("items"), count)


def _text(value: Any) -> str:
    return value.removesuffix(".") if isinstance(value, str) else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _list(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else ()
