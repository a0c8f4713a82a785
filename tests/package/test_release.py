"""`.ci/release.py`: one version in all places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "release.py"
LOCK = """[[package]]
name = "langmeter-core"
version = "1.2.3"

[[package]]
name = "serde"
version = "9.9.9"
"""
CHANGES = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-11-27

- One.

## [1.2.2] - 2026-11-01
"""
pytestmark = pytest.mark.process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository that is ready to be released as 1.2.3."""
    (tmp_path / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n')
    (tmp_path / "Cargo.lock").write_text(LOCK)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a")
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def check(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert done.returncode == bool(lines)
    return lines


def test_a_commit_with_one_version_is_a_release(folder: Path) -> None:
    """Nothing is printed, and the exit code is 0."""
    assert check(folder) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("Cargo.lock", "1.2.3", "1.2.2", "langmeter-core must be 1.2.3, got 1.2.2"),
        ("CHANGELOG.md", "[1.2.3]", "[1.3.0]", r"must be [1.2.3] - DATE, got 1.3.0 2026-11-27"),
        ("CHANGELOG.md", " - 2026-11-27", "", "must be [1.2.3] - DATE, got 1.2.3"),
        ("CHANGELOG.md", "[Unreleased]", "[Unreleased]\n\n- Two.", "move its entries to [1.2.3]"),
    ],
)
def test_a_place_that_differs_is_named(
    folder: Path, file: str, old: str, new: str, line: str
) -> None:
    """So is the change that is not committed."""
    replace(folder / file, old, new)
    first, second = check(folder)
    assert line in first
    assert second == f"the files must be those of the commit, changed are ['{file}']"


def test_a_commit_without_the_tag_is_refused(folder: Path) -> None:
    """A tag of another version does not count."""
    git(folder, "tag", "v1.2.4")
    git(folder, "tag", "--delete", "v1.2.3")
    assert check(folder) == ["the tag of the commit must be v1.2.3, got v1.2.4"]
