"""Verdicts read from answers: outputs of chains, custom events and stated confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langmeter import Meter
from langmeter.defects import DefectOptions, Fix, read_fix
from tests.support.repairs import only, outcomes


class Candidate(BaseModel):
    """A proposed change."""

    fix_code: str
    line_ranges: list[dict[str, int]]
    confidence: float = 0.5


class Answer(BaseModel):
    """What a fix generator returns."""

    fix_candidates: list[Candidate]
    recommended_fix_index: int = 0
    success: bool | None = None
    confidence: float | None = None


CANDIDATES = [
    {"fix_code": "a", "line_ranges": [{"start": 1, "end": 2}], "confidence": 0.8},
    {"fix_code": "b", "line_ranges": []},
]


@pytest.mark.parametrize(
    ("output", "fix"),
    [
        ({"success": True, "confidence": 0.9}, Fix("fixed", None, 0.9)),
        ({"success": False}, Fix("failed")),
        ({"fix_candidates": []}, Fix("empty")),
        ({"fix_candidates": [], "success": False}, Fix("empty")),
        (
            {"fix_candidates": CANDIDATES, "recommended_fix_index": 0},
            Fix(None, None, 0.8, 2, 0),
        ),
        (
            {"fix_candidates": CANDIDATES, "recommended_fix_index": 7, "confidence": "high"},
            Fix(None, None, None, 2, None),
        ),
        ({"answer": 3}, Fix("unparsable")),
        ("not JSON", Fix("unparsable")),
        ("[1, 2]", Fix("unparsable")),
        (b"\xff\xfe", Fix("unparsable")),
        (None, Fix("unparsable")),
        ('```json\n{"success": true}\n```', Fix("fixed")),
        (AIMessage('{"success": true}'), Fix("fixed")),
        (
            Answer(fix_candidates=[Candidate(fix_code="x", line_ranges=[])], confidence=0.25),
            Fix(None, None, 0.25, 1, 0),
        ),
    ],
)
def test_answers_of_fix_generators_are_read(output: Any, fix: Fix) -> None:
    """Pydantic models, mappings, JSON and messages."""
    assert read_fix(output) == fix


def test_the_output_of_a_marked_chain_is_its_verdict() -> None:
    """The weakest one: any other says otherwise. What the reader raises is counted."""
    meter = Meter(defects=DefectOptions(outcome=read_fix))
    config: Any = {"callbacks": [meter]}

    def ask(output: Any, **metadata: Any) -> None:
        chain = RunnableLambda(lambda q: output) | RunnableLambda(lambda q: q)
        chain.invoke("q", config={**config, "metadata": metadata})  # type: ignore[arg-type]

    ask({"fix_candidates": CANDIDATES, "recommended_fix_index": 1}, defect_id="D1")
    ask({"success": True}, defect_id="D2")
    ask("sorry", defect_id="D3")
    ask("no mark")
    row = only(meter.snapshot())
    assert outcomes(row) == {"unverified": 1, "fixed": 1, "unparsable": 1}
    assert (row.candidates, row.funnel["parsed"], row.funnel["applied"]) == (2, 1, 0)

    def broken(output: Any) -> Any:
        raise ValueError("broken")

    meter = Meter(defects=DefectOptions(outcome=broken))
    config = {"callbacks": [meter]}
    ask("x", defect_id="D1")
    snapshot = meter.snapshot()
    assert (outcomes(only(snapshot)), snapshot.dropped) == (
        {"unverified": 1},
        {"callback_errors": 1},
    )


async def test_a_custom_event_judges_the_attempt_around_it() -> None:
    """In a marked chain and in a block; outside of both it counts a fix as before."""
    meter = Meter()

    def judge(data: Any) -> Any:
        dispatch_custom_event("langmeter.fix", data)
        return data

    async def ajudge(data: Any) -> Any:
        await adispatch_custom_event("langmeter.fix", data)
        return data

    config: Any = {"callbacks": [meter]}
    marked: Any = {**config, "metadata": {"defect_id": "D1"}}
    RunnableLambda(judge).invoke({"success": True, "score": 0.5}, config=marked)
    await RunnableLambda(ajudge).ainvoke({"outcome": "regressed", "source": "tests"}, config=marked)
    with meter.defects.attempt("D2"):
        RunnableLambda(judge).invoke({"success": False}, config=config)
    RunnableLambda(judge).invoke({"success": True, "kind": "syntax"}, config=config)
    snapshot = meter.snapshot()
    assert outcomes(only(snapshot)) == {"fixed": 1, "regressed": 1, "failed": 1}
    assert snapshot.components["fix", "syntax"].calls == 1
    assert meter.defects.success_rate == pytest.approx(2 / 3)
    assert not snapshot.dropped


def test_stated_confidence_never_makes_a_fix_and_is_compared_with_the_results() -> None:
    """Brier score and bins against numpy, from 30 stated confidences on."""
    meter = Meter()
    random = np.random.default_rng(3)
    stated = random.uniform(0, 1, 40)
    fixed = random.uniform(0, 1, 40) < stated
    for n, (confidence, right) in enumerate(zip(stated, fixed, strict=True)):
        with meter.defects.attempt(f"D{n}") as attempt:
            attempt.candidate(0, recommended=True, confidence=float(confidence))
        assert only(meter.snapshot()).fixed == int(fixed[:n].sum())
        if n == 29:
            assert only(meter.snapshot()).brier is None
            assert only(meter.snapshot()).reliability == ()
        if right:
            attempt.succeeded()
        else:
            attempt.failed()
    row = only(meter.snapshot())
    assert row.stated == 40
    assert row.brier == pytest.approx(np.mean((stated - fixed) ** 2), abs=1e-6)
    tenths = np.minimum((stated.astype(np.float32) * 10).astype(int), 9)
    expected = [
        (int((tenths == t).sum()), stated[tenths == t].mean(), fixed[tenths == t].mean())
        for t in range(10)
        if (tenths == t).any()
    ]
    got = [(bin_.count, bin_.confidence, bin_.fixed) for bin_ in row.reliability]
    assert got == [pytest.approx(each, abs=1e-5) for each in expected]
