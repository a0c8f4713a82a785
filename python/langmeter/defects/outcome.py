"""Outcomes of attempts at defects, read from what a pipeline returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from langmeter import _core
from langmeter._base.check import real_number, refusal, whole_number

#: Every outcome of an attempt.
OUTCOMES: Final = _core.FIX_OUTCOMES
#: Sources of verdicts by strength, 5 the strongest; any other text ranks as `caller`.
SOURCES: Final = _core.FIX_SOURCES


@dataclass(frozen=True)
class Fix:
    """The verdict of an answer about a fix.

    Attributes:
        outcome: one of `OUTCOMES`; None without a verdict.
        score: quality from 0 to 1; None if unknown.
        confidence: what the model states of itself, 0 to 1; None where it states nothing. It never
            makes an attempt fixed.
        candidates: number of proposed changes.
        recommended: index of the recommended one; None without.
        source: whose verdict `outcome` is.
        reason: why, at most 64 characters; counted in `failure_reasons`, never exported.

    Raises:
        ConfigError: a value outside of its range.
    """

    outcome: str | None = None
    score: float | None = None
    confidence: float | None = None
    candidates: int = 0
    recommended: int | None = None
    source: str = "form"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.outcome is not None:
            checked_outcome(self.outcome)
        for name in ("score", "confidence"):
            if getattr(self, name) is not None:
                real_number(name, getattr(self, name), 0, 1)
        whole_number("candidates", self.candidates, 0)
        if self.recommended is not None:
            whole_number("recommended", self.recommended, 0)
        for name in ("source", "reason"):
            if not isinstance(getattr(self, name), str):
                raise refusal(name, "a text", getattr(self, name))


def checked_outcome(outcome: object) -> str:
    """Return the name of an outcome; raises ConfigError, a ValueError, for any other value."""
    if isinstance(outcome, str) and outcome in OUTCOMES:
        return outcome
    raise refusal("outcome", f"one of {', '.join(OUTCOMES)}", outcome)


def fix_of(result: Any) -> Fix:
    """Return what the function `DefectOptions.outcome` returned as a `Fix`."""
    if isinstance(result, Fix):
        return result
    if result is None:
        return Fix()
    if isinstance(result, bool):
        return Fix("fixed" if result else "failed", source="caller")
    return Fix(checked_outcome(result), source="caller")


def read_fix(output: Any) -> Fix:
    """Read the answer of a fix generator.

    Takes a pydantic model, a mapping, a JSON text, or a message whose content is one, with any of
    `success` (bool), `confidence` (0 to 1), `fix_candidates` (a list of `fix_code`, `line_ranges`,
    …) and `recommended_fix_index`. Without `success` an answer with candidates has no verdict so
    far; one with an empty list is `empty`, and one that has none of these fields is `unparsable`.
    Of the state of a graph or an agent its `structured_response` is read, else its last message.
    """
    fields = _answered(_fields(output))
    if fields is None or not fields.keys() & {"success", "fix_candidates"}:
        return Fix("unparsable")
    listed = fields.get("fix_candidates")
    candidates = listed if isinstance(listed, list | tuple) else ()
    count = len(candidates)
    outcome = None
    if "fix_candidates" in fields and not count:
        outcome = "empty"
    if isinstance(fields.get("success"), bool):
        outcome = "fixed" if fields["success"] else outcome or "failed"
    recommended = fields.get("recommended_fix_index")
    if not _is_index(recommended, count):
        recommended = 0 if count == 1 else None
    confidence = _share(fields.get("confidence"))
    if confidence is None and recommended is not None:
        confidence = _share((_fields(candidates[recommended]) or {}).get("confidence"))
    return Fix(outcome, None, confidence, count, recommended)


def _answered(fields: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the fields of the answer that the state of a graph holds; those of an answer as is."""
    if fields is None or fields.keys() & {"success", "fix_candidates"}:
        return fields
    if fields.get("structured_response") is not None:
        return _fields(fields["structured_response"])
    match fields.get("messages"):
        case [*_, last]:
            return _fields(last)
    return fields


def _fields(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of an object, a mapping or a JSON text; None where it has none."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    text = getattr(value, "content", value)
    if callable(dump) and text is value:
        dumped = dump()
        return dumped if isinstance(dumped, Mapping) else None
    if isinstance(text, str | bytes):
        try:
            parsed = json.loads(_without_fence(text if isinstance(text, str) else text.decode()))
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, Mapping) else None
    return None


def _without_fence(text: str) -> str:
    """Return the text inside of a Markdown fence, which models put around JSON."""
    text = text.strip()
    if not text.startswith("```"):
        return text
    return text.partition("\n")[2].rpartition("```")[0]


def _is_index(value: object, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _share(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value <= 1 else None  # type: ignore[arg-type,operator]
