"""Scopes of budgets: which calls one covers, by provider, model, tags and metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, TypeAlias

from langmeter._base.check import refusal
from langmeter._base.options import under
from langmeter._base.provider_names import PROVIDER_NAMES, provider_name
from langmeter._core import text_of

#: Key → texts of which one has to match.
Scope: TypeAlias = dict[str, tuple[str, ...]]

_OF_MODEL: Final = ("provider", "model")


def checked(scope: Mapping[str, Any]) -> Scope:
    """The scope as given by the user, its texts as plain strings; raises ConfigError."""
    result: Scope = {}
    for key, value in scope.items():
        values = (value,) if isinstance(value, str) else value
        if (
            not isinstance(key, str)
            or not isinstance(values, Collection)
            or not values
            or not all(isinstance(v, str) for v in values)
        ):
            remedy = "pass e.g. scope={'model': 'gpt-4o'}"
            raise refusal(under("scope", str(key)), "a text or several", value, remedy)
        # Members of an enum of strings are what they equal, not what str() makes of them.
        result[str.__str__(key)] = tuple(map(str.__str__, values))
    return result


def covers_model(
    scope: Mapping[str, tuple[str, ...]], provider: str, model: str, vendor: str = ""
) -> bool:
    """Whether calls of this model are covered, tags and metadata apart.

    A provider matches by every name that LangChain, OpenTelemetry, LiteLLM and the price catalogue
    have for it, and where the user has one of their own by LangChain's too, `vendor`; a model by
    its name, or with the provider before it: `openai/gpt-4o`.
    """
    providers = names_of(provider) | names_of(vendor) if vendor else names_of(provider)
    if "provider" in scope:
        wanted = {name for value in scope["provider"] for name in _patterns(value)}
        if not _any_matches(providers, wanted):
            return False
    if "model" in scope:
        name = model.lower()
        names = {name, *(f"{p}{mark}{name}" for p in providers for mark in "/:")}
        if not _any_matches(names, {value.strip().lower() for value in scope["model"]}):
            return False
    return True


def covers_run(scope: Mapping[str, tuple[str, ...]], metadata: Any, tags: Any) -> bool:
    """Whether a call with these tags and this metadata is covered; raises what reading raises."""
    for key, values in scope.items():
        if key in _OF_MODEL:
            continue
        if key == "tag":
            if not any(isinstance(tag, str) and text_of(tag) in values for tag in tags or ()):
                return False
        elif not metadata or key not in metadata or text_of(metadata[key]) not in values:
            return False
    return True


def covers_all(scope: Mapping[str, tuple[str, ...]], names: Mapping[str, str]) -> bool:
    """Return whether all calls of a row of figures are covered.

    Args:
        scope: of a budget; without a key it covers everything.
        names: provider, model and keys of labels that the row is of, and their values. A scope with
            a key that is not among them covers a part of the row at most; so does one of tags.
    """
    if "tag" in scope or not scope.keys() <= names.keys():
        return False
    return covers_model(scope, names.get("provider", ""), names.get("model", "")) and all(
        names[key] in values for key, values in scope.items() if key not in _OF_MODEL
    )


def looks_at_runs(scope: Mapping[str, Any]) -> bool:
    """Whether more than provider and model counts."""
    return any(key not in _OF_MODEL for key in scope)


def looks_at_models(scope: Mapping[str, Any]) -> bool:
    """Whether provider or model counts."""
    return any(key in scope for key in _OF_MODEL)


@lru_cache(maxsize=256)
def names_of(provider: str) -> frozenset[str]:
    """Every name of a provider, in lower case."""
    ours = _patterns(provider)
    same = {alias for alias, name in PROVIDER_NAMES.items() if name in ours}
    return frozenset(same | ours)


def _patterns(name: str) -> set[str]:
    plain = name.strip().lower()
    return {plain, provider_name(plain)}


def _any_matches(names: Iterable[str], patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
