"""The option `budgets`: `Budget` objects by keyword, tables in a file, texts on a command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

from langmeter._base import scope
from langmeter._base.check import Refusals, refusal
from langmeter._base.options import Rule, check_options, ruled, rules_of, unknown
from langmeter.budgets import checks
from langmeter.budgets.budget import Budget
from langmeter.budgets.shared import checked_store
from langmeter.budgets.shared.periods import checked_zone
from langmeter.errors import ConfigError

#: Most budgets of one meter.
MAX_BUDGETS: Final = 64

_TEXTS: Final = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
_USD: Final = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}


def _optional(check: Any, schema: Mapping[str, Any]) -> Mapping[str, Rule]:
    """Return a rule that holds a value to a check of `Budget`; None if it is left out."""
    return ruled(Rule(lambda name, value: None if value is None else check(name, value), schema))


def _amount(unit: str, name: str, value: object) -> object:
    checks.checked_limit(unit, value)
    return value


def _unpriced(name: str, value: object) -> object:
    if isinstance(value, str) and value not in ("allow", "block"):
        checks.checked_limit("usd", value, name)
        return Decimal(value)
    return checks.checked_unpriced(name, value)


def _scoped(name: str, value: object) -> object:
    try:
        return scope.checked({name: value})[name]
    except ConfigError:
        raise refusal(name, "a text or several", value, "write e.g. 'openai'") from None


def _scope(name: str, value: object) -> object:
    if not isinstance(value, Mapping):
        raise refusal(name, "a table of keys of a call's metadata", value)
    return scope.checked(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTable:
    """A budget as files and command lines have it.

    Attributes:
        usd: US dollars, a text for an exact amount or a number.
        tokens: input and output tokens together.
        calls: calls that did not fail.
        per: period: "total", "minute", "hour", "day" or "month".
        provider: provider that it covers, or several; every one if left out.
        model: model as requested, or several; `gpt-4o*` covers the rest.
        tag: tag of the run, or several.
        scope: keys of the metadata of a call, each with a text or several.
        unpriced: calls without a price: "allow", "block", or US dollars that each one spends.
        at: fractions of the limit, up to 8, whose crossing is reported once a period.
        action: "warn" or "block".
        name: name in messages, and key in the store.
        store: address of the store that processes share it in; false for this process alone.
        on_store_loss: "block" or "local".
        time_zone: time zone of the periods of a budget with a store.
    """

    usd: Decimal | float | str | None = field(
        default=None, metadata=_optional(partial(_amount, "usd"), _USD)
    )
    tokens: int | None = field(
        default=None,
        metadata=_optional(partial(_amount, "tokens"), {"type": "integer", "minimum": 1}),
    )
    calls: int | None = field(
        default=None,
        metadata=_optional(partial(_amount, "calls"), {"type": "integer", "minimum": 1}),
    )
    per: Any = field(
        default=None, metadata=_optional(checks.checked_period, {"enum": list(checks.PERIODS)})
    )
    provider: Any = field(default=None, metadata=_optional(_scoped, _TEXTS))
    model: Any = field(default=None, metadata=_optional(_scoped, _TEXTS))
    tag: Any = field(default=None, metadata=_optional(_scoped, _TEXTS))
    scope: Any = field(
        default=None,
        metadata=_optional(_scope, {"type": "object", "additionalProperties": _TEXTS}),
    )
    unpriced: Any = field(
        default=None,
        metadata=_optional(_unpriced, {"anyOf": [{"enum": ["allow", "block"]}, *_USD["anyOf"]]}),
    )
    at: Any = field(
        default=None,
        metadata=_optional(
            checks.checked_fractions,
            {
                "type": "array",
                "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "maxItems": checks.MAX_THRESHOLDS,
            },
        ),
    )
    action: Any = field(
        default=None, metadata=_optional(checks.checked_action, {"enum": list(checks.ACTIONS)})
    )
    name: str | None = field(
        default=None, metadata=_optional(checks.checked_name, {"type": "string", "minLength": 1})
    )

    store: Any = field(
        default=None,
        metadata=_optional(
            checked_store, {"anyOf": [{"type": "string", "pattern": "^.+:/"}, {"const": False}]}
        ),
    )
    on_store_loss: Any = field(
        default=None, metadata=_optional(checks.checked_loss, {"enum": list(checks.LOSSES)})
    )
    time_zone: Any = field(
        default=None, metadata=_optional(checked_zone, {"type": "string", "minLength": 1})
    )

    def __post_init__(self) -> None:
        check_options(self)

    def budget(self) -> Budget:
        """Return a budget; raises ConfigError for values that contradict each other."""
        values = {key: getattr(self, key) for key in rules_of(type(self))}
        own = values.pop("scope") or {}
        named = {key: value for key in _SCOPES if (value := values.pop(key)) is not None}
        for key in own.keys() & named.keys():
            remedy = "leave one of them out"
            raise refusal(
                f"scope.{key}", "given once, as a key of the budget or of scope", own[key], remedy
            )
        given = {key: value for key, value in values.items() if value is not None}
        return Budget(scope={**own, **named}, **given)


#: Keys of a scope that have a name of their own in a table.
_SCOPES: Final = ("provider", "model", "tag")


def _check(name: str, value: object) -> tuple[Budget, ...]:
    if value is False:
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise refusal(name, "Budget objects", value, "pass [Budget(usd=5)], in a file [[budgets]]")
    budgets = tuple(value)
    refusals = Refusals()
    if len(budgets) > MAX_BUDGETS:
        with refusals.collect():
            raise refusal(
                name,
                f"at most {MAX_BUDGETS} budgets in one meter",
                len(budgets),
                "join some by a scope with several values",
            )
    for number, each in enumerate(budgets):
        with refusals.collect():
            if not isinstance(each, Budget):
                remedy = "pass e.g. [Budget(usd=5)]"
                raise refusal(f"{name}[{number}]", "Budget objects", each, remedy)
            if any(each is other for other in budgets[:number]):
                remedy = "name it once, or make a budget for each"
                raise refusal(f"{name}[{number}]", "another budget than those before", each, remedy)
    refusals.raise_all()
    return budgets


#: Rule of the option `budgets`.
BUDGETS: Final = ruled(
    Rule(
        _check,
        {"enum": [False]},
        table=BudgetTable,
        is_list=True,
        make=BudgetTable.budget,
    )
)


def parse_budget(text: str) -> Budget:
    """Read a budget as a command line has it: `usd=5,per=day,action=block`.

    Keys are those of a table in a file; a key of the metadata is written `scope.KEY`. Several
    values are separated by `|`. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    own: dict[str, tuple[str, ...]] = {}
    names = [*rules_of(BudgetTable)]
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise _malformed(text, f"{part.strip()!r} must be KEY=VALUE")
        inner = key.removeprefix("scope.") if key.startswith("scope.") else ""
        if key in values or inner in own:
            raise _malformed(text, f"{key!r} must be given once")
        if inner:
            own[inner] = tuple(value.split("|"))
        elif key not in names or key == "scope":
            names[names.index("scope")] = "scope.KEY"
            raise _malformed(text, str(unknown(key, value, key, names)))
        else:
            values[key] = _value(key, value)
    try:
        return BudgetTable(scope=own, **values).budget()
    except ConfigError as error:
        raise ConfigError(f"--budget {text!r}: {error}", error.problems) from None


def _value(key: str, text: str) -> Any:
    """Convert a text to the type that the table takes; its check refuses what does not convert."""
    try:
        if key in ("tokens", "calls"):
            return int(text)
        if key == "at":
            return tuple(map(float, text.split("|")))
    except ValueError:
        pass
    return tuple(text.split("|")) if key in _SCOPES else text


def _malformed(text: str, why: str) -> ConfigError:
    return ConfigError(f"--budget {text!r}: {why}; write e.g. usd=5,per=day,action=block")
