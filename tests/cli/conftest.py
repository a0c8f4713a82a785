"""What tests of commands share: a snapshot, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from langmeter import Snapshot
from tests.support.traffic import Traffic


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """Figures of every kind."""
    return Traffic().everything(20).snapshot()


@pytest.fixture
def file(snapshot: Snapshot, tmp_path: Path) -> str:
    """The snapshot as a file."""
    path = tmp_path / "snapshot.json"
    path.write_text(snapshot.to_json(), encoding="utf-8")
    return str(path)
