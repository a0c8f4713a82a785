"""Check the licences of what langmeter ships or needs, and write the notices that its wheels carry.

`python .ci/licences.py` fails where a licence is not on the list, or where THIRD-PARTY.txt differs
from the crates of Cargo.lock; `--write` writes that file.

Crates are linked into the native module: the permissive licences require their texts beside it.
Python packages are installed by pip, unchanged, each with its own text.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NOTICES = ROOT / "THIRD-PARTY.txt"
#: Licences of crates that a binary may carry under MIT.
BINARY = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "Zlib", "0BSD", "Unlicense"}
BINARY |= {"Unicode-3.0", "Apache-2.0 WITH LLVM-exception"}
#: And those of packages that a program may import, unchanged.
IMPORTED = BINARY | {
    "MPL-2.0",
    "PSF-2.0",
    "LGPL-3.0-only",
    "ISC",
    "CNRI-Python",
    "CC0-1.0",
    "MIT-0",
}
#: Names that metadata older than PEP 639 has, by what they begin with.
CLASSIFIERS = {
    "MIT License": "MIT",
    "Apache": "Apache-2.0",
    "3-Clause BSD": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Mozilla Public License 2.0": "MPL-2.0",
    "Python Software Foundation": "PSF-2.0",
}
#: Crates of which the build embeds data: vocabularies and Unicode's classes of characters.
EMBEDDED = {"tiktoken", "regex-syntax"}
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
HEAD = """Notices of third parties

langmeter's wheels contain code of the crates below, each under MIT where its licence has that
choice; of Rust's standard library (MIT OR Apache-2.0, The Rust Project contributors); and of uPlot,
whose licence stands beside it. The crate tiktoken gives the vocabularies cl100k_base, o200k_base
and p50k_base, which are Copyright (c) 2022 OpenAI, Shantanu Jain, under the text of MIT, and
regex-syntax the classes of characters, from the data of Unicode.
"""


def allowed(expression: str, licences: set[str]) -> bool:
    """Return whether an SPDX expression can be met with these licences."""
    text = expression.replace("/", " OR ")
    while (inner := re.search(r"\(([^()]*)\)", text)) is not None:
        first = next(iter(sorted(licences)))
        text = text.replace(inner[0], first if allowed(inner[1], licences) else "refused")
    return any(
        all(part.strip() in licences for part in choice.split(" AND "))
        for choice in text.split(" OR ")
    )


def _cargo(*arguments: str) -> str:
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def crates() -> dict[str, tuple[str, Path]]:
    """Return licence and folder of each crate that is in a wheel, by name and version."""
    linked = set()
    for target in TARGETS:
        edges = ("-e", "normal,no-proc-macro", "--target", target, "--prefix", "none")
        tree = _cargo("tree", "-p", "langmeter-python", *edges, "-f", "{p}")
        linked |= {tuple(line.split()[:2]) for line in tree.splitlines() if "(/" not in line}
    places = {}
    for package in json.loads(_cargo("metadata", "--format-version", "1"))["packages"]:
        name, version = package["name"], package["version"]
        if (name, f"v{version}") in linked or name in EMBEDDED:
            folder = Path(package["manifest_path"]).parent
            places[f"{name} {version}"] = (package["license"] or "", folder)
    return dict(sorted(places.items()))


def _text(licence: str, folder: Path) -> str:
    """Return the text of the licence that langmeter chooses; the expression if there is none."""
    files = [path for path in sorted(folder.iterdir()) if path.name.upper().startswith("LICENSE")]
    names = ("MIT",) if "MIT" in licence else ()
    for part in (*names, "LICENSE", "APACHE"):
        for path in files:
            if path.is_file() and part in path.name.upper():
                data = sorted(folder.glob("src/**/LICENSE-UNICODE*"))
                texts = [each.read_text(encoding="utf-8").strip() for each in (path, *data)]
                return "\n\n".join(texts).replace("\r\n", "\n")
    return f"Licence: {licence} (the crate has no text of its own)"


def notices(places: dict[str, tuple[str, Path]]) -> str:
    """Return the notices: each text once, below the crates that it is of."""
    texts: dict[str, list[str]] = {}
    for name, (licence, folder) in places.items():
        texts.setdefault(_text(licence, folder), []).append(f"{name} ({licence})")
    parts = [f"{'-' * 80}\n" + "\n".join(names) + f"\n\n{text}\n" for text, names in texts.items()]
    return "\n".join([HEAD, *parts])


def packages() -> Iterator[Distribution]:
    """Yield what `pip install langmeter` with every extra installs, if it is here."""
    extras = distribution("langmeter").metadata.get_all("Provides-Extra") or []
    waiting, seen = [("langmeter", ("", *extras))], set()
    while waiting:
        name, chosen = waiting.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:
            print(f"{name}: not installed here, not checked")
            continue
        for text in package.requires or []:
            need = Requirement(text)
            marker = need.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in chosen):
                key = (need.name.lower(), tuple(sorted(need.extras)))
                if key not in seen:
                    seen.add(key)
                    waiting.append((need.name, ("", *need.extras)))
        if name != "langmeter":
            yield package


def licence_of(package: Distribution) -> str:
    """Return the SPDX expression of a package, read from what its metadata has."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = about.get_all("Classifier") or []
    names = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License")]
    for name in (about.get("License") or "", *names):
        if allowed(name, IMPORTED):
            return name
        for begin, licence in CLASSIFIERS.items():
            if name.startswith(begin):
                return licence
    return ", ".join(names) or (about.get("License") or "none given")[:60]


def main(arguments: list[str]) -> int:
    """Check, or write with `--write`; returns the exit code."""
    places, problems = crates(), []
    for name, (licence, _) in places.items():
        if not allowed(licence, BINARY):
            problems.append(f"crate {name}: {licence}")
    count = 0
    for package in packages():
        count += 1
        if not allowed(licence := licence_of(package), IMPORTED):
            problems.append(f"package {package.name}: {licence}")
    text = notices(places)
    if "--write" in arguments:
        NOTICES.write_text(text, encoding="utf-8")
    elif not NOTICES.exists() or NOTICES.read_text(encoding="utf-8") != text:
        problems.append("THIRD-PARTY.txt is of other crates: python .ci/licences.py --write")
    print(f"licences of {len(places)} crates and {count} packages", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
