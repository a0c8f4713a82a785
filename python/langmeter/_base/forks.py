"""Functions that run when the process forks; nothing on systems that cannot, such as Windows.

A forked child has the memory of its parent and only the thread that forked: locks that another
thread held stay locked, and threads, connections and files are the parent's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final


def _nothing() -> None:
    """Do nothing."""


def at_fork(
    *,
    before: Callable[[], object] = _nothing,
    after_in_parent: Callable[[], object] = _nothing,
    after_in_child: Callable[[], object] = _nothing,
) -> None:
    """Run functions at each fork from now on, as `os.register_at_fork` does.

    Args:
        before: runs in the parent, the function registered last first.
        after_in_parent: runs in the parent, the function registered first first.
        after_in_child: runs in the child, the function registered first first.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=before, after_in_parent=after_in_parent, after_in_child=after_in_child
        )


#: Functions of `at_worker_end`, and those of them that `multiprocessing` knows.
_at_worker_end: Final[list[Callable[[], object]]] = []
_registered: Final[list[Callable[[], object]]] = []


def at_worker_end(function: Callable[[], object]) -> None:
    """Run a function before a child of `multiprocessing` ends: this process, and each forked later.

    Such a child ends without `atexit` if it was forked, and forgets finalizers as it begins.
    """
    _at_worker_end.append(function)
    _register()  # a worker imports before it begins
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        _finalize(function)


def _register() -> None:
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        for function in _at_worker_end[len(_registered) :]:
            util.register_after_fork(function, _finalize)
            _registered.append(function)


def _finalize(function: Callable[[], object]) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, function, exitpriority=100)


at_fork(after_in_child=_register)
