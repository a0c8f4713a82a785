"""The programs under examples run, and their databases hold what they say."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from langmeter.history import History
from tests.support.pages import ROOT, run

pytestmark = [pytest.mark.process, pytest.mark.clients]


@pytest.mark.parametrize(
    ("name", "output", "calls"),
    [
        ("history_graph", ["chat: 6 calls", "search: 4 calls"], 10),
        ("history_pool", ["gpt-4o-mini-2024-07-18: 12 calls"], 12),
    ],
)
def test_a_program_with_a_history_adds_to_it(
    name: str, output: list[str], calls: int, tmp_path: Path
) -> None:
    """Run twice, it has the calls of both runs."""
    command = f"{shlex.quote(sys.executable)} -W error {ROOT}/examples/{name}.py metrics.db"
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in output:
        assert line in done.stdout
    assert run(command, tmp_path).returncode == 0
    assert History(tmp_path / "metrics.db").snapshot().totals.calls == 2 * calls
