"""The broken functions, and their tests."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langmeter.defects import Fix
from langmeter.defects.scorers import (
    Applies,
    Command,
    Compiles,
    IsSmall,
    Limits,
    Parses,
    PassesTests,
    Proposal,
    score_fix,
)

#: What a fix may take and print. Processor time ends a loop: a busy machine may take a minute.
LIMITS = Limits(seconds=60, cpu_seconds=5, memory=512 * 2**20, output=64 * 1024)
_COMPILE = ["cc", "-std=c11", "-c", "{file}", "-o", "fix.o"]
_RUN = {
    "python": ["python3", "-I", "{file}"],
    "c": ["sh", "-c", "cc -std=c11 {file} -o fix && ./fix"],
}
_PYTHON_TEST = """
try:
    print("ok" if {check} else "not ok")
except Exception:
    print("not ok")
"""
_C_TEST = '    puts(({check}) ? "ok" : "not ok"); fflush(stdout);\n'


@dataclass(frozen=True)
class Defect:
    """A broken function: its code, the lines to replace, and expressions that test it."""

    id: str
    type: str
    severity: str
    language: str
    code: str
    lines: Sequence[int]
    right: str
    overfitted: str
    wrong: str
    broken: str
    checks: Sequence[str]
    later: str

    def judge(self, answer: str) -> Fix:
        """Apply a fix, compile it and run the tests: each step only if the one before worked."""
        scorers: list[Any] = [Applies(), Parses()]
        if self.language == "c":
            scorers.append(Compiles(Command(_COMPILE, LIMITS)))
        tests = PassesTests(lambda proposal: self._passed(proposal, self.checks))
        return score_fix(self._proposal(answer), [*scorers, (tests, 3.0), IsSmall()])

    def still_holds(self, answer: str) -> bool:
        """Return whether a fix that passed the tests passes the one that is made later."""
        return self._passed(self._proposal(answer), [self.later]) == (1, 1)

    def _proposal(self, answer: str) -> Proposal:
        name = "fix.py" if self.language == "python" else "fix.c"
        return Proposal(self.code, answer, line_ranges=[tuple(self.lines)], name=name)

    def _passed(self, proposal: Proposal, checks: Sequence[str]) -> tuple[int, int]:
        if self.language == "python":
            tests = "".join(_PYTHON_TEST.format(check=check) for check in checks)
        else:
            lines = "".join(_C_TEST.format(check=check) for check in checks)
            tests = f"\n#include <stdio.h>\nint main(void) {{\n{lines}    return 0;\n}}\n"
        _, output = Command(_RUN[self.language], LIMITS).run(proposal.name, proposal.after + tests)
        # A crash ends the tests: those after it have not passed.
        return output.splitlines().count("ok"), len(checks)


def load() -> list[Defect]:
    """Return the defects, in the order of the file."""
    text = Path(__file__).with_name("defects.toml").read_text()
    return [Defect(**entry) for entry in tomllib.loads(text)["defect"]]
