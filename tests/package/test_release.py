"""`.ci/release.py`: one version in all places, and links that lead somewhere."""

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
README = """# One

![A picture](docs/a.svg) [guide](docs/a.md#part) [`code`](b.py) [away](https://example.org/a.md)
[![badge](docs/b.svg)](docs/c.md) [part](#part) [root](/c.md) and [mail](mailto:a@b)
"""
ADDRESS = """[project.urls]
Repository = "https://git.example/one/"
"""
pytestmark = pytest.mark.process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository that is ready to be released as 1.2.3."""
    (tmp_path / "Cargo.toml").write_text('[workspace.package]\nversion = "1.2.3"\n')
    (tmp_path / "Cargo.lock").write_text(LOCK)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "one"\n\n{ADDRESS}')
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a")
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def release(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def check(folder: Path) -> list[str]:
    done = release(str(folder))
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
        ("CHANGELOG.md", " - 2026-11-27", "", "must be [1.2.3] - DATE, got 1.2.3; write it"),
        ("CHANGELOG.md", CHANGES, "# Changelog\n", "must be [1.2.3] - DATE, got none; write it"),
        ("CHANGELOG.md", "[Unreleased]", "[Unreleased]\n\n- Two.", "move its entries to [1.2.3]"),
        ("pyproject.toml", ADDRESS, "", "project.urls must have Repository, got none"),
    ],
)
def test_a_place_that_differs_is_named(
    folder: Path, file: str, old: str, new: str, line: str
) -> None:
    """So is the change that is not committed."""
    replace(folder / file, old, new)
    first, second = check(folder)
    assert line in first
    assert second == f"files must be as committed, got changes in {file}; commit or stash"


def test_a_commit_without_the_tag_is_refused(folder: Path) -> None:
    """A tag of another version does not count."""
    git(folder, "tag", "v1.2.4")
    git(folder, "tag", "--delete", "v1.2.3")
    line = "the tag of the commit must be v1.2.3, got {}; git tag v1.2.3"
    assert check(folder) == [line.format("v1.2.4")]
    git(folder, "tag", "--delete", "v1.2.4")
    assert check(folder) == [line.format("none")]


def test_a_file_that_is_not_committed_is_refused(folder: Path) -> None:
    """A wheel would carry it; a file that git ignores is not in one."""
    (folder / ".gitignore").write_text("/dist/\n/.gitignore\n")
    (folder / "dist").mkdir()
    (folder / "dist" / "one.whl").touch()
    assert check(folder) == []
    (folder / "new one.py").touch()
    (line,) = check(folder)
    assert "new one.py" in line


def test_links_of_the_readme_lead_to_the_tag(folder: Path) -> None:
    """Pictures as they are, files as pages; other links stay, and without an address all do."""
    text = release("--readme", str(folder)).stdout
    for kind, path in [("raw", "docs/a.svg"), ("blob", "docs/a.md#part"), ("blob", "b.py")]:
        assert f"](https://git.example/one/{kind}/v1.2.3/{path})" in text
    badge = "https://git.example/one/{}/v1.2.3/docs/{}"
    assert f"[![badge]({badge.format('raw', 'b.svg')})]({badge.format('blob', 'c.md')})" in text
    for link in ("(https://example.org/a.md)", "(#part)", "(/c.md)", "(mailto:a@b)"):
        assert link in text
    replace(folder / "pyproject.toml", ADDRESS, "")
    assert release("--readme", str(folder)).stdout == README
