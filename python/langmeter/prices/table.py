"""The price catalogue as plain data: what genai-prices' objects say, in lists that JSON can hold.

A provider is one line of JSON, read when one of its models is asked for and let go again: the whole
catalogue is 35,000 objects, its text 700 KB. Finding a model follows genai-prices 0.2 step by step;
a test compares the two for every name in the catalogue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any, Final, NamedTuple, TypeAlias

#: `[operator, text, …]`, true when one of the texts fits, or `["|" or "&", clause, …]`. An object
#: of a kind that is not known here stands for itself, and is asked by its `is_match`.
Clause: TypeAlias = Any
#: None (always), `["from", date]`, `["daily", time, time]`, or an object with `active`.
Constraint: TypeAlias = Any
#: Price key → USD, as text: one price, or `[base, [above, price], …]`.
PriceMap: TypeAlias = dict[str, Any]
#: The models of a provider: text, a line each, or as they are where text cannot hold them.
_Rows: TypeAlias = "bytes | list[Model]"

_OPERATORS: Final = {
    "ClauseEquals": ("=", "equals"),
    "ClauseStartsWith": ("^", "starts_with"),
    "ClauseEndsWith": ("$", "ends_with"),
    "ClauseContains": ("~", "contains"),
    "ClauseRegex": ("/", "regex"),
}
_GROUPS: Final = {"ClauseOr": ("|", "or_"), "ClauseAnd": ("&", "and_")}

#: The literal text that a regular expression begins with: asked first, because compiling the 73
#: expressions of the catalogue takes 40 ms and nearly no name needs one.
_LITERAL: Final = re.compile(r"\^((?:[a-z0-9/_-]|\\\.)+)(?![?*+{])")

_COMPACT_DATE: Final = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Model(NamedTuple):
    """A model on a provider's price list, in the order of the catalogue."""

    match: Clause
    id: str
    #: One map, or `[constraint, map]` pairs of which the last active one holds, else the first.
    prices: Any
    #: `[when, map, constraint]`: prices of requests of a kind, the first that names a key wins.
    variants: list[Any]
    comment: str
    context_window: int | None
    deprecated: bool


class Provider:
    """A price list: how it is found, and its models, which are read each time."""

    __slots__ = ("_rows", "fallbacks", "id", "match", "model_match")

    def __init__(
        self, id: str, match: Clause, model_match: Clause, fallbacks: list[str], rows: _Rows
    ) -> None:
        self.id = id
        #: Fits other names of the provider.
        self.match = match
        #: Fits names of models that are the provider's wherever they stand alone.
        self.model_match = model_match
        #: Ids of the providers whose models this one offers too.
        self.fallbacks = fallbacks
        self._rows = rows

    def models(self) -> list[Model]:
        """Return all models."""
        return [_read(row) for row in self._each()]

    def find(self, name: str) -> Model | None:
        """Return the first model that a name in lower case fits."""
        for row in self._each():
            # The clause alone: most rows are of other models. Objects that live as briefly as
            # this bring no garbage collection forward, which a list of them all would.
            clause = json.loads(row[: row.index(b"\t")]) if isinstance(row, bytes) else row.match
            if fits(clause, name):
                return _read(row)
        return None

    def _each(self) -> list[bytes] | list[Model]:
        rows = self._rows
        return rows.split(b"\n") if rows and isinstance(rows, bytes) else rows or []


def _read(row: bytes | Model) -> Model:
    if isinstance(row, Model):
        return row
    clause, _, rest = row.partition(b"\t")
    return Model(json.loads(clause), *json.loads(rest))


def _written(model: Model) -> bytes:
    """Return a model as text. Raises TypeError if it holds an object that text cannot."""
    clause, rest = (
        json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode()
        for part in (model.match, model[1:])
    )
    return clause + b"\t" + rest


class Found(NamedTuple):
    """A model that was found: on whose price list it was looked for, and whether it is on it."""

    table: Table
    provider: Provider
    model: Model
    #: False for a model of another provider's list: its prices hold, its variants don't.
    listed: bool


class Table(NamedTuple):
    """The catalogue: where it is from, and its providers in order."""

    source: str
    providers: list[Provider]

    def find(self, provider: str, model: str) -> Found | None:
        """Return the model that a name means; provider "" is told from the model's name."""
        name, who = model.lower(), provider
        if who.lower() == "litellm" and "/" in name:
            prefix, _, rest = name.partition("/")
            if prefix and self._provider(prefix):
                who, name = prefix, rest
        owner = self._provider(who) if who else None
        if owner is None and (not who or who.lower() == "litellm"):
            owner = next(
                (p for p in self.providers if p.model_match and fits(p.model_match, name)), None
            )
        if owner is None:
            return None
        dashed = _COMPACT_DATE.sub(_dashed, name)
        for form in (name,) if dashed == name else (name, dashed):
            for who in (owner.id, *owner.fallbacks):
                listed = who == owner.id
                lists = owner if listed else next((p for p in self.providers if p.id == who), None)
                if lists is not None and (row := lists.find(form)) is not None:
                    return Found(self, owner, row, listed)
        return None

    def _provider(self, name: str) -> Provider | None:
        plain = name.lower().strip()
        for provider in self.providers:
            if provider.id == plain:
                return provider
        return next((p for p in self.providers if p.match and fits(p.match, plain)), None)


def fits(clause: Clause, name: str) -> bool:
    """Return whether a name in lower case fits a clause."""
    if not isinstance(clause, list):
        return bool(clause.is_match(name))
    operator, *texts = clause
    match operator:
        case "=":
            return name in texts
        case "^":
            return name.startswith(tuple(texts))
        case "$":
            return name.endswith(tuple(texts))
        case "~":
            return any(text in name for text in texts)
        case "/":
            return any(re.search(text, name) for text in texts)
        case "|":
            return any(fits(inner, name) for inner in texts)
        case _:
            return all(fits(inner, name) for inner in texts)


