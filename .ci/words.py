"""Check the words of sources and pages: `python .ci/words.py [PATH ...]`.

Prints one line for each phrase that CONTRIBUTING.md, *Words*, rules out, and exits 1 if there is
one. Quotes in the glossary are exempt: it may name a phrase in order to replace it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_SUFFIXES = {".py", ".pyi", ".rs", ".md"}
#: What is not written: regular expressions, with what to write instead.
_PHRASES = {
    r"(?<!there[\s])\b(?:is|are|was|were) no\b(?! longer\b)": "'is not a …'",
    r"\b(?:nobody|somebody|no one|anybody)\b": "the noun: the caller, a user, no handler …",
    r"\bof who\b": "the noun and a relative clause",
    r"\btells? of\b": "'reports', 'describes', 'warns about'",
    r"\bas far as\b": "'if', 'where', 'up to'",
    r"\bfor good\b": "'permanently'",
    r"\bbe it\b": "'whether … or …'",
    r"\bat (?:most|least) so many\b|\bso many at (?:most|least)\b": "'at most MAX'",
    r"\bby and by\b|\bwhatsoever\b|\bwithout favour\b|\bbeyond all sense\b": "a plain word",
    r"\bnothing at all\b|\bat its will\b|\bof a sudden\b": "a plain word",
}
#: How no docstring of the package begins.
_BEGINNING = re.compile(r'"""(?:What|That|As|Who|Whose|How|Which)\b')
#: Words of a phrase may stand on two lines of a comment or of a page.
_GAP = r"\s+(?:(?:#:?|//[/!]?)\s+)?"
_RULES = [
    (re.compile(pattern.replace(" ", _GAP), re.IGNORECASE), advice)
    for pattern, advice in _PHRASES.items()
]
#: A local variable has the noun of what it holds; these name the value's history. Tests are exempt.
_HISTORY = {"found", "told", "asked", "shown", "kept"}
_RUST_LET = re.compile(rf"\blet (?:mut )?({'|'.join(sorted(_HISTORY))})\b")
_QUOTED = re.compile(r"[\"“`][^\"”`\n]*[\"”`]")


def _paths(arguments: list[str]) -> list[Path]:
    names = (
        arguments
        or subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    )
    paths = [ROOT / name for name in names]
    return [
        path
        for path in paths
        if path.suffix in _SUFFIXES and path.is_file() and path != Path(__file__).resolve()
    ]


def _phrases(path: Path, text: str) -> Iterator[tuple[int, str]]:
    if path.name == "glossary.md":
        text = _QUOTED.sub("", text)
    if path.is_relative_to(ROOT / "python"):
        for match in _BEGINNING.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, f"{match.group()!r}: begin with a verb or the noun that is defined"
    for pattern, advice in _RULES:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, f"{' '.join(match.group().split())!r}: write {advice}"


def _locals(path: Path, text: str) -> Iterator[tuple[int, str]]:
    advice = "name the value by the noun of what it holds"
    if path.relative_to(ROOT).parts[0] in ("tests", "benches") or "tests" in path.stem:
        return
    if path.suffix == ".rs":
        for number, line in enumerate(text.splitlines(), 1):
            for match in _RUST_LET.finditer(line):
                yield number, f"{match.group(1)!r}: {advice}"
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if stored and node.id in _HISTORY:
                yield node.lineno, f"{node.id!r}: {advice}"


def main(arguments: list[str]) -> int:
    """Return the exit status: 1 where a phrase stands that is ruled out, else 0."""
    count = 0
    for path in _paths(arguments):
        text = path.read_text(encoding="utf-8")
        for number, message in sorted({*_phrases(path, text), *_locals(path, text)}):
            print(f"{path.relative_to(ROOT)}:{number}: {message}")
            count += 1
    if count:
        print(f"{count} phrases that CONTRIBUTING.md, Words, rules out", file=sys.stderr)
    return bool(count)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
