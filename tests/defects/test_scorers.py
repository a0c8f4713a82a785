"""Scorers of fixes, on the real libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from langmeter import Meter
from langmeter.defects import Fix
from langmeter.defects.scorers import (
    Applies,
    Compiles,
    IsSmall,
    Limits,
    Parses,
    PassesTests,
    Proposal,
    RemovesDefect,
    score_fix,
)
from langmeter.errors import ConfigError
from tests.support.proposals import GOOD, C, proposal, scorer


def test_each_scorer_refuses_what_does_not_apply() -> None:
    """A change without a text has the same verdict from every scorer."""
    scorers = [
        Applies(),
        Parses(),
        Compiles(["cc"]),
        RemovesDefect(list, "x"),
        PassesTests((1, 1)),
        IsSmall(),
    ]
    for judge in scorers:
        assert judge(Proposal(C, "x", [(90, 91)])).outcome == "does_not_apply"
        assert judge(proposal(None)).outcome == "empty"
    assert Applies()(proposal()) == Fix(None, 1.0)


@pytest.mark.parametrize(
    ("name", "before", "code", "outcome", "score"),
    [
        ("x.c", C, GOOD, None, 1.0),
        ("x.c", C, "    return (*p;", "does_not_compile", 0.0),
        ("x.cpp", C, "    return p ? *p : int{};", None, 1.0),
        ("x.hpp", C, "    template<", "does_not_compile", 0.0),
        ("x.py", "a = 1\nb = 2\nc = 3\n", "c = 4", None, 1.0),
        ("x.py", "a = 1\nb = 2\nc = 3\n", "c = (", "does_not_compile", 0.0),
        ("x.py", "a = 1\nb = 2\nc = 3\n", "c = '\0'", "does_not_compile", 0.0),
        ("x.py", "a = 1\nb = 2\nc = 3\n", "-" * 200_000 + "1", "does_not_compile", 0.0),
        ("x.py", "print 1\nb = 2\nc = 3\n", "c = 4", "unscored", None),
        ("x.c", "BEGIN(\nEND)\n}{\n", "x", "unscored", None),
        ("x.rs", C, GOOD, "unscored", None),
    ],
)
def test_a_result_parses_or_does_not(
    name: str, before: str, code: str, outcome: str | None, score: float | None
) -> None:
    """Syntax errors count where the original has none; other languages are unscored."""
    fix = Parses()(proposal(code, before, name))
    assert (fix.outcome, fix.score) == (outcome, score)


def test_a_language_may_be_named() -> None:
    """The language of a header is not always in its name."""
    template = "    return std::max<int>(*p, 0); template<class T> T g();"
    assert Parses("cpp")(proposal("    return int{*p};", name="x.h")).score == 1.0
    assert Parses("c")(proposal(template, name="x.h")).score == 0.0
    with pytest.raises(ConfigError, match="language must be python, c, cpp or None, got 'rust'"):
        Parses("rust")


def test_a_small_change_scores_more() -> None:
    """Half of the score at `half` lines, removed and added ones counted."""
    assert IsSmall(2)(proposal()).score == 0.5
    assert IsSmall()(proposal()).score == 20 / 22
    long = "".join(f"{number}\n" for number in range(100_000))
    assert IsSmall(1)(Proposal(long, "x\ny\n", [(5, 5), (99_999, 99_999)])).score == 1 / 7
    with pytest.raises(ConfigError, match="half must be more than 0, got 0"):
        IsSmall(0)


@pytest.mark.parametrize(
    ("old", "new", "outcome", "score"),
    [
        (["leak", "x"], ["x"], "fixed", 1.0),
        (["leak"], ["y"], "regressed", 0.5),
        (["leak", "x"], ["x", "x", "y", "z"], "regressed", 0.25),
        (["leak"], ["leak"], "failed", 0.0),
        (["leak"], ["leak", "y"], "failed", 0.0),
        (["x"], [], "unscored", None),
    ],
)
def test_a_re_scan_compares_findings(
    old: list[str], new: list[str], outcome: str, score: float | None
) -> None:
    """Gone, gone with new ones, and still there; equal findings are counted one by one."""
    fix = RemovesDefect(lambda text: iter(old if text == C else new), "leak")(proposal())
    assert (fix.outcome, fix.score) == (outcome, score)
    assert fix.source == ("form" if outcome == "unscored" else "re-scan")


def _report(**tests: str) -> str:
    bodies = {"passed": "", "failed": "<failure/>", "error": "<error/>", "skipped": "<skipped/>"}
    cases = (
        f'<testcase classname="t" name="{name}">{bodies[kind]}</testcase>'
        for name, kind in tests.items()
    )
    return f'<testsuite name="s">{"".join(cases)}</testsuite>'


@pytest.mark.parametrize(
    ("after", "outcome", "score"),
    [
        (_report(a="passed", b="passed"), "fixed", 1.0),
        (_report(a="passed", b="skipped"), "fixed", 1.0),
        (_report(a="failed", b="passed"), "regressed", 0.5),
        (_report(a="passed", b="error"), "failed", 0.5),
        (_report(a="failed", b="failed"), "failed", 0.0),
        (_report(a="passed", b="passed", c="failed"), "failed", 2 / 3),
        (_report(a="skipped"), "unscored", None),
        (f"<testsuites>{_report(b='passed')}{_report(a='passed')}</testsuites>", "fixed", 1.0),
        ((3, 4), "failed", 0.75),
        ((4, 4), "fixed", 1.0),
        ((0, 0), "unscored", None),
    ],
)
def test_tests_judge(after: Any, outcome: str, score: float | None, tmp_path: Path) -> None:
    """Broken before and broken now are told apart; text, bytes, a path and a function are read."""
    old = _report(a="passed", b="failed")
    forms: list[Any] = [after, lambda _: after]
    if isinstance(after, str):
        path = tmp_path / "report.xml"
        path.write_text(after)
        forms += [after.encode(), path]
    for form in forms:
        fix = PassesTests(form, before=old)(proposal())
        assert (fix.outcome, fix.score) == (outcome, score)
        assert fix.source == ("form" if outcome == "unscored" else "tests")


def test_without_the_tests_of_the_original_nothing_is_a_regression() -> None:
    """A failed test may have failed before."""
    assert PassesTests(_report(a="failed", b="passed"))(proposal()).outcome == "failed"


@pytest.mark.parametrize("results", ["", "<a/>", "not XML", (5, 4), (True, 1), None, 0.5, b"\xff"])
def test_a_report_that_cannot_be_read_is_infrastructure(results: Any) -> None:
    """The checker failed, not the model."""
    assert score_fix(proposal(), [PassesTests(results)]).outcome == "infrastructure"


def test_scores_are_weighted() -> None:
    """The mean by weight, without scorers that have no score."""
    fix = score_fix(proposal(), [(scorer(None, 1.0), 3), scorer(None, 0.2), scorer("unscored")])
    assert fix == Fix("unscored")
    fix = score_fix(proposal(), [(scorer(None, 1.0), 3), scorer(None, 0.2), scorer()])
    assert fix == Fix(None, 0.8)


def test_the_first_that_disproves_ends_it() -> None:
    """What comes later is not called, and counts as 0."""
    calls = []

    def later(_: Proposal) -> Fix:
        calls.append(1)
        return Fix("fixed", 1.0)

    wrong = scorer("does_not_compile", 0.0, source="compile", reason="x")
    fix = score_fix(proposal(), [scorer("fixed", 1.0, source="tests"), wrong, (later, 2)])
    assert fix == Fix("does_not_compile", 0.25, source="compile", reason="x")
    assert not calls


def test_the_strongest_source_proves_the_fix() -> None:
    """Of verdicts for it the strongest counts, and a check that failed gives way."""

    def broken(_: Proposal) -> Fix:
        raise ConnectionError("analyser down")

    tests, scan = scorer("fixed", 1.0, source="tests"), scorer("fixed", 0.5, source="re-scan")
    assert score_fix(proposal(), [broken, tests, scan]) == Fix("fixed", 0.75, source="re-scan")
    fix = score_fix(proposal(), [Applies(), broken])
    assert fix == Fix("infrastructure", reason="ConnectionError: analyser down")


@pytest.mark.parametrize("result", [None, True, 0.7, "fixed"])
def test_a_scorer_that_returns_something_else_is_infrastructure(result: Any) -> None:
    """A score out of nothing would look like a verdict."""
    assert score_fix(proposal(), [lambda _: result]).outcome == "infrastructure"


def test_a_scorer_of_yours_may_read_the_text() -> None:
    """Where there is none, the verdict is that of the proposal."""
    own = [lambda it: Fix("fixed" if "p ?" in it.after else "failed", 1.0, source="reviewer")]
    assert score_fix(proposal(), own).outcome == "fixed"
    assert score_fix(proposal(""), own).outcome == "empty"


def test_an_interrupt_is_not_swallowed() -> None:
    """Ctrl-C in a long check ends the program, as elsewhere."""

    def interrupted(_: Proposal) -> Fix:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_fix(proposal(), [interrupted])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("whatthepatch", lambda: (Applies(), Proposal(C, "@@ -3 +3 @@\n-    return *p;\n+x\n"))),
        ("tree_sitter", lambda: (Parses(), proposal())),
        ("tree_sitter_c", lambda: (Parses(), proposal())),
        ("junitparser", lambda: (PassesTests(_report(a="passed")), proposal())),
    ],
)
def test_a_missing_library_is_named(
    name: str, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scorer called by itself says what to install; among others it is infrastructure."""
    monkeypatch.setitem(sys.modules, name, None)
    one, change = make()
    with pytest.raises(ImportError, match=rf'need {name}: pip install "langmeter\[defects\]"'):
        one(change)
    assert score_fix(change, [one]).outcome == "infrastructure"


