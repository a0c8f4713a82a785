"""Counters of the tokens of a text, without a network, by the name of the model.

OpenAI's vocabularies are in the native core and exact. For a model without a public one the count
of o200k_base is multiplied by what that model's tokens measure against it on the same texts:

| family                        | ratio | mean error |
| ----------------------------- | ----- | ---------- |
| Claude 3 to 4.6               | 1.19  | 6 %        |
| Claude 4.7 and later          | 1.53  |            |
| Llama 3 and 4                 | 1.00  |            |
| Mistral, Tekken vocabulary    | 1.06  |            |
| Mistral, older vocabulary     | 1.25  |            |
| DeepSeek                      | 1.04  |            |
| Qwen 2, 2.5 and 3             | 1.02  |            |
| Qwen 3.5 and later            | 1.09  |            |
| every other                   | 1.00  | unmeasured |
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.options import Rule, held_to, ruled, under
from langmeter.errors import ConfigError
from langmeter.usage.types import LIMIT


class TokenCounter(Protocol):
    """Tokens of a text, 0 or more; any function of one string that gives a whole number is one."""

    def __call__(self, text: str, /) -> int:
        """Count; what it raises is counted in `dropped["hook_errors"]` and leaves no estimate."""
        ...


#: What `token_counters` takes for a model: a function, "ctok", or the path of a tokenizer.json.
Source = TokenCounter | str | os.PathLike[str]

#: A counter for one of the models that it counts for.
Factory = Callable[[str], TokenCounter]

_BASE: Final = "o200k_base"
_CLAUDE: Final = re.compile(r"claude(?:-[a-z]+)*-(\d+)(?:[.-](\d{1,2}))?(?!\d)")
_QWEN: Final = re.compile(r"qwen-?(\d+)(?:[.p-](\d)(?!\d))?")
_OLD_MISTRAL: Final = re.compile(
    r"mixtral|mistral[:-]7b|mistral-tiny|(?:large|small)-(?:instruct-)?24\d\d|mathstral|codestral-2[24]"
)
_MISTRAL: Final = re.compile(r"(?:mis|mix|minis|pix|magis|devs|vox|codes|maths)tral")
#: The first versions with another vocabulary than those before.
_CLAUDE_NEXT: Final = (4, 7)
_QWEN_NEXT: Final = (3, 5)
_SEPARATORS: Final = re.compile(r"[/.:]")


def _check(name: str, value: object) -> object:
    """Return what maps beginnings of models' names to counters, or None; raises ConfigError."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        remedy = 'pass e.g. {"llama": "tokenizer.json"}'
        raise refusal(name, "a mapping of models' names to counters", value, remedy)
    for model, source in value.items():
        if not isinstance(model, str) or not model.strip():
            what = "named by the beginning of a model's name"
            raise refusal(under(name, str(model)), what, model)
        if not (isinstance(source, str | os.PathLike) or callable(source)):
            what = "a function of one string, the path of a tokenizer.json, or 'ctok'"
            raise refusal(under(name, model), what, source)
    return value


def _read(name: str, value: object, folder: Path) -> object:
    """Return the same with paths relative to the folder of the file that has them."""
    counters = _check(name, value)
    if not isinstance(counters, dict):
        return counters
    paths = {model: "ctok" if each == "ctok" else folder / each for model, each in counters.items()}
    for model, path in paths.items():
        if path != "ctok" and not Path(path).is_file():
            what = "the path of a tokenizer.json that is there, or 'ctok'"
            raise refusal(under(name, model), what, str(path))
    return paths


#: Rule of the option `token_counters`.
TOKEN_COUNTERS: Final = ruled(
    Rule(_check, {"type": "object", "additionalProperties": {"type": "string"}}, _read)
)


def counters_of(sources: Mapping[str, Source] | None) -> dict[str, Factory]:
    """Load what counts for which models, by the beginning of their names.

    Raises:
        ConfigError: a source cannot be loaded, or is not a source.
    """
    sources = held_to(TOKEN_COUNTERS, "token_counters", sources)
    return {name.strip().lower(): _loaded(name, source) for name, source in (sources or {}).items()}


