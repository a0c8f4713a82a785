"""Check that a commit can be released: `python .ci/release.py [FOLDER]`.

The version of Cargo.toml, from which wheels take theirs, must be that of Cargo.lock, of a tag of
the commit, and of the newest section of CHANGELOG.md, which leaves nothing unreleased. The project
must have a public address, because the page of a registry shows README.md without the files beside
it. Prints one line for each problem, and exits 1 if there is one.

`--readme` prints README.md as a registry is to show it: each link to a file of the project leads to
the public address. Without one the text is that of the file.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

#: Address of a link or a picture of Markdown that is a path of the project.
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)[^)\s]+")
#: Ends of files that a page shows as they are.
_PICTURES = (".svg", ".png")
_PYPROJECT = "pyproject.toml"


def _git(folder: Path, *arguments: str) -> list[str]:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def _toml(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _version(folder: Path) -> str:
    return _toml(folder / "Cargo.toml")["workspace"]["package"]["version"]


def _address(folder: Path) -> str | None:
    """Return the public address of the project without a slash at its end; None without one."""
    urls = _toml(folder / _PYPROJECT)["project"].get("urls", {})
    return str(urls["Repository"]).rstrip("/") if "Repository" in urls else None


def readme(folder: Path) -> str:
    """Return README.md with absolute links to the files of this version, if it has an address."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    address, version = _address(folder), _version(folder)
    if address is None:
        return text

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[0].endswith(_PICTURES) else "blob"
        return f"{address}/{kind}/v{version}/{link[0]}"

    return _LINK.sub(absolute, text)


def problems(folder: Path) -> Iterator[str]:
    """Yield what keeps the commit that is checked out in a folder from being a release."""
    version = _version(folder)
    for package in tomllib.loads((folder / "Cargo.lock").read_text())["package"]:
        if package["name"].startswith("langmeter") and package["version"] != version:
            name, other = package["name"], package["version"]
            yield f"Cargo.lock: {name} must be {version}, got {other}; run cargo check"
    changes = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\](?: - (\S+))?\n(.*?)(?=^## |\Z)", changes, re.M | re.S)
    released = [section for section in sections if section[0] != "Unreleased"]
    if any(name == "Unreleased" and text.strip() for name, _, text in sections):
        yield f"CHANGELOG.md: Unreleased must be empty; move its entries to [{version}] - DATE"
    newest, date = (released or [("none", "", "")])[0][:2]
    if newest != version or not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        got = f"{newest} {date}".strip()
        yield f"CHANGELOG.md: the newest section must be [{version}] - DATE, got {got}; write it"
    if _address(folder) is None:
        want = f"{_PYPROJECT}: project.urls must have Repository, got none"
        yield f"{want}; the links of README.md lead there on the page of a registry"
    tags = _git(folder, "tag", "--points-at", "HEAD")
    if f"v{version}" not in tags:
        got = ", ".join(tags) or "none"
        yield f"the tag of the commit must be v{version}, got {got}; git tag v{version}"
    if changed := [line[3:] for line in _git(folder, "status", "--porcelain")]:
        yield f"files must be as committed, got changes in {', '.join(changed)}; commit or stash"


def main(arguments: list[str]) -> int:
    """Print the problems, or the text of `--readme`; returns the exit code."""
    folders = [each for each in arguments if each != "--readme"]
    folder = Path(folders[0] if folders else Path(__file__).resolve().parents[1])
    if "--readme" in arguments:
        print(readme(folder), end="")
        return 0
    lines = list(problems(folder))
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
