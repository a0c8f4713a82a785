"""The fix generator of the examples: real graph, real clients, real compiler and tests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from examples.fix_generator import defects, providers
from examples.fix_generator.__main__ import main

from langmeter import Snapshot

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler"),
]

OUTCOMES = {
    "right": ("fixed", True),
    "overfitted": ("fixed", False),
    "wrong": ("failed", None),
    "broken": ("does_not_compile", None),
}


@pytest.mark.parametrize("defect", defects.load(), ids=lambda defect: defect.id)
def test_each_proposal_does_what_it_is_called(defect: defects.Defect) -> None:
    """Right ones pass all tests, overfitted ones all but the later one, wrong ones fail some."""
    for kind, (outcome, holds) in OUTCOMES.items():
        code = getattr(defect, kind)
        assert defect.judge(code.strip("\n")).outcome == outcome, kind
        if holds is not None:
            assert defect.still_holds(code.strip("\n")) is holds, kind


def test_the_figures_are_what_the_providers_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts, outcomes, tokens and costs agree, with a provider that goes down."""
    spare = replace(providers.PROVIDERS["spare"], down_after=1)
    monkeypatch.setattr(providers, "PROVIDERS", {**providers.PROVIDERS, "spare": spare})
    file = tmp_path / "snapshot.json"
    assert main(["--rounds", "2", "--seed", "4", "--json", str(file)]) == 0
    assert "the providers know of exactly these" in capsys.readouterr().out
    snapshot = Snapshot.from_json(file.read_text())
    outcomes = [row.outcomes for row in snapshot.defects.values()]
    assert sum(row["infrastructure"] for row in outcomes) > 0
    assert {provider for _, provider, _, _ in snapshot.defects} > {"nim", "hosted", "strong"}
    fixed = sum(row["fixed"] for row in outcomes)
    assert 8 <= fixed <= 16
    assert sum(row.funnel["still_right"] for row in snapshot.defects.values()) == fixed


def test_it_stays_within_its_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the budget refuses is an attempt that failed by infrastructure, and costs nothing."""
    file = tmp_path / "snapshot.json"
    assert main(["--rounds", "1", "--budget", "0.005", "--json", str(file)]) == 0
    assert " budget" in capsys.readouterr().out
    cost = Snapshot.from_json(file.read_text()).totals.cost
    assert cost is not None
    assert cost <= Decimal("0.005")