def own_counter(factories: Mapping[str, Factory], provider: str, model: str) -> TokenCounter | None:
    """The user's counter for a model, of the longest fitting beginning of its name.

    The name is `model`, with or without `provider/` before it and with or without what stands
    before a `/`, `.` or `:` in it: "claude" fits "us.anthropic.claude-sonnet-4-20250514-v1:0".
    """
    if not factories:
        return None
    name = f"{provider}/{model}".lower()
    starts = (0, *(match.end() for match in _SEPARATORS.finditer(name)))
    fitting = [prefix for prefix in factories if any(name.startswith(prefix, at) for at in starts)]
    return factories[max(fitting, key=len)](model) if fitting else None


def exact_counter(model: str) -> TokenCounter | None:
    """The count of a model of OpenAI, as tiktoken counts it; None for others."""
    encoding = _core.encoding_for_model(model)
    return None if encoding is None else partial(_core.count_tokens, encoding=encoding)


def rough_counter(model: str) -> TokenCounter:
    """The ratio of the model's family over o200k_base."""
    ratio = ratio_of(model)
    return lambda text: round(ratio * _core.count_tokens(text, _BASE))


@lru_cache(maxsize=1024)
def ratio_of(model: str) -> float:
    """Tokens of a model for each of o200k_base: the table above, by name."""
    name = model.lower()
    if "claude" in name:
        return 1.53 if _version(_CLAUDE, name) >= _CLAUDE_NEXT else 1.19
    if "qwen" in name:
        return 1.09 if _version(_QWEN, name) >= _QWEN_NEXT else 1.02
    if "deepseek" in name:
        return 1.04
    if _MISTRAL.search(name):
        return 1.25 if _OLD_MISTRAL.search(name) else 1.06
    return 1.0


def counted(count: TokenCounter, text: str) -> int:
    """The tokens of a text, if that is what the counter gives; ValueError, TypeError if not."""
    tokens = operator.index(count(text)) if text else 0
    if not 0 <= tokens < LIMIT:
        raise ValueError(f"a token counter must count 0 to {LIMIT} tokens, not {tokens}")
    return tokens


def _version(pattern: re.Pattern[str], name: str) -> tuple[int, int]:
    match = pattern.search(name)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _loaded(name: str, source: Source) -> Factory:
    if source == "ctok":
        return _ctok(name)
    if isinstance(source, str | os.PathLike):
        count = _tokenizer(name, Path(source))
        return lambda model: count
    return lambda model: source


def _tokenizer(name: str, path: Path) -> TokenCounter:
    """A vocabulary of Hugging Face's format."""
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise ConfigError(
            f"token_counters[{name!r}] = {str(path)!r}: needs the package tokenizers; "
            "pip install tokenizers"
        ) from exc
    try:
        loaded: Any = Tokenizer.from_file(str(path))
    except Exception as exc:  # it raises nothing more special
        raise ConfigError(
            f"token_counters[{name!r}]: cannot load {str(path)!r}: {exc}; "
            "name a tokenizer.json as Hugging Face has it"
        ) from exc
    # Without the special tokens of the template: they belong to the chat, not to each text.
    return lambda text: len(loaded.encode(text, add_special_tokens=False))


def _ctok(name: str) -> Factory:
    """The reconstructed vocabularies of Claude.

    Only where asked for, though it is closer than the ratio: pure Python, it holds the GIL for
    10 ms a kilobyte, and 0.5 s when it first loads a vocabulary.
    """
    try:
        token_count: Any = import_module("ctok").token_count
    except ImportError as exc:
        raise ConfigError(
            f"token_counters[{name!r}] = 'ctok': needs the package ctok, on Python 3.12 or later; "
            "pip install ctok"
        ) from exc

    def counter(model: str) -> TokenCounter:
        version = "{}.{}".format(*max(_version(_CLAUDE, model.lower()), (3, 0)))
        # It counts a whole message; an "a" is one token in each of its vocabularies.
        frame = int(token_count("a", version)) - 1

        def count(text: str, /) -> int:
            return int(token_count(text, version)) - frame

        return count

    return counter
