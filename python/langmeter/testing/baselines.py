"""Snapshots that a project keeps in its repository, and what a test says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from langmeter.analysis.regression import LEVEL, compare
from langmeter.analysis.regression.comparison import Comparison
from langmeter.errors import SnapshotError
from langmeter.snapshot import Snapshot

_NAME: Final = re.compile(r"\w[\w.-]*")
_UPDATE: Final = "pytest --langmeter-update"


class Metered(Protocol):
    """A Meter, or one of its callbacks."""

    def snapshot(self) -> Snapshot:
        """Snapshot of what the test metered."""


class Baselines:
    """The fixture `langmeter_baseline`: a folder of snapshots, each under a name."""

    def __init__(self, folder: Path, *, update: bool = False) -> None:
        self.folder = folder
        self.update = update

    def check(
        self,
        metered: Metered | Snapshot,
        name: str,
        fail_on: Iterable[str] = (),
        *,
        level: float = LEVEL,
        strict: bool = False,
    ) -> Comparison:
        """Compare what was metered with the baseline of this name.

        With `--langmeter-update` it becomes the baseline, and is compared with itself.

        Args:
            metered: a Meter or another handler of langmeter's, or a Snapshot.
            name: of the baseline: letters, digits, `_`, `-` and `.`; each check has its own.
            fail_on: rules as of `langmeter compare --fail-on`; without any, the check fails on
                everything that got significantly worse.
            level: the probability of a false alarm.
            strict: rules that too little is known for fail, too.

        Returns:
            The comparison, which did not fail.

        Raises:
            AssertionError: something got worse, with the table; there is no baseline yet, or it
                cannot be read, with the remedy.
            ValueError: a rule is none, or `name` has other characters.
        """
        __tracebackhide__ = True
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"invalid name of a baseline: {name!r}; use letters, digits, '_', '-' and '.', "
                "beginning with a letter or digit"
            )
        now = metered if isinstance(metered, Snapshot) else metered.snapshot()
        rules = list(fail_on) if not isinstance(fail_on, str) else [fail_on]
        path = self.folder / f"{name}.json"
        if not now.models and not now.components:
            raise AssertionError(
                f"nothing was metered for {name!r}; pass the meter to the calls: "
                'config={"callbacks": [meter]}'
            )
        base = now if self.update else _read(path)
        comparison = compare(base, now, rules, level=level, strict=strict)
        if self.update:
            _write(path, now)
        elif comparison.failed:
            raise AssertionError(
                f"{comparison}\n\ncompared with {path}; if this is how it is to be: {_UPDATE}"
            )
        return comparison


def _read(path: Path) -> Snapshot:
    __tracebackhide__ = True
    try:
        return Snapshot.from_json(path.read_bytes())
    except FileNotFoundError:
        problem = f"there is no baseline {path}; write it and commit it"
    except OSError as error:
        problem = f"cannot read {path}: {error.strerror}; make it readable, or write it anew"
    except SnapshotError as error:
        problem = f"{path}: {error}; write it anew"
    raise AssertionError(f"{problem}: {_UPDATE}")


def _write(path: Path, snapshot: Snapshot) -> None:
    """Whole or not at all, also where several workers test at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(snapshot.to_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)
