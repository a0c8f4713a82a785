"""Functions that run when the process forks; nothing on systems that cannot, such as Windows.

A forked child has the memory of its parent and only the thread that forked: locks that another
thread held stay locked, and threads, connections and files are the parent's.
"""

from __future__ import annotations

import os
from collections.abc import Callable


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
