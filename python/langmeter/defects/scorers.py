"""Quality of a fix, from 0 to 1: does it apply, parse, compile, remove the defect, pass tests.

    proposal = Proposal(source, answer, name="list.c")
    fix = score_fix(proposal, [Applies(), Parses(), Compiles(["cc", "-c", "{file}"])])
    attempt.judge(fix)

Scorers run outside of the hot path, where they are called. `pip install "langmeter[defects]"`
brings the libraries; each is loaded by the first scorer that needs it.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import Any, Final, Protocol

from langmeter._base.check import real_number, refusal
from langmeter.defects.commands import Command, Limits
from langmeter.defects.outcome import SOURCES, Fix
from langmeter.defects.proposal import Proposal, ProposalError, library

__all__ = [
    "Applies",
    "Command",
    "Compiles",
    "FixScorer",
    "IsSmall",
    "Limits",
    "Parses",
    "PassesTests",
    "Proposal",
    "RemovesDefect",
    "score_fix",
]

#: Outcomes that say nothing of a fix, then the one for it; all others are against it.
_SILENT: Final = (None, "unverified", "unscored", "infrastructure")
_NOT_AGAINST: Final = (*_SILENT, "fixed")
_LANGUAGES: Final = {
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx"), "cpp"),
}


class FixScorer(Protocol):
    """Function or object that judges a proposed change."""

    def __call__(self, proposal: Proposal, /) -> Fix:
        """Return the score, and an outcome and its source where it proves one.

        What it raises is the failure of the scorer, not of the model.
        """


class _TextScorer:
    """Scorer of the text after the change."""

    def __call__(self, proposal: Proposal, /) -> Fix:
        try:
            after = proposal.after
        except ProposalError as exc:
            return exc.fix
        return self._score(proposal, after)

    def _score(self, proposal: Proposal, after: str) -> Fix:
        raise NotImplementedError


class Applies(_TextScorer):
    """Scores 1 where the change fits the file; else `does_not_apply`, `unparsable` or `empty`."""

    def _score(self, proposal: Proposal, after: str) -> Fix:
        return Fix(None, 1.0)


class Parses(_TextScorer):
    """Scores 1 where the result has no syntax error, else 0: `does_not_compile`.

    No score where the original has syntax errors for the parser too, as C with many macros.

    Args:
        language: python, c or cpp; None to take it from the name of the file.

    Raises:
        ConfigError: the language is another one.
    """

    def __init__(self, language: str | None = None) -> None:
        if language not in (None, *_LANGUAGES.values()):
            raise refusal("language", "python, c, cpp or None", language)
        self._language = language

    def _score(self, proposal: Proposal, after: str) -> Fix:
        suffix = PurePath(proposal.name).suffix.lower()
        language = self._language or _LANGUAGES.get(suffix)
        if language is None:
            return Fix("unscored", reason=f"no parser for {suffix} files")
        if _parses(after, language):
            return Fix(None, 1.0)
        if not _parses(proposal.before, language):
            return Fix("unscored", reason="the original does not parse either")
        return Fix("does_not_compile", 0.0, source="form", reason="syntax error")


class Compiles(_TextScorer):
    """Scores 1 where a command of yours succeeds on the file, else 0: `does_not_compile`.

    A command that fails on the original too, or exceeds its limits there, says nothing about the
    model: that is `infrastructure`. So the original is compiled after each failure.

    Args:
        command: program and arguments, as in `["cc", "-c", "{file}"]`, or a `Command` with limits.
        baseline: False where the original is not expected to compile, as the defect prevents it.
            Then a command that exceeds its wall time, or is killed, is `infrastructure`.

    Raises:
        ConfigError: the command is not a list of texts.
    """

    def __init__(self, command: Sequence[str] | Command, *, baseline: bool = True) -> None:
        self._command = command if isinstance(command, Command) else Command(command)
        self._baseline = baseline

    def _score(self, proposal: Proposal, after: str) -> Fix:
        code, output = self._command.run(proposal.name, after)
        if code == 0:
            return Fix(None, 1.0, source="compile")
        if self._baseline and self._command.run(proposal.name, proposal.before)[0] != 0:
            return Fix("infrastructure", reason="the original does not compile either")
        if code is None:
            reason = f"more than {self._command.limits.seconds:g} s"
        else:
            reason = _message(output) or f"exit code {code}"
        if not self._baseline and (code is None or code < 0):
            return Fix("infrastructure", reason=reason)
        return Fix("does_not_compile", 0.0, source="compile", reason=reason)


class RemovesDefect(_TextScorer):
    """Scores 1 where the defect is gone and no new one is there: `fixed`.

    Else 1 / (1 + n) with n new findings: `regressed`; and 0 where it is still there: `failed`.
    Where the original does not have the defect either, the check is `unscored`.

    Args:
        findings: called with the text of a file; returns what an analyser finds in it. Findings
            that are equal are the same, so leave line numbers out.
        defect: the finding that was to be fixed.
    """

    def __init__(self, findings: Callable[[str], Iterable[Hashable]], defect: Hashable) -> None:
        if not callable(findings):
            raise refusal("findings", "a function of the text of a file", findings)
        self._findings, self._defect = findings, defect

    def _score(self, proposal: Proposal, after: str) -> Fix:
        old, new = (Counter(self._findings(text)) for text in (proposal.before, after))
        if self._defect not in old:
            return Fix("unscored", reason="the original does not have the defect")
        if self._defect in new:
            return Fix("failed", 0.0, source="re-scan", reason="the defect is still there")
        appeared = (new - old).total()
        if appeared:
            reason = f"new findings: {appeared}"
            return Fix("regressed", 1 / (1 + appeared), source="re-scan", reason=reason)
        return Fix("fixed", 1.0, source="re-scan")


#: Passed and all tests, or JUnit XML as text, bytes or a path.
TestResults = tuple[int, int] | str | bytes | os.PathLike[str]


class PassesTests(_TextScorer):
    """Scores the share of tests that passed; all of them is `fixed`, else `failed`.

    With `before`, tests that passed there and do not pass now make it `regressed`, if all that
    failed there pass now. Skipped tests do not count; without any test it is `unscored`.

    Args:
        results: passed and all tests as `(7, 8)`, JUnit XML as text, bytes or a path, or a function
            of the proposal that returns one of these.
        before: JUnit XML of the original.
    """

    def __init__(
        self,
        results: TestResults | Callable[[Proposal], TestResults],
        *,
        before: str | bytes | os.PathLike[str] | None = None,
    ) -> None:
        self._results, self._before = results, before

    def _score(self, proposal: Proposal, after: str) -> Fix:
        results = self._results(proposal) if callable(self._results) else self._results
        if isinstance(results, tuple):
            passed, total = results
            if not (type(passed) is type(total) is int and 0 <= passed <= total):
                raise refusal("results", "passed and all tests", results)
            tests = {}
        else:
            tests = _junit(results)
            passed, total = sum(tests.values()), len(tests)
        if not total:
            return Fix("unscored", reason="no test ran")
        if passed == total:
            return Fix("fixed", 1.0, source="tests")
        outcome = "failed"
        if tests and self._before is not None:
            old = _junit(self._before)
            if all(old.get(name) for name, passes in tests.items() if not passes):
                outcome = "regressed"
        reason = f"{total - passed} of {total} tests failed"
        return Fix(outcome, passed / total, source="tests", reason=reason)


class IsSmall(_TextScorer):
    """Scores half / (half + n) for n lines removed and added: 1 for none, smaller for more.

    Args:
        half: number of lines that scores 0.5.
    """

    def __init__(self, half: float = 20.0) -> None:
        if real_number("half", half, 0) == 0:
            raise refusal("half", "more than 0", half)
        self._half = half

    def _score(self, proposal: Proposal, after: str) -> Fix:
        return Fix(None, self._half / (self._half + _changed_lines(proposal.before, after)))


def score_fix(proposal: Proposal, scorers: Iterable[FixScorer | tuple[FixScorer, float]]) -> Fix:
    """Judge a proposed change by several scorers, in their order.

    The score is the weighted mean. Scorers without a score do not count; the first that disproves
    the fix ends it, and those after it count as 0. The outcome is that of the scorer that disproves
    the fix, else that of the strongest source, and None where no scorer proves one.

    A scorer that raises, or lacks its library, is `infrastructure`: the checker failed, not the
    model. So is the fix, if no other scorer proves anything.

    Args:
        proposal: what the model proposes.
        scorers: scorers, or pairs of a scorer and its weight, above 0; the weight is 1 otherwise.

    Raises:
        ConfigError: no scorer, one that cannot be called, or a weight outside of its range.
    """
    pairs = [_weighted(scorer) for scorer in scorers]
    if not pairs:
        raise refusal("scorers", "at least one scorer", scorers)
    total = weights = 0.0
    verdicts = []
    for number, (scorer, weight) in enumerate(pairs):
        fix = _fix(scorer, proposal)
        if fix.score is not None:
            total, weights = total + weight * fix.score, weights + weight
        verdicts.append(fix)
        if fix.outcome not in _NOT_AGAINST:
            weights += sum(weight for _, weight in pairs[number + 1 :])
            break
    verdict = max(verdicts, key=_rank)
    silent = verdict.outcome is not None and verdict.outcome in _SILENT
    score = None if silent or not weights else total / weights
    return Fix(verdict.outcome, score, source=verdict.source, reason=verdict.reason)


def _rank(fix: Fix) -> tuple[int, int]:
    """Return the order of verdicts: against the fix, for it, checks that failed, none."""
    order = [*_NOT_AGAINST, fix.outcome]
    return order.index(fix.outcome), SOURCES.get(fix.source, SOURCES["caller"])


def _weighted(scorer: Any) -> tuple[FixScorer, float]:
    one, weight = scorer if isinstance(scorer, tuple) and len(scorer) == 2 else (scorer, 1.0)
    if not callable(one):
        raise refusal("scorers", "scorers, or pairs of a scorer and a weight", scorer)
    if real_number("weight", weight, 0) == 0:
        raise refusal("weight", "more than 0", weight)
    return one, weight


def _fix(scorer: FixScorer, proposal: Proposal) -> Fix:
    """Return what a scorer says; what it raises is a failure of the check."""
    try:
        fix = scorer(proposal)
        if not isinstance(fix, Fix):
            raise TypeError(f"a {type(fix).__name__} instead of a Fix")
    except ProposalError as exc:
        return exc.fix
    except Exception as exc:
        # `form`, the weakest source, as for all that proves nothing: no verdict of a check that
        # worked gives way to it.
        return Fix("infrastructure", reason=f"{type(exc).__name__}: {exc}")
    return fix


def _parses(text: str, language: str) -> bool:
    if language == "python":
        try:
            ast.parse(text)
        # The last two for what is nested too deeply for Python itself.
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return True
    tree_sitter, grammar = library("tree_sitter"), library(f"tree_sitter_{language}")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    return not parser.parse(text.encode("utf-8", "surrogateescape")).root_node.has_error


def _junit(given: Any) -> dict[Any, bool]:
    """Return the tests of a JUnit report, and whether each passed."""
    junitparser = library("junitparser")
    if isinstance(given, os.PathLike):
        report = junitparser.JUnitXml.fromfile(os.fspath(given))
    else:
        report = junitparser.JUnitXml.fromstring(given)
    tests: dict[Any, bool] = {}
    for suite in report:
        for case in suite:
            if not case.is_skipped:
                name = suite.name, case.classname, case.name
                tests[name] = case.is_passed and tests.get(name, True)
    return tests


def _message(output: str) -> str:
    """Return the first line of an error message of a compiler."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    line = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _changed_lines(before: str, after: str) -> int:
    """Return how many lines were removed and added."""
    old, new = before.splitlines(), after.splitlines()
    # What is equal at both ends is left out: it makes the rest, which is compared, short.
    for _ in range(2):
        equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new)))  # noqa: B905
        old, new = old[equal:][::-1], new[equal:][::-1]
    same = sum(
        block.size for block in difflib.SequenceMatcher(None, old, new).get_matching_blocks()
    )
    return len(old) + len(new) - 2 * same
