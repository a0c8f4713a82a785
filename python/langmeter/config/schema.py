"""Settings of files and variables, read by pydantic, and the JSON schema of them for editors.

The models are made of the option classes and their rules: nothing about a setting is said here. The
only module that imports pydantic; loaded where a file or a variable has settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    create_model,
)
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from langmeter._base.check import refusal
from langmeter._base.options import Rule, rules_of, under, unknown
from langmeter.errors import ConfigError, Problem

_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)
_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"


def read(
    options: type, tree: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the settings in a tree of TOML values that can be used, and what is wrong in it.

    Args:
        options: option class whose fields the keys are.
        tree: values as TOML has them.
        folder: folder that paths are relative to.
    """
    model = model_of(options)
    good, problems = dict(tree), []
    try:
        checked = model.model_validate(good, context=folder)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            problems += _problems(options, each)
            good.pop(str(each["loc"][0]), None)
        checked = model.model_validate(good, context=folder)
    return {name: getattr(checked, name) for name in checked.model_fields_set}, problems


def json_schema(options: type) -> dict[str, Any]:
    """Return the JSON schema of a file, for editors."""
    schema = _without_titles(model_of(options).model_json_schema())
    return {"$schema": _SCHEMA, **schema, "title": "langmeter.toml"}


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(each)
        for key, each in schema.items()
        if not (key == "title" and isinstance(each, str))
    }


@cache
def model_of(options: type) -> type[BaseModel]:
    """Return the model of a table whose keys are the fields of an option class."""
    about = _descriptions(options)
    keys: dict[str, Any] = {}
    for each in fields(options):
        rule = rules_of(options).get(each.name)
        if rule is not None and (rule.schema is not None or rule.table is not None):
            default = None if each.default is MISSING else each.default
            keys[each.name] = (
                Annotated[Any, _Read(each.name, rule)],
                Field(
                    None,
                    description=about.get(each.name),
                    json_schema_extra=partial(_tidy, default=default),
                ),
            )
    return create_model(options.__name__, __config__=ConfigDict(extra="forbid"), **keys)


def _tidy(schema: dict[str, Any], *, default: object) -> None:
    """Name the default where JSON has it."""
    schema.pop("default", None)
    if isinstance(default, bool | int | float | str):
        schema["default"] = default


def _descriptions(options: type) -> dict[str, str]:
    """Return what the docstring of an option class says of each of its attributes."""
    text = inspect.cleandoc(options.__doc__ or "")
    section = text.partition("Attributes:\n")[2].partition("\n\n")[0]
    return {name: " ".join(about.split()) for name, about in _ATTRIBUTE.findall(section)}


class _Read:
    """Reads the value of one key by its rule; a table of its own goes through its own model."""

    def __init__(self, name: str, rule: Rule) -> None:
        self._name = name
        self._rule = rule

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        table = self._rule.table
        if table is None:
            return core_schema.with_info_plain_validator_function(self._plain)
        inner = handler.generate_schema(model_of(table))
        of_table = core_schema.no_info_wrap_validator_function(self._table, inner)
        schema = core_schema.list_schema(of_table) if self._rule.is_list else of_table
        return core_schema.with_info_wrap_validator_function(self._group, schema)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        plain = dict(self._rule.schema or {})
        if self._rule.table is None:
            return plain
        nested = handler(schema["schema"])
        return {"anyOf": [plain, nested]} if plain else nested

    def _plain(self, value: Any, info: core_schema.ValidationInfo[Path]) -> Any:
        return self._rule.value_of(self._name, value, info.context or Path())

    def _group(self, value: Any, inner: Any, info: core_schema.ValidationInfo[Path]) -> Any:
        if isinstance(value, list if self._rule.is_list else dict):
            value = inner(value)
        return self._rule.value_of(self._name, value, info.context or Path())

    def _table(self, value: Any, inner: Any) -> Any:
        if not isinstance(value, dict):
            raise refusal("", "a table", value)
        model = inner(value)
        given = {name: getattr(model, name) for name in model.model_fields_set}
        assert self._rule.table is not None
        options = self._rule.table(**given)
        return options if self._rule.make is None else self._rule.make(options)


def _problems(options: type, error: Mapping[str, Any]) -> list[Problem]:
    """Return what pydantic found, in our form."""
    *outer, last = error["loc"]
    table = _name(outer)
    if error["type"] == "extra_forbidden":
        at = _table_at(options, outer)
        names = [*model_of(at).model_fields]
        remedy = _remedy(at, table, str(last))
        refused = unknown(under(table, last), error["input"], str(last), names, remedy=remedy)
        return list(refused.problems)
    cause = error.get("ctx", {}).get("error")
    if not isinstance(cause, ConfigError):
        return [Problem(under(table, last), f"{under(table, last)}: {error['msg']}")]
    problems = []
    for each in cause.problems:
        # A check names the key that it was called with; one of a whole table names keys inside.
        inside = each.key == str(last) or each.key.startswith((f"{last}.", f"{last}["))
        place = table if inside else under(table, last)
        key = f"{place}.{each.key}" if place and each.key else place or each.key
        gap = "" if each.message.startswith(" ") else ": "
        named = each.key and each.message.startswith(("unknown setting ", each.key))
        message = each.message.replace(each.key, key, 1) if named else f"{key}{gap}{each.message}"
        problems.append(each._replace(key=key, message=message))
    return problems


def _remedy(options: type, table: str, name: str) -> str:
    """Return where a key belongs that is unknown in a table; "" where that is not known."""
    if name in {each.name for each in fields(options)}:
        return "it is given by keyword only;"
    for group, rule in rules_of(options).items():
        if rule.table is None or rule.is_list:
            continue
        if name in model_of(rule.table).model_fields:
            return f"write it in [{under(table, group)}];"
        if name in {each.name for each in fields(rule.table)}:
            return "it is given by keyword only;"
    return ""


def _name(parts: Sequence[str | int]) -> str:
    name = ""
    for part in parts:
        name = under(name, part)
    return name


def _table_at(options: type, parts: Sequence[str | int]) -> type:
    for part in parts:
        if isinstance(part, str):
            options = rules_of(options)[part].table or options
    return options