def active(constraint: Constraint, moment: datetime) -> bool:
    """Return whether a constraint holds at a moment in UTC."""
    if constraint is None:
        return True
    if not isinstance(constraint, list):
        return bool(constraint.active(moment))
    if constraint[0] == "from":
        return moment.date() >= date.fromisoformat(constraint[1])
    begin, end = map(time_of_day, constraint[1:])
    now = moment.timetz().replace(tzinfo=None)
    return begin <= now < end if begin <= end else now >= begin or now < end


def time_of_day(text: str) -> time:
    """Return a time of day of the catalogue in UTC; without a zone it is in UTC already."""
    at = time.fromisoformat(text)
    if at.tzinfo is not None:
        at = datetime.combine(date(1970, 1, 1), at).astimezone(UTC).time()
    return at


def prices_at(model: Model, moment: datetime, context: dict[str, str]) -> PriceMap:
    """Return a model's prices at a moment in UTC, for a request of a kind."""
    standard: PriceMap
    if isinstance(model.prices, dict):
        standard = model.prices
    else:
        standard = next(
            (prices for when, prices in reversed(model.prices) if active(when, moment)),
            model.prices[0][1],
        )
    if not context:
        return standard
    changed: PriceMap = {}
    for when, prices, constraint in model.variants:
        if when.items() <= context.items() and active(constraint, moment):
            changed = prices | changed
    return standard | changed


def _dashed(found: re.Match[str]) -> str:
    try:
        return f"-{date(*map(int, found.groups())).isoformat()}"
    except ValueError:
        return found[0]


def from_objects(source: str, providers: Iterable[Any]) -> Table:
    """Build a table from genai-prices' objects, or from others with their names and attributes."""
    return Table(source, [_provider(provider) for provider in providers])


def _provider(it: Any) -> Provider:
    models = [_model(model) for model in it.models]
    try:
        rows: _Rows = b"\n".join(map(_written, models))
    except TypeError:  # an object of a kind that is not known here
        rows = models
    model_match = it.model_match and _clause(it.model_match)
    match = it.provider_match and _clause(it.provider_match)
    return Provider(it.id, match, model_match, list(it.fallback_model_providers or ()), rows)


def _model(it: Any) -> Model:
    listed = it.prices
    return Model(
        match=_clause(it.match),
        id=it.id,
        prices=[[_constraint(c.constraint), _prices(c.prices)] for c in listed]
        if isinstance(listed, list)
        else _prices(listed),
        variants=[
            [v.when, _prices(v.prices), _constraint(v.constraint)] for v in it.price_variants or ()
        ],
        comment=it.price_comments or "",
        context_window=it.context_window,
        deprecated=bool(it.deprecated),
    )


def _clause(it: Any) -> Clause:
    kind = type(it).__name__
    if kind in _OPERATORS:
        operator, field = _OPERATORS[kind]
        text = getattr(it, field)
        if operator != "/":
            return [operator, text.lower()]
        literal = None if "|" in text else _LITERAL.match(text)
        expression = [operator, text]
        return ["&", ["^", literal[1].replace("\\.", ".")], expression] if literal else expression
    if kind not in _GROUPS:
        return it
    operator, field = _GROUPS[kind]
    inner = [_clause(clause) for clause in getattr(it, field)]
    return _joined(inner) if operator == "|" else [operator, *inner]


def _joined(inner: list[Clause]) -> Clause:
    """Clauses of which one has to fit: texts of the same operator stand together."""
    same: dict[str, list[Any]] = {}
    rest = []
    for clause in inner:
        if isinstance(clause, list) and clause[0] in "=^$~/":
            same.setdefault(clause[0], [clause[0]]).extend(clause[1:])
        else:
            rest.append(clause)
    joined = [*same.values(), *rest]
    return joined[0] if len(joined) == 1 else ["|", *joined]


def _prices(it: Any) -> PriceMap:
    return {
        key: str(price) if not hasattr(price, "tiers") else _tiered(price)
        for key, price in it.__dict__.items()
        if price is not None and not key.startswith("_")
    }


def _tiered(it: Any) -> list[Any]:
    tiers = sorted(it.tiers, key=lambda tier: tier.start)
    return [str(it.base), *([tier.start, str(tier.price)] for tier in tiers)]


def _constraint(it: Any) -> Constraint:
    match type(it).__name__:
        case "StartDateConstraint":
            return ["from", it.start_date.isoformat()]
        case "TimeOfDateConstraint":
            return ["daily", it.start_time.isoformat(), it.end_time.isoformat()]
        case _:
            return it


def to_text(table: Table) -> bytes | None:
    """Return the providers as text; None if one holds an object that text cannot."""
    parts = []
    for provider in table.providers:
        rows = provider._rows
        head = [provider.id, provider.match, provider.model_match, provider.fallbacks]
        try:
            if isinstance(rows, bytes):
                parts.append(json.dumps(head).encode() + b"\n" + rows)
                continue
        except TypeError:
            pass
        return None
    return b"\x1e".join(parts)


def from_text(source: str, text: bytes) -> Table:
    """Return the table of a text that `to_text` gave."""
    providers = []
    for part in text.split(b"\x1e"):
        head, _, rows = part.partition(b"\n")
        name, match, model_match, fallbacks = json.loads(head)
        providers.append(Provider(name, match, model_match, fallbacks, rows))
    return Table(source, providers)
