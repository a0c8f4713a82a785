"""The price catalogue: what genai-prices lists, loaded late, as one compact table.

The first process on a machine runs genai-prices' data module (0.3 s, and 70 MB while it lasts
where Python may not cache bytecode), keeps the table in a file of 0.5 MB and lets the objects go.
Every other process reads that file, in 8 ms; `cache` says when it is trusted.
"""

from __future__ import annotations

import builtins
import sys
import threading
from importlib.machinery import SourceFileLoader
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from langmeter._base.forks import at_fork
from langmeter._base.log import logger

from . import cache
from .table import Found, Table, from_objects, to_text

_log: Final = logger("langmeter.prices")

_table: Table | None = None
_absent = False
_warming: threading.Thread | None = None
#: While Python imports genai-prices, which a child forked then could never do again.
_importing = False
#: The snapshot that genai-prices' `UpdatePrices` has set, and its table.
_updated: tuple[object, Table] | None = None


def ready() -> bool:
    """Return whether a question no longer waits: the catalogue is loaded, or cannot be."""
    return _table is not None or _absent


def loaded() -> bool:
    """Return whether the catalogue is loaded."""
    return _table is not None


def warm(*, wait: bool | float = False) -> None:
    """Load the catalogue in a daemon thread, once; `wait` until it is loaded, or some seconds."""
    global _warming  # noqa: PLW0603 - one thread per process, as there is one catalogue
    thread = _warming
    if not ready() and (thread is None or not thread.is_alive()):
        # Here and not in the thread: `version` imports modules on Python 3.13, and a child that is
        # forked while a thread imports a module waits for ever when it imports that module.
        number = _version()
        thread = threading.Thread(
            target=_load, args=(number,), name="langmeter:prices", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down
            _load(number)
            return
        _warming = thread
    if wait and not ready() and thread is not None and thread is not threading.current_thread():
        thread.join(None if wait is True else wait)


def current() -> Table | None:
    """Return the catalogue, loading it first; None when it cannot be, which is logged once."""
    global _updated  # noqa: PLW0603 - as the catalogue itself
    # Set by the user, who has imported genai-prices.
    module = sys.modules.get("genai_prices.data_snapshot")
    custom = getattr(module, "_custom_snapshot", None)
    if custom is not None:
        updated = _updated
        if updated is None or updated[0] is not custom:
            day = custom.timestamp.date().isoformat()
            updated = _updated = (
                custom,
                from_objects(f"genai-prices, updated {day}", custom.providers),
            )
        return updated[1]
    if not ready():
        warm(wait=True)
    return _table


def find(data: Table, provider: str, model: str) -> Found | None:
    """Return the listed model that a name means; provider "" is told from the name, if possible."""
    for name in (model, _resource_name(model)):
        if name and (listing := data.find(provider, name)) is not None:
            return listing
    return None


def lists(data: Table, provider: str) -> bool:
    """Return whether a provider is listed under this very id."""
    return any(known.id == provider for known in data.providers)


def _resource_name(model: str) -> str:
    """Google's resource names without their path: `models/…`, `publishers/google/models/…`."""
    head, separator, tail = model.rpartition("models/")
    google = not head or head.startswith(("publishers/", "projects/"))
    return tail if separator and google else ""


def _version() -> str:
    try:
        return version("genai-prices")
    except PackageNotFoundError:
        return "of an unknown version"


def _load(number: str) -> None:
    global _table, _absent  # noqa: PLW0603 - as above
    if ready():
        return
    try:
        _table = _read(number)
    except Exception as error:  # not installed, or damaged
        _log.warning(
            "no price catalogue (%s): only own prices are known; pip install genai-prices", error
        )
        _absent = True


def _read(number: str) -> Table:
    spec = find_spec("genai_prices")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("genai-prices is not installed")
    source = f"genai-prices {number}"
    data = Path(spec.submodule_search_locations[0]) / "data.py"
    folder = cache.folder()
    try:
        path = None if folder is None else folder / cache.file_name(data, number)
    except OSError:  # not a plain file: in an archive, for instance
        path = None
    table = None if path is None else cache.read(path)
    if table is None:
        table = _built(source, data)
        if path is not None:
            cache.write(path, table)
    return table


def _built(source: str, data: Path) -> Table:
    """Build the table, by genai-prices' data module alone if it is as it has been so far."""
    global _importing  # noqa: PLW0603 - as above
    try:
        table = from_objects(source, _run(data))
        if to_text(table) is not None:
            return table
    except Exception as error:  # the module is written in another way
        _log.debug("genai-prices' data cannot be read by itself: %r", error)
    _importing = True
    try:
        from genai_prices.data import providers

        return from_objects(source, providers)
    finally:
        _importing = False


class _Record:
    """An object of genai-prices: its keywords as attributes."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


class _Records(dict[str, Any]):
    """Names of a module: one that it does not define is a class of records of that name."""

    def __missing__(self, name: str) -> Any:
        if name.startswith("_") or hasattr(builtins, name):
            raise KeyError(name)
        self[name] = kind = type(name, (_Record,), {})
        return kind


def _run(data: Path) -> Any:
    """Return the providers that genai-prices' data module makes, as records.

    Without importing the package: that imports an HTTP client, builds validators, and holds locks
    that a child forked meanwhile would wait for.
    """
    code: Any = SourceFileLoader("genai_prices.data", str(data)).get_code("genai_prices.data")

    def imported(name: str, *rest: Any) -> Any:
        relative = len(rest) == 4 and rest[3]  # globals, locals, names, level
        return SimpleNamespace(__all__=()) if relative else __import__(name, *rest)

    names = _Records()
    exec(code, {"__builtins__": {**vars(builtins), "__import__": imported}}, names)
    return names["providers"]


def _after_fork() -> None:
    global _absent  # noqa: PLW0603 - as above
    if _importing:
        _absent = True
        _log.warning("no price catalogue: this process was forked while it was being loaded")


at_fork(after_in_child=_after_fork)
