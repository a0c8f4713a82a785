"""The contract of snapshots: the published schema, and files of every format there has been."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from langmeter import Snapshot
from langmeter.snapshot import FORMAT
from langmeter.snapshot.schema import json_schema
from tests.support.pages import ROOT
from tests.support.simulated import calls
from tests.support.traffic import Traffic

#: One file a format, JSON and bytes of one snapshot; a new format adds its own and removes none.
FORMATS = Path(__file__).parent / "formats"
#: Those that are written still: 3 where no labels are declared, and the newest.
FORMATS_WRITTEN = (3, FORMAT)
#: Formats 1 and 2 were never published.
FIRST = 3
SCHEMA: dict[str, Any] = json.loads(
    (ROOT / "docs/reference/snapshot.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


def test_the_published_schema_is_that_of_the_code() -> None:
    """`json_schema()` with an indent of 2 is the file."""
    assert json_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "snapshot",
    [Snapshot(), calls([1.0], gaps=3), Traffic().everything(20).snapshot()],
    ids=["empty", "stream", "everything"],
)
def test_what_is_written_is_of_the_schema(snapshot: Snapshot) -> None:
    """An independent validator accepts the text, and the difference and sum of two."""
    for each in (snapshot, snapshot + snapshot, snapshot - snapshot):
        VALIDATOR.validate(json.loads(each.to_json()))


def test_the_schema_refuses_other_texts() -> None:
    """It is closed: an unknown field, counter or kind, or a wrong type, is an error."""
    text = Traffic().everything(20).snapshot().to_json()
    changes: list[tuple[Any, ...]] = [
        ("format", 2),
        ("note", "mine"),
        ("in_flight", 0.5),
        ("models", 0, "cost_usd", 1.5),
        ("models", 0, "counters", {"calls": 1}),
        ("components", 0, "kind", "model"),
        ("others", 0, "key", 7),
        ("models", 0, "latency", {"count": 1}),
    ]
    for *places, last, value in changes:
        data = json.loads(text)
        inner = data
        for place in places:
            inner = inner[place]
        inner[last] = value
        assert list(VALIDATOR.iter_errors(data)), (places, last)


def test_every_format_has_a_file() -> None:
    """A change of the format without a file of it is not finished."""
    assert {path.name for path in FORMATS.iterdir()} == {
        f"{version}.{suffix}" for version in range(FIRST, FORMAT + 1) for suffix in ("json", "bin")
    }


@pytest.mark.parametrize("version", range(FIRST, FORMAT + 1))
def test_files_of_every_format_are_read(version: int) -> None:
    """JSON and bytes are the same snapshot, with the figures that it was written with."""
    text = (FORMATS / f"{version}.json").read_text(encoding="utf-8")
    snapshot = Snapshot.from_json(text)
    assert snapshot == Snapshot.from_bytes((FORMATS / f"{version}.bin").read_bytes())
    assert snapshot.totals.calls == 88
    assert snapshot.totals.cost == Decimal("0.082")
    assert snapshot.models["openai", "gpt-4o"].latency.quantile(0.95) == pytest.approx(3.75, 0.01)
    assert snapshot.labels["team", "search"].calls == 44
    assert snapshot.failures["openai/gpt-4o", "RateLimitError 429"] == 2
    assert snapshot.defects["leak", "openai", "gpt-4o", "high"].fixed == 2
    assert snapshot.components["tool", "search"].calls == 20
    assert len(snapshot.anomalies) == 1
    written = json.loads(text)
    again = json.loads(snapshot.to_json())
    if version in FORMATS_WRITTEN:
        assert {**again, "langmeter": written["langmeter"]} == written
