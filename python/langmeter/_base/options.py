"""Options: what a setting may be, said once for keywords, files, variables and editors.

An option class is a frozen dataclass whose fields carry a `Rule` in their metadata:

    max_runs: int = field(default=65_536, metadata=whole(1, 16_777_216, "it caps …"))

Its `__post_init__` calls `check_options`, which holds every field to its rule and refuses all that
is wrong at once. `langmeter.config` reads the same rules for values of a file or the environment,
and makes the JSON schema for editors of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from langmeter._base.check import one_of, real_number, refusal, shown, whole_number
from langmeter.errors import ConfigError, Problem

_RULE: Final = "langmeter.rule"
#: A key that TOML writes without quotes.
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """The range of an option.

    Attributes:
        check: called with the name and a value given by keyword; returns the value to use, or
            raises ConfigError.
        schema: JSON schema of the value in a file; None where only a keyword can give it.
        read: called with the name, a value of a file (of a table: its instance of `table`) and the
            folder of that file, to which paths are relative; by default as `check`.
        table: option class that a table of a file is read as.
        is_list: whether a file has a list of such tables.
        make: called with an instance of `table` that a file gave; by default it is the value.
        variable: name of the environment variable behind the prefix; by default the option's.
    """

    check: Callable[[str, Any], Any]
    schema: Mapping[str, Any] | None = None
    read: Callable[[str, Any, Path], Any] | None = None
    table: type | None = None
    is_list: bool = False
    make: Callable[[Any], Any] | None = None
    variable: str | None = None

    def value_of(self, name: str, value: object, folder: Path) -> Any:
        """Return the value that a file or variable gives; raises ConfigError."""
        return self.check(name, value) if self.read is None else self.read(name, value, folder)


#: Metadata of a field with a rule.
Ruled: TypeAlias = Mapping[str, Rule]


def ruled(rule: Rule) -> Ruled:
    """Return the metadata of a field that is held to a rule."""
    return {_RULE: rule}


def held_to(rule: Ruled, name: str, value: object) -> Any:
    """Return an argument that fits a rule; raises ConfigError."""
    return rule[_RULE].check(name, value)


@cache
def _ruled_fields(options: Any) -> tuple[tuple[str, Rule, object], ...]:
    ruled_fields = [each for each in fields(options) if _RULE in each.metadata]
    return tuple((each.name, each.metadata[_RULE], each.default) for each in ruled_fields)


def rules_of(options: Any) -> dict[str, Rule]:
    """Return the rule of each field of an option class, by name."""
    return {name: rule for name, rule, _ in _ruled_fields(options)}


def check_options(options: Any) -> None:
    """Hold the fields of an instance to their rules; raises one ConfigError for all of them."""
    problems: list[Problem] = []
    kind: Any = type(options)
    for name, rule, default in _ruled_fields(kind):
        value = getattr(options, name)
        if value is default and rule.table is None:
            continue  # most fields, and a meter is made in 200 us
        try:
            checked = rule.check(name, value)
        except ConfigError as error:
            problems.extend(error.problems)
        else:
            if checked is not value:
                object.__setattr__(options, name, checked)
    if problems:
        raise ConfigError.of(problems)


def under(name: str, part: str | int) -> str:
    """Return the name of a setting inside of `name` as TOML writes it: `budgets[0]`, `a."b c"`."""
    if isinstance(part, int):
        return f"{name}[{part}]"
    plain = part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False)
    return f"{name}.{plain}" if name else plain


def names_in(value: object, name: str) -> Iterator[str]:
    """Yield the name of a setting and of everything inside of it."""
    yield name
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from names_in(inner, under(name, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from names_in(inner, under(name, number))


def unknown(
    name: str,
    value: object,
    last: str,
    names: Collection[str],
    *,
    remedy: str = "",
    prefix: str = "",
) -> ConfigError:
    """Return the error about a name that is none of `names`.

    Args:
        name: the name, with the tables that it is in.
        value: what it was set to.
        last: the part of it that is unknown.
        names: names that could be in its place.
        remedy: what to do; by default the name that is meant, if one is like it.
        prefix: beginning of all the names, which makes none like another.
    """
    bare = [each.removeprefix(prefix) for each in names]
    near = get_close_matches(last.removeprefix(prefix), bare, n=1)
    if not remedy and near:
        remedy = f"did you mean {f'{prefix}{near[0]}'!r}?"
    text, known = shown(value), ", ".join(names)
    message = f"unknown setting {name} = {text}; {remedy and f'{remedy} '}known are {known}"
    return ConfigError(message, (Problem(name, message, text, f"one of {known}", remedy),))


# --- rules ----------------------------------------------------------------------------------------


def whole(low: int, high: int | None = None, remedy: str = "") -> Ruled:
    """A whole number from `low` to `high`; None stands for no upper end."""
    schema = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
    return ruled(
        Rule(lambda name, value: whole_number(name, value, low, high, remedy=remedy), schema)
    )


def real(
    low: float, high: float, unit: str = "a number", remedy: str = "", *, optional: bool = False
) -> Ruled:
    """A number from `low` to `high`, as a float; None too where it is optional."""

    def check(name: str, value: object) -> float | None:
        if optional and value is None:
            return None
        return real_number(name, value, low, high, unit=unit, remedy=remedy)

    return ruled(Rule(check, {"type": "number", "minimum": low, "maximum": high}))


def choice(*choices: str) -> Ruled:
    """One of these texts."""
    return ruled(Rule(lambda name, value: one_of(name, value, choices), {"enum": list(choices)}))


def flag(remedy: str = "") -> Ruled:
    """True or False."""

    def check(name: str, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise refusal(name, "true or false", value, remedy)

    return ruled(Rule(check, {"type": "boolean"}))


def function(what: str = "a function of one argument") -> Ruled:
    """A function, or None; given by keyword only."""

    def check(name: str, value: object) -> object:
        if value is None or callable(value):
            return value
        raise refusal(name, f"{what}, or None", value)

    return ruled(Rule(check))


def group(options: type, *also: str | bool, optional: bool = False) -> Ruled:
    """An instance of an option class, or a table in a file; or one of the values `also`."""
    names = [*(repr(each) for each in also), f"a {options.__name__} (a table in a file)"]
    allowed = f"{', '.join(names[:-1])}{' or ' if also else ''}{names[-1]}"

    def check(name: str, value: object) -> object:
        if isinstance(value, options) or (optional and value is None):
            return value
        if any(type(value) is type(each) and value == each for each in also):
            return value
        raise refusal(name, allowed, value)

    return ruled(Rule(check, {"enum": list(also)} if also else {}, table=options))


def switchable(options: type) -> Ruled:
    """A part of a meter: an instance of its option class, True for the defaults, False for off."""
    of_group = group(options, True, False)[_RULE].check

    @cache
    def defaults() -> object:
        return options()

    def check(name: str, value: object) -> object:
        value = of_group(name, value)
        return defaults() if value is True else value

    return ruled(Rule(check, {"type": "boolean"}, table=options))
