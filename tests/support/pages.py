"""Pages of documentation as tests read them: their blocks, commands, files and promised output.

A block is fenced by three backticks and its language. After the language may stand the name of
the file that the block is: `toml prices.toml`. In Python a `print(…)  # text` promises that text.
A `text` block that follows a `python` or `bash` block promises its output, where `…` stands for
anything. What stands in an HTML comment is run too, but no reader of the page sees it.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PROMISE = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    file: str
    text: str


class Page:
    """One page, read from the root of the project."""

    def __init__(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf8")
        self.blocks = [Block(*parts) for parts in _BLOCK.findall(text)]
        #: What a reader sees, and the blocks in it.
        self.text = _COMMENT.sub("", text)
        self.visible = [Block(*parts) for parts in _BLOCK.findall(self.text)]

    def program(self) -> str:
        """Its Python blocks, one after the other."""
        return "\n".join(block.text for block in self.blocks if block.language == "python")

    def unexplained(self, public: set[str]) -> set[str]:
        """Names that its visible Python uses and does not bind, and that no text in backticks has.

        A text does not explain a public name: that is to be imported.
        """
        text = _BLOCK.sub("", self.text)
        words = {
            word for code in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", code)
        }
        names: set[str] = set()
        bound = set(dir(builtins))
        for block in self.visible:
            if block.language == "python":
                used, new = _names(block.text)
                bound |= new
                names |= used - bound
        return names - (words - public)

    def promised(self) -> list[str]:
        """Lines that its Python prints: after the `#` of a `print`, and in `text` blocks."""
        lines: list[str] = []
        for block, following in pairwise([*self.blocks, Block("", "", "")]):
            if block.language == "python":
                lines += _PROMISE.findall(block.text)
                if following.language == "text":
                    lines += following.text.splitlines()
        return lines

    def commands(self) -> list[str]:
        """The lines of its bash blocks, without comments."""
        return [line for line, _ in self.shown()]

    def shown(self) -> list[tuple[str, str]]:
        """Its commands, each with the output shown after its block, "" where none is."""
        found = []
        for place, block in enumerate(self.blocks):
            if block.language == "bash":
                lines = [line.split("#")[0].strip() for line in block.text.splitlines()]
                following = self.blocks[place + 1 : place + 2]
                output = "".join(after.text for after in following if after.language == "text")
                found += [(line, output) for line in lines if line]
        return found

    def write_files(self, where: Path) -> None:
        """Put the blocks that are files where a program can find them."""
        for block in self.blocks:
            if block.file:
                (where / block.file).write_text(block.text, encoding="utf8")


def _names(code: str) -> tuple[set[str], set[str]]:
    """Return the names that code reads, and those that it binds, in whatever scope."""
    used, bound = set(), set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound.add(node.name)
            case ast.alias():
                bound.add((node.asname or node.name).split(".")[0])
    return used, bound


def run(command: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user of this environment would, without settings from outside."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = [name for name in os.environ if name.startswith("LANGMETER_")]
    environ = {name: text for name, text in os.environ.items() if name not in ours}
    environ |= {"PATH": path, "LANGMETER_CACHE": os.environ.get("LANGMETER_CACHE", "")}
    return subprocess.run(
        shlex.split(command),
        cwd=where,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_program(text: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program whose warnings are errors."""
    (where / "page.py").write_text(text, encoding="utf8")
    return run(f"{shlex.quote(sys.executable)} -W error page.py", where)


def _pattern(promised: str) -> str:
    return ".*".join(map(re.escape, promised.strip().split("…")))


def matches(promised: str, output: str) -> bool:
    """Whether lines of a page are in an output; `…` stands for anything."""
    return re.search(rf"^{_pattern(promised)}$", output, re.MULTILINE | re.DOTALL) is not None


def matches_whole(promised: str, output: str) -> bool:
    """Whether lines of a page are the whole of an output; `…` stands for anything."""
    return re.fullmatch(_pattern(promised), output.strip(), re.DOTALL) is not None
