"""History: what was metered, by time, in SQLite or PostgreSQL.

Rooms: `options` (the settings) · `writer` (the thread that appends) · `store` (what is done in the
database) · `schema` and `migrations` (its tables) · `query` (figures by time). All but the settings
need `pip install "langmeter[history]"`, and are loaded when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langmeter.history.options import HistoryOptions

if TYPE_CHECKING:
    from langmeter.history.query import Excerpt, History, Row, Rows

__all__ = ["Excerpt", "History", "HistoryOptions", "Row", "Rows"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.schema")  # names the extra where it is not installed
    return getattr(import_module(f"{__name__}.query"), name)
