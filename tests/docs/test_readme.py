"""What the README prints as commands and code runs as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.pages import ROOT, Page, run, run_program

pytestmark = pytest.mark.process

README = Page("README.md")
COMMANDS = README.commands()


def test_the_readme_has_commands_and_code() -> None:
    """The patterns of `pages` find what they are meant to find."""
    assert sum(block.language == "python" for block in README.blocks) >= 3
    assert {"make demo", "make test"} <= set(COMMANDS)


def test_its_code_runs_as_one_program(tmp_path: Path) -> None:
    """The Python blocks, one after the other, run without a warning."""
    done = run_program(README.program(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fakelistchatmodel" in done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("langmeter")])
def test_its_commands_run(command: str, tmp_path: Path) -> None:
    """Each `langmeter` command of the README ends with 0 and a report."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gpt-4o-mini" in done.stdout + done.stderr
    if "--json" in command:
        assert (tmp_path / "snapshot.json").stat().st_size > 1000


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_its_make_targets_exist(command: str) -> None:
    """Each `make` command of the README names a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for target in shlex.split(command)[1:]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_it_begins_with_the_installation() -> None:
    """The first command installs from a checkout, where pyproject.toml is."""
    assert COMMANDS[0] == "pip install ."
    assert (ROOT / "pyproject.toml").is_file()


def test_make_help_lists_every_target_for_people() -> None:
    """Each target that is not a step of another has a description, which `make help` prints."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    names = set(targets[1].split()) - {"valgrind", "chromium", "bytecode"}
    output = run("make help", ROOT).stdout
    assert names == set(re.findall(r"^  make (\S+)  +\S", output, re.MULTILINE))
