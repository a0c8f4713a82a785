"""Data frames of columns, in whichever library is installed; none of them is a dependency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from langmeter._base.check import one_of

#: Libraries of data frames, the preferred one first.
LIBRARIES: Final = ("pandas", "polars", "pyarrow")


def frame(columns: Mapping[str, Sequence[Any]], library: str | None) -> Any:
    """Return a data frame, of pyarrow a table.

    Args:
        columns: values by the name of their column, all of one length.
        library: "pandas", "polars" or "pyarrow"; the first of them that is installed if None.

    Raises:
        ConfigError: another library.
        ImportError: it is not installed.
    """
    if library is None:
        library = next((name for name in LIBRARIES if find_spec(name)), LIBRARIES[0])
    one_of("library", library, LIBRARIES)
    module = import_module(library)
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
