"""Rows of labels: how they are named in a snapshot, and their sums by the names asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from langmeter import _core
from langmeter._base.check import refusal

_Name = TypeVar("_Name")

#: What every row has beside the values of its label.
MODEL: Final = ("provider", "model")


class LabelRow(NamedTuple):
    """The name of a row: of one value, or of several crossed, and of one model.

    Attributes:
        keys: keys of the label.
        values: the value of each; "" for the calls without one.
        model: provider and model; empty in a row that has neither: an older langmeter wrote it, or
            there was no room for a row of each model.
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    model: tuple[str, ...]

    @classmethod
    def of(cls, s: _core.SeriesStats) -> LabelRow:
        """Return the name of a series of labels."""
        keys = keys_in(s.a)
        parts = s.b.split(_core.SEPARATOR, len(keys) + 1)
        values = [*parts[: len(keys)], *("" for _ in keys[len(parts) :])]
        model = parts[len(keys) :]
        return cls(keys, tuple(values), (*model, "") if len(model) == 1 else tuple(model))


def keys_in(name: str) -> tuple[str, ...]:
    """Return the keys of a label, by the name that its rows have."""
    return tuple(name.split(_core.SEPARATOR))


def declared(snapshot: _core.Snapshot, series: Iterable[_core.SeriesStats]) -> list[frozenset[str]]:
    """Return the keys of each label that was declared, or has rows."""
    names = [*snapshot.labels, *(s.a for s in series)]
    return list(dict.fromkeys(frozenset(keys_in(name)) for name in names))


def check_names(names: Sequence[str], labels: Collection[Collection[str]]) -> frozenset[str]:
    """Return the keys among names, which are those of a label; empty for provider and model alone.

    Raises:
        ConfigError: names are missing, given twice, or not of one label.
    """
    if not names or len(set(names)) != len(names):
        raise refusal("by", "one name or several, each once", names)
    keys = frozenset(names) - frozenset(MODEL)
    if keys and keys not in labels:
        known = ", ".join(sorted("(" + ", ".join(sorted(label)) + ")" for label in labels))
        crossed = next(iter(keys)) if len(keys) == 1 else tuple(sorted(keys))
        raise refusal(
            "by",
            f"the keys of a declared label ({known or 'none is declared'}), provider, model",
            names[0] if len(names) == 1 else tuple(names),
            f"declare it: Meter(labels=[{crossed!r}])",
        )
    return keys


def rows_by(
    series: Iterable[_core.SeriesStats], names: Sequence[str], keys: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], _core.SeriesStats]]:
    """Yield the values of `names` and the figures of each row of the label with these keys."""
    for s in series:
        if not keys and s.kind == "model":
            row = LabelRow((), (), (s.a, s.b))
        elif keys and s.kind == "label" and keys == frozenset(keys_in(s.a)):
            row = LabelRow.of(s)
        else:
            continue
        model = row.model or ("", "")
        values = dict(zip((*row.keys, *MODEL), (*row.values, *model), strict=True))
        yield tuple([values[name] for name in names]), s


def merged(rows: Iterable[tuple[_Name, _core.SeriesStats]]) -> dict[_Name, _core.SeriesStats]:
    """Return the sums of rows with the same values."""
    groups: dict[_Name, list[_core.SeriesStats]] = {}
    for values, s in rows:
        groups.setdefault(values, []).append(s)
    return {values: _core.SeriesStats.merged(group) for values, group in groups.items()}
