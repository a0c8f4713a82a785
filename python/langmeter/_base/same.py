"""Whether two values of a setting mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, Protocol, runtime_checkable

#: How deep values are compared; what is nested deeper, or in a circle, is different.
_DEPTH: Final = 16


@runtime_checkable
class Setting(Protocol):
    """An object with a state of its own beside what it was made of."""

    def _setting(self) -> object:
        """Return what it was made of, to compare."""


def same(a: object, b: object, *, depth: int = _DEPTH) -> bool:
    """Return whether two values are equal, functions by their code and what that closes over.

    A cell of a notebook that is run again, or a module imported under two names, defines the same
    functions and classes once more: as settings they are the same.
    """
    if a is b:
        return True
    if depth <= 0:
        return False

    def alike(x: object, y: object) -> bool:
        return same(x, y, depth=depth - 1)

    if isinstance(a, FunctionType) and isinstance(b, FunctionType):
        return alike(_parts(a), _parts(b))
    if isinstance(a, MethodType) and isinstance(b, MethodType):
        return alike(a.__func__, b.__func__) and alike(a.__self__, b.__self__)
    if isinstance(a, partial) and isinstance(b, partial):
        return alike((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if isinstance(a, type) and isinstance(b, type):
        return _name(a) == _name(b) and alike(_methods(a), _methods(b))
    if isinstance(a, str | bytes) or isinstance(b, str | bytes):
        return type(a) is type(b) and a == b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and isinstance(b, Sequence):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, Setting) and isinstance(b, Setting):
        return type(a) is type(b) and alike(a._setting(), b._setting())
    if not (_plain(a) and _plain(b)):
        return _equal(a, b)
    return alike(type(a), type(b)) and alike(vars(a), vars(b))


def _parts(function: FunctionType) -> tuple[object, ...]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not yet assigned
            cells.append(None)
    return (
        _name(function),
        _Code(function.__code__),
        function.__defaults__,
        function.__kwdefaults__,
        cells,
    )


class _Code:
    """Code, equal to code that does the same, on whichever line it stands."""

    def __init__(self, code: Any) -> None:
        self._code = code

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Code):
            return NotImplemented
        a, b = self._code, other._code
        return (a.co_code, a.co_names, a.co_varnames, a.co_freevars, a.co_flags) == (
            *(b.co_code, b.co_names, b.co_varnames, b.co_freevars, b.co_flags),
        ) and _constants(a) == _constants(b)

    __hash__ = None  # type: ignore[assignment]


def _constants(code: Any) -> list[object]:
    nested = type(code)
    return [
        _Code(constant) if isinstance(constant, nested) else (type(constant), constant)
        for constant in code.co_consts
    ]


def _name(of: Any) -> tuple[str, ...]:
    # Without the module: it may have been imported under two names.
    return (str(getattr(of, "__qualname__", "")),)


def _methods(of: type) -> dict[str, object]:
    return {name: value for name, value in vars(of).items() if isinstance(value, FunctionType)}


def _plain(of: object) -> bool:
    """Whether an object is what its attributes are, and has no idea of equality of its own."""
    return type(of).__eq__ is object.__eq__ and hasattr(of, "__dict__")


def _equal(a: object, b: object) -> bool:
    try:
        return bool(a == b)
    except Exception:  # whatever a user's class does
        return False
