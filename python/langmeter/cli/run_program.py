"""Run a script or module in this process as `python` itself would have."""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

#: The `__main__` modules that were replaced, kept alive: dropping the last reference to a module
#: clears what its functions still use.
_replaced: list[ModuleType] = []


class NotStarted(SystemExit):
    """There is no such program: none of its code has run."""


def run_script(path: str, arguments: list[str]) -> None:
    """`python path arguments…`; a directory or zip file with a `__main__.py` will do."""
    sys.argv = [path, *arguments]
    full = os.path.abspath(path)
    importer: Any = pkgutil.get_importer(full) if os.path.exists(full) else None
    if importer is not None:
        _search_first(full)
        spec: ModuleSpec | None = importer.find_spec("__main__")
        if spec is None:
            _refuse(f"can't find '__main__' module in {full!r}", 1)
        _execute(lambda: _code(spec), spec, spec.origin)
        return
    try:
        with io.open_code(full) as file:
            source = file.read()
    except OSError as error:
        _refuse(f"can't open file {full!r}: [Errno {error.errno}] {error.strerror}", 2)
    _search_first(os.path.dirname(os.path.realpath(path)))
    _execute(lambda: compile(source, full, "exec", dont_inherit=True), None, full)


def run_module(name: str, arguments: list[str]) -> None:
    """`python -m name arguments…`; the `__main__` of a package."""
    sys.argv = ["-m", *arguments]
    _search_first(os.getcwd())
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__")
    sys.argv[0] = spec.origin or name
    _execute(lambda: _code(spec), spec, spec.origin)


def _find(name: str) -> ModuleSpec:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError as error:
        _refuse(f"Error while finding module specification for {name!r} ({error!r})", 1)
    if spec is None:
        _refuse(f"No module named {name}", 1)
    return spec


def _code(spec: ModuleSpec) -> CodeType:
    code: CodeType | None = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    if code is None:
        _refuse(f"No code object available for {spec.name}", 1)
    return code


def _search_first(path: str) -> None:
    # In place of the directory that `langmeter` itself was started from; `python -P` has none.
    if not sys.flags.safe_path:
        sys.path[0] = path


def _execute(compiled: Callable[[], CodeType], spec: ModuleSpec | None, file: str | None) -> None:
    main = ModuleType("__main__")
    main.__dict__.update(
        __builtins__=builtins,
        __file__=file,
        __cached__=spec.cached if spec else None,
        __spec__=spec,
        __package__=spec.parent if spec else None,
        __loader__=spec.loader if spec else SourceFileLoader("__main__", file or ""),
    )
    replaced = sys.modules["__main__"]
    if "__annotations__" in vars(replaced):  # until Python 3.13
        main.__annotations__ = {}
    _replaced.append(replaced)
    sys.modules["__main__"] = main
    try:
        exec(compiled(), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # Python itself prints the exception, joins the threads, and ends by the exit code or, after
        # Ctrl-C, by the signal; only our frames shall not be in what it prints.
        sys.excepthook = _showing(sys.excepthook, error, _without_ours(error.__traceback__))
        raise


def _showing(
    hook: Callable[..., Any], error: BaseException, traceback: TracebackType | None
) -> Callable[..., Any]:
    def show(kind: type[BaseException], value: BaseException, tb: TracebackType | None) -> None:
        if value is error:
            tb = traceback
            value = value.with_traceback(tb)
        hook(kind, value, tb)

    return show


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


def _refuse(message: str, code: int) -> NoReturn:
    print(f"{sys.executable}: {message}", file=sys.stderr)
    raise NotStarted(code)
