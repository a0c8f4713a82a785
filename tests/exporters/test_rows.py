"""Tables: read back by the libraries that people read them with."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow.parquet
import pytest

from langmeter import ConfigError, Snapshot, sources
from langmeter.cli.main import main
from langmeter.exporters.rows import COLUMNS, rows, to_frame, write
from tests.support.traffic import Traffic

LIBRARIES = ("pandas", "polars", "pyarrow")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Traffic().everything(40).snapshot()


def _of_model(table: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = [row for row in table if row["kind"] == "model" and row["model"] == "gpt-4o"]
    return row


def test_a_row_has_the_figures_of_its_series(snapshot: Snapshot) -> None:
    """Every series is a row, and every row has every column."""
    table = rows(snapshot)
    assert {tuple(row) for row in table} == {COLUMNS}
    assert len(table) == len(snapshot.models) + len(snapshot.components) + len(
        snapshot.labels
    ) + len(snapshot.failures) + len(snapshot.defects)
    stats, row = snapshot.models["openai", "gpt-4o"], _of_model(table)
    assert row["cost_usd"] == stats.cost
    assert isinstance(row["cost_usd"], Decimal)
    assert (row["calls"], row["error"], row["input_tokens"]) == (45, 2, stats.tokens.input)
    assert row["latency_p95"] == stats.latency.quantile(0.95)
    assert row["time_to_fix_count"] is None
    assert row["taken_at"] == snapshot.taken_at
    (defect,) = [row for row in table if row["kind"] == "defect"]
    assert (defect["fixed"], defect["closed"], defect["severity"]) == (2, 4, "high")
    (silent,) = [row for row in table if row["model"] == "silent-1"]
    assert (silent["cost_usd"], silent["time_to_first_token_p50"]) == (None, None)
    assert silent["time_to_first_token_count"] == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_frames_have_the_same_figures(snapshot: Snapshot, library: str) -> None:
    """The library that is asked for, or the first that is installed."""
    table = to_frame(snapshot, library)
    columns = table.column_names if library == "pyarrow" else list(table.columns)
    assert columns == list(COLUMNS)
    names = ("model", "cost_usd")
    models, costs = (
        table[name].to_pylist() if library == "pyarrow" else list(table[name]) for name in names
    )
    assert costs[models.index("gpt-4o")] == float(snapshot.models["openai", "gpt-4o"].cost or 0)
    assert type(to_frame(snapshot)).__module__.startswith("pandas")
    with pytest.raises(ConfigError, match="library must be one of 'pandas'"):
        to_frame(snapshot, "numpy")


def test_json_lines_and_csv_are_exact(snapshot: Snapshot, tmp_path: Path) -> None:
    """Amounts keep their digits as texts; times are ISO 8601; nothing is a NaN."""
    write(snapshot, tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    row = _of_model([json.loads(line) for line in lines])
    stats = snapshot.models["openai", "gpt-4o"]
    assert Decimal(row["cost_usd"]) == stats.cost
    assert datetime.fromisoformat(row["taken_at"]) == snapshot.taken_at
    write(snapshot, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        row = _of_model(list(csv.DictReader(file)))
    assert Decimal(row["cost_usd"]) == stats.cost
    assert float(row["latency_p95"]) == stats.latency.quantile(0.95)
    frame = pandas.read_csv(tmp_path / "rows.csv")
    assert frame["calls"].sum() == sum(row["calls"] for row in rows(snapshot))
    assert len(polars.read_ndjson(tmp_path / "rows.jsonl")) == len(frame)


def test_parquet_has_the_same_types_whatever_is_in_it(snapshot: Snapshot, tmp_path: Path) -> None:
    """Files of several snapshots can be read as one, an empty one among them."""
    write(snapshot, tmp_path / "a.parquet")
    write(Snapshot(), tmp_path / "b.parquet")
    schemas = [pyarrow.parquet.read_schema(tmp_path / f"{name}.parquet") for name in "ab"]
    assert schemas[0] == schemas[1]
    frame = polars.read_parquet(tmp_path / "*.parquet")
    assert len(frame) == len(rows(snapshot))
    assert frame["taken_at"][0] == snapshot.taken_at
    row = _of_model(frame.to_dicts())
    assert row["cost_usd"] == float(snapshot.models["openai", "gpt-4o"].cost or 0)


def test_what_cannot_be_written_says_why(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another suffix, and Parquet without pyarrow."""
    with pytest.raises(ConfigError, match=r"path must be a file of \.jsonl, \.csv, \.parquet"):
        write(snapshot, tmp_path / "rows.xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        write(snapshot, tmp_path / "rows.parquet")


def test_the_command_writes_files(
    snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`langmeter export SOURCE -o FILE`; without a file, CSV to standard output."""
    source = tmp_path / "snapshot.json"
    source.write_text(snapshot.to_json(), encoding="utf-8")
    assert main(["export", str(source), "-o", str(tmp_path / "rows.csv")]) == 0
    text = (tmp_path / "rows.csv").read_text(encoding="utf-8")
    assert main(["export", str(source)]) == 0
    assert capsys.readouterr().out.splitlines() == text.splitlines()
    for arguments, message in (
        ([str(source), "-o", "rows.xlsx"], "path must be a file of"),
        ([str(source), "-o", str(tmp_path / "none" / "rows.csv")], "cannot write"),
        ([str(tmp_path / "none.json")], "cannot read"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["export", *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    assert sources.read(source) == snapshot