@pytest.mark.process
def test_scorers_load_no_library_before_they_need_one() -> None:
    """Neither langmeter, its defects nor a scorer that was made loads a library of the extra."""
    code = (
        "import sys, langmeter, langmeter.defects\n"
        "assert 'langmeter.defects.scorers' not in sys.modules\n"
        "from langmeter.defects.scorers import *\n"
        "Applies(), Parses(), PassesTests((1, 1))\n"
        "names = {'whatthepatch', 'tree_sitter', 'tree_sitter_c', 'junitparser'}\n"
        "print(names & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: score_fix(proposal(), []), r"scorers must be at least one scorer, got \[\]"),
        (lambda: score_fix(proposal(), ["cc"]), "scorers must be scorers, or pairs"),  # type: ignore[list-item]
        (lambda: score_fix(proposal(), [(Applies(), 0)]), "weight must be more than 0, got 0"),
        (lambda: score_fix(proposal(), [(Applies(), -1)]), "weight must be a number from 0 up"),
        (lambda: Compiles("cc -c"), r"arguments must be a list of texts, got 'cc -c'; write \["),
        (lambda: Compiles([]), "arguments must be"),
        (lambda: Compiles(["cc", 1]), "arguments must be"),  # type: ignore[list-item]
        (lambda: RemovesDefect("x", "y"), "findings must be a function of the text of a file"),  # type: ignore[arg-type]
        (lambda: Limits(seconds=0), "seconds must be more than 0, got 0"),
        (lambda: Limits(memory=1), "memory must be a whole number from 16,777,216"),
        (lambda: Limits(cpu_seconds=0.5), "cpu_seconds must be a whole number"),  # type: ignore[arg-type]
        (lambda: Limits(output=0), "output must be a whole number"),
    ],
)
def test_arguments_are_checked(make: Callable[[], Any], message: str) -> None:
    """Errors say what the argument must be and what it is."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_an_attempt_takes_the_verdict() -> None:
    """Outcome, score and reason are recorded; a score without an outcome leaves it unverified."""
    meter = Meter()
    verdicts: Iterable[Fix] = (
        Fix("fixed", 1.0, source="re-scan"),
        Fix("does_not_compile", 0.5, source="compile", reason="error: " + "x" * 100),
        Fix(None, 0.9),
    )
    for number, fix in enumerate(verdicts):
        with meter.defects.attempt(f"CID-{number}", type="NULL_DEREF") as attempt:
            pass
        attempt.judge(fix)
    row = meter.snapshot().defects["NULL_DEREF", "", "", ""]
    outcomes = {name: count for name, count in row.outcomes.items() if count}
    assert outcomes == {"fixed": 1, "does_not_compile": 1, "unverified": 1}
    assert (row.quality.count, row.quality.mean) == (3, pytest.approx(0.8, rel=0.01))
    assert meter.defects.failure_reasons == {("does_not_compile", "error: " + "x" * 57): 1}
