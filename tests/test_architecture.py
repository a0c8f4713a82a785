"""The house: which room may import which, how large a room is, and what an import loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import langmeter

ROOT = Path(langmeter.__file__).parent

#: Lowest first: a room imports from its own floor and those below.
FLOORS = [
    {"_core", "errors", "_base"},
    {"snapshot"},
    {"directory"},
    {"usage", "prices"},
    {"budgets", "streaming", "monitors", "defects"},
    {"config"},
    {"callbacks"},
    {"meter", "scopes"},
    {"runnables"},
    {"testing", "demo", "cli"},
    {"__main__"},
]
#: Rooms that read snapshots and stand beside the floors, lowest first. Each imports those before it
#: and what stands in `BELOW_READERS`; of the floors only the one of `cli` imports them.
READERS = [{"analysis"}, {"history"}, {"sources"}, {"alerts", "exporters"}, {"report"}]
BELOW_READERS = {"_core", "errors", "_base", "snapshot", "prices", "directory"}
#: What is loaded when a setting asks for it, inside a function.
ON_DEMAND = {"config": {"history", "alerts", "exporters"}, "meter": {"history", "alerts"}}

#: Lines of a room.
MIN_LINES, MAX_LINES = 30, 450
#: Rooms of another size, and why.
EXCEPTIONS = {
    "__main__.py": "`python -m langmeter` is a call of `cli.main`",
    "_base/money.py": "the unit of money, which prices and snapshots share",
    "callbacks/components.py": "the flags of two handlers, whose hooks are native",
    "history/migrations/versions/v0002_alerts.py": "a migration is as long as its table",
    "history/migrations/env.py": "Alembic reads it by this name; its work is in `schema`",
}


def _number(floors: list[set[str]], room: str) -> int | None:
    return next((number for number, rooms in enumerate(floors) if room in rooms), None)


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def _imports(path: Path, *, functions: bool = True) -> list[str]:
    """Modules of langmeter that a file imports at run time; `functions`: also inside functions."""
    package = ["langmeter", *path.relative_to(ROOT).parts[:-1]]

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not functions:
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    names = walk(ast.parse(path.read_text(encoding="utf-8")))
    return [name for name in names if name.startswith("langmeter.")]


@cache
def _file(name: str) -> Path:
    """The file that an imported name is in."""
    parts = name.split(".")[1:]
    for end in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:end])
        for file in (place.with_suffix(".py"), place.with_suffix(".pyi"), place / "__init__.py"):
            if file.is_file():
                return file
    return ROOT / "__init__.py"


FILES = sorted(ROOT.rglob("*.py"))
ROOMS = [path for path in FILES if path != ROOT / "__init__.py"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _breaches(path: Path) -> Iterator[str]:
    """Imports of a file that no arrow of the house allows."""
    room = _room(path)
    floor, reader = _number(FLOORS, room), _number(READERS, room)
    if floor is None and reader is None:
        yield f"{room} is on no floor"
    height = -1 if floor is None else floor
    at_import = set(_imports(path, functions=False))
    for name in _imports(path):
        other = name.split(".")[1]
        other_floor, other_reader = _number(FLOORS, other), _number(READERS, other)
        if reader is not None:
            if other_reader is not None:
                allowed = other_reader <= reader
            else:
                allowed = other_floor is None or other in BELOW_READERS
        elif other_reader is not None:
            allowed = other in ON_DEMAND.get(room, ()) and name not in at_import
            # The configuration is composed of the option classes of all rooms.
            allowed |= room == "config" and name.startswith(f"langmeter.{other}.options.")
            allowed |= height >= (_number(FLOORS, "cli") or 0)
        else:
            allowed = other_floor is None or other_floor <= height
        if not allowed:
            yield f"{_name(path)} imports {name}"


def test_a_room_imports_only_from_below() -> None:
    """Arrows point down; readers of snapshots and what records import nothing of each other."""
    assert [breach for path in ROOMS for breach in _breaches(path)] == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    """Imports have an order, those inside functions too."""
    graph = {
        path: {file for name in _imports(path) if (file := _file(name)) != path} for path in FILES
    }
    order = list(TopologicalSorter(graph).static_order())
    assert set(FILES) <= set(order)


def test_a_room_is_of_a_size_to_read() -> None:
    """A module has 30 to 450 lines, a package's `__init__` may have fewer; exceptions are named."""
    sizes = {_name(path): path.read_text(encoding="utf-8").count("\n") for path in FILES}
    odd = {
        name: lines
        for name, lines in sizes.items()
        if lines > MAX_LINES or (lines < MIN_LINES and not name.endswith("__init__.py"))
    }
    assert set(odd) == set(EXCEPTIONS), odd


def test_a_room_of_rust_is_of_a_size_to_read() -> None:
    """It has at most 450 lines, tests apart: they come last, or are files of their own."""
    sizes = {}
    for path in (Path(__file__).parents[1] / "rust").glob("*/src/**/*.rs"):
        room, *_ = re.split(
            r"^#\[cfg\(.*test.*\)\]\nmod \w+ \{", path.read_text(encoding="utf-8"), flags=re.M
        )
        sizes[path.as_posix()] = room.count("\n")
    tests = ("tests.rs", "loom_tests.rs")
    large = {name for name, lines in sizes.items() if lines > MAX_LINES}
    assert sizes
    assert {name for name in large if not name.endswith(tests)} == set()


def test_a_file_of_tests_is_of_a_size_to_read() -> None:
    """It has at most 450 lines, and one idea; a file with more is named here."""
    tests = Path(__file__).parent
    sizes = {path.relative_to(tests).as_posix(): path for path in tests.rglob("*.py")}
    large = {
        name
        for name, path in sizes.items()
        if path.read_text(encoding="utf-8").count("\n") > MAX_LINES
    }
    assert large == {"cli/test_run.py"}


def _loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("import langmeter", {"asyncio"}),
        ("from langmeter import Snapshot", {"asyncio"}),
        ("from langmeter import MeterConfig; MeterConfig.load()", set()),
    ],
)
def test_importing_langmeter_loads_nothing_heavy(code: str, more: set[str]) -> None:
    """Neither langchain_core nor an optional dependency nor the price catalogue is loaded."""
    loaded = _loaded_by(code)
    heavy = {"langchain_core", "rich", "genai_prices", "pydantic", "tomllib"}
    assert not loaded & (heavy | more)
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


@pytest.mark.process
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
