"""The JSON schema for editors: that of the types, and judged by an independent validator."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from langmeter import ConfigError, MeterConfig
from langmeter._base.options import Rule, rules_of
from langmeter.budgets import BudgetTable
from langmeter.config.schema import json_schema, read
from langmeter.prices.card import KINDS
from tests.config.test_refusals import WRONG
from tests.config.test_sources import FILE
from tests.support.pages import ROOT, Page

SCHEMA: dict[str, Any] = json.loads(
    (ROOT / "docs/reference/langmeter.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_published_schema_is_that_of_the_types() -> None:
    """`langmeter config --schema > docs/reference/langmeter.schema.json` writes it anew."""
    assert json_schema(MeterConfig) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def _tables(options: type) -> Iterator[type]:
    yield options
    for rule in rules_of(options).values():
        if rule.table is not None:
            yield from _tables(rule.table)


@pytest.mark.parametrize("options", list(_tables(MeterConfig)), ids=lambda each: each.__name__)
def test_every_option_of_a_file_is_in_the_schema(options: type) -> None:
    """With a description, and its default where it has a plain one; and nothing else is."""
    schema = SCHEMA if options is MeterConfig else SCHEMA["$defs"][options.__name__]
    assert schema["additionalProperties"] is False
    rules = rules_of(options)
    names = [name for name, rule in rules.items() if _is_in_files(rule)]
    assert list(schema["properties"]) == names
    for each in fields(options):
        if each.name in names:
            entry = schema["properties"][each.name]
            assert entry["description"], each.name
            if isinstance(each.default, bool | int | float | str):
                assert entry["default"] == each.default


def _is_in_files(rule: Rule) -> bool:
    return rule.schema is not None or rule.table is not None


def test_every_kind_of_price_and_every_key_of_a_budget_is_in_the_schema() -> None:
    """As the rooms that own them have them."""
    (price,) = (
        each["additionalProperties"]
        for each in SCHEMA["properties"]["prices"]["anyOf"]
        if each["type"] == "object"
    )
    assert price["properties"].keys() == {*KINDS, "bands", "tiers", "source", "date"}
    assert SCHEMA["$defs"]["BudgetTable"]["properties"].keys() == rules_of(BudgetTable).keys()


def _table(text: str) -> dict[str, Any]:
    data = tomllib.loads(text)
    return data.get("langmeter", data)


def test_the_schema_takes_what_the_reader_takes() -> None:
    """The file of the guide, and one with everything."""
    page = Page("docs/guides/configuration.md")
    texts = [block.text for block in page.blocks if block.file == "langmeter.toml"]
    for text in [*texts, FILE]:
        VALIDATOR.validate(_table(text))
        assert read(MeterConfig, _table(text), Path())[1] == []


@pytest.mark.parametrize(
    "text",
    [
        *(f"{line}\n" for line in WRONG.split("\n\n")[0].splitlines()),
        'streams.collect = "yes"',
        "streams.delivery.queue_size = 0",
        'streams.delivery.when_full = "wait"',
        "streams.stall_after = 0.01",
        "streams = 5",
        'defects.keys.typ = "x"',
        "budgets = [5]",
        "budgets = [{ calls = 0 }]",
        'budgets = [{ calls = 1, per = "week" }]',
        'budgets = [{ calls = 1, period = "day" }]',
        "budgets = [{ calls = 1, at = [2] }]",
        "budgets = [{ calls = 1, scope = { team = 5 } }]",
        'prices."a/m" = { input = 1 }',
        'prices."a/m" = { input = -1, output = 1 }',
        'prices."a/m" = { input = 1, output = 1, inptu = 1 }',
        "prices.foo = { input = 1, output = 1 }",
        'prices."a/m" = { input = 1, output = 1, bands = [{ input = 1 }] }',
        "prices = 5",
        "token_counters.a = 5",
        'anomalies = "no"',
        'alerts = "cost > 1"',
        "alerts = [{ text = 5 }]",
        'alerts = [{ text = "cost > 1", min_count = 0 }]',
        'alerts = [{ text = "cost > 1", threshold = 2 }]',
        "sinks = 5",
        'alert_link = "board"',
        "history = 5",
        "history.interval = 0",
        'history = ""',
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    """An editor marks what `langmeter config --check` would."""
    table = _table(text)
    assert not VALIDATOR.is_valid(table)
    _, problems = read(MeterConfig, table, Path())
    assert problems
    with pytest.raises(ConfigError):
        raise ConfigError.of(problems)
