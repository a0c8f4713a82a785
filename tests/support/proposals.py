"""Proposed changes of a small C file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langmeter.defects import Fix
from langmeter.defects.scorers import Proposal

C = "int f(int *p)\n{\n    return *p;\n}\n"
GOOD = "    return p ? *p : 0;"


def proposal(code: str | None = GOOD, before: str = C, name: str = "list.c") -> Proposal:
    return Proposal(before, code, [(3, 3)], name)


def scorer(*values: Any, **more: Any) -> Callable[[Proposal], Fix]:
    return lambda _: Fix(*values, **more)
