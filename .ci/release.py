"""Check that a release has one version: `python .ci/release.py [FOLDER]`.

The version of Cargo.toml, from which wheels take theirs, must be that of Cargo.lock, of a tag of
the commit, and of the newest section of CHANGELOG.md, which leaves nothing unreleased. Prints one
line for each that differs, and exits 1 if there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def problems(folder: Path) -> Iterator[str]:
    """Yield what keeps the commit that is checked out in a folder from being a release."""
    version = tomllib.loads((folder / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for package in tomllib.loads((folder / "Cargo.lock").read_text())["package"]:
        if package["name"].startswith("langmeter") and package["version"] != version:
            name, other = package["name"], package["version"]
            yield f"Cargo.lock: {name} must be {version}, got {other}; run cargo check"
    changes = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\](?: - (\S+))?\n(.*?)(?=^## |\Z)", changes, re.M | re.S)
    released = [section for section in sections if section[0] != "Unreleased"]
    if any(name == "Unreleased" and text.strip() for name, _, text in sections):
        yield f"CHANGELOG.md: Unreleased must be empty; move its entries to [{version}]"
    newest, date = (released or [("nothing", "", "")])[0][:2]
    if newest != version or not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        yield f"CHANGELOG.md: the newest section must be [{version}] - DATE, got {newest} {date}"
    tags = _git(folder, "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        yield f"the tag of the commit must be v{version}, got {', '.join(tags) or 'none'}"
    if changed := _git(folder, "status", "--porcelain", "--untracked-files=no"):
        yield f"the files must be those of the commit, changed are {changed.split()[1::2]}"


def main(arguments: list[str]) -> int:
    """Print the problems; returns the exit code."""
    folder = Path(arguments[0] if arguments else Path(__file__).resolve().parents[1])
    lines = list(problems(folder))
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
