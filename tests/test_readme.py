"""What the README prints as commands and code runs as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = (line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines())
    return [line for line in lines if line]


def run(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path}
    environ.pop("LANGMETER_CONFIG", None)
    return subprocess.run(
        command, cwd=where, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_readme_has_commands_and_code() -> None:
    """The patterns above find what they are meant to find."""
    assert len(blocks("python")) >= 3
    assert {"make demo", "make test"} <= set(commands())


def test_its_code_runs_as_one_program(tmp_path: Path) -> None:
    """The Python blocks, one after the other, run without a warning."""
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks("python")), encoding="utf8")
    done = run([sys.executable, "-W", "error", str(program)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fakelistchatmodel" in done.stdout


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("langmeter")])
def test_its_commands_run(command: str, tmp_path: Path) -> None:
    """Each `langmeter` command of the README ends with 0 and a report."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = run(shlex.split(command), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gpt-4o-mini" in done.stdout + done.stderr
    if "--json" in command:
        assert (tmp_path / "snapshot.json").stat().st_size > 1000


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make")])
def test_its_make_targets_exist(command: str) -> None:
    """Each `make` command of the README names a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    for target in shlex.split(command)[1:]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
