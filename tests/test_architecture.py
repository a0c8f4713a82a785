"""Who may import whom: the eight floors of the Python side."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import langmeter

ROOT = Path(langmeter.__file__).parent

#: Lowest first; a room imports from its own floor and those below.
FLOORS = [
    {"_core", "errors"},
    {"_base"},
    {"config", "snapshot"},
    {"usage", "prices"},
    {"budgets", "streaming", "monitors"},
    {"callbacks"},
    {"meter", "analysis", "report"},
    {"runnables"},
    {"testing"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
#: Rooms that read snapshots and nothing of how they came to be.
READERS = {"exporters", "history", "alerts", "report", "analysis"}


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def _imports(path: Path) -> Iterator[str]:
    """Modules of langmeter that a file imports at run time, also inside functions."""
    package = ["langmeter", *path.relative_to(ROOT).parts[:-1]]

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for name in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if name.startswith("langmeter."):
            yield name


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_imports_from_a_floor_above(path: Path) -> None:
    """Arrows point down; and what reads snapshots knows nothing of callbacks, nor they of it."""
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in _imports(path):
        other = name.split(".")[1]
        if other in {part for rooms in FLOORS for part in rooms}:
            assert _floor(other) <= _floor(room), f"{room} imports {name}"
            if room in READERS:
                assert other not in {"callbacks", "meter"}, f"{room} imports {name}"
            assert not (room == "meter" and other in READERS), f"{room} imports {name}"


def _loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import langmeter", "from langmeter import Snapshot, Config"])
def test_importing_langmeter_loads_nothing_heavy(code: str) -> None:
    """Neither langchain_core nor an optional dependency nor the price catalogue is loaded."""
    loaded = _loaded_by(code)
    heavy = {"langchain_core", "rich", "genai_prices", "pydantic", "asyncio", "tomllib"}
    assert not loaded & heavy
    assert "langmeter._core" in loaded


def test_every_public_name_is_there() -> None:
    """What `__all__` promises can be had, and `dir` shows it."""
    for name in langmeter.__all__:
        assert getattr(langmeter, name) is not None
    assert set(langmeter.__all__) <= set(dir(langmeter))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy module says what every module says."""
    with pytest.raises(AttributeError, match="no attribute 'Metre'"):
        langmeter.Metre  # noqa: B018


def test_a_debug_build_warns_at_import() -> None:
    """Whoever imports a debug build is told so, once."""
    code = (
        "import sys, types, warnings\n"
        "core = types.ModuleType('langmeter._core')\n"
        "core.BUILD_PROFILE, core.__version__ = 'debug', '0'\n"
        "sys.modules['langmeter._core'] = core\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import langmeter\n"
        "assert [w.category for w in caught] == [RuntimeWarning], caught\n"
        "assert 'debug build' in str(caught[0].message)"
    )
    assert "langmeter" in _loaded_by(code)
