"""Settings of defect analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from langmeter._base.check import refusal
from langmeter._base.options import Rule, check_options, function, ruled, under

#: What the metadata of a run may say of an attempt, in the order that the native module reads.
FIELDS: Final = ("defect_id", "type", "severity", "language", "strategy", "number")


def _keys(name: str, keys: object) -> object:
    if not isinstance(keys, Mapping):
        raise refusal(name, f"a mapping of {', '.join(FIELDS)}", keys, 'e.g. {"type": "checker"}')
    for each, key in keys.items():
        if each not in FIELDS:
            raise refusal(name, f"a mapping of {', '.join(FIELDS)}", each)
        if not isinstance(key, str) or not key:
            raise refusal(under(name, each), "a text that is not empty", key)
    return keys


_KEYS: Final = ruled(
    Rule(
        _keys,
        {
            "type": "object",
            "properties": {name: {"type": "string", "minLength": 1} for name in FIELDS},
            "additionalProperties": False,
        },
    )
)


@dataclass(frozen=True)
class DefectOptions:
    """Settings of how attempts at defects are found and judged.

    Attributes:
        keys: what the metadata of a run calls `defect_id`, `type`, `severity`, `language`,
            `strategy` and `number`, where other names are wanted: `{"type": "checker"}`.
        outcome: called with what the run of an attempt returned: a chain's output, a model's
            message. Returns an outcome by its name ("fixed", "unparsable", …), True for fixed or
            False for failed, a `Fix`, or None for no verdict. `langmeter.defects.read_fix` is one.
            What it raises is counted in `dropped` and leaves the attempt without a verdict.

    Raises:
        ConfigError: a key of `keys` is unknown or its name is not a text; `outcome` is not
            callable.
    """

    keys: Mapping[str, str] = field(default_factory=dict, hash=False, metadata=_KEYS)
    outcome: Callable[[Any], Any] | None = field(
        default=None, metadata=function("a function of what a run returned")
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of the metadata, in the order of `FIELDS`."""
        return tuple(self.keys.get(name, name) for name in FIELDS)
