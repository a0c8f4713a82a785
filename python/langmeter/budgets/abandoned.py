"""Calls that can end no more: what they hold of budgets is released before another call is refused.

LangChain fires nothing for an `ainvoke` that is cancelled or times out. Such a call is dead when
nothing can report its end: the id that LangChain made for it is gone (whoever ends a run holds its
id), or the asyncio task that it began in is done. A stream may go on in another task: a call that
has had any event is never judged, nor one that a live task of langchain-core still produces.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task
from collections.abc import Iterator
from typing import Any, TypeAlias
from uuid import UUID
from weakref import ref

from langmeter import _core

#: Where a call began: its task, the loop of that, and its id, all weak; no id if it is not a UUID.
Origin: TypeAlias = tuple[ref[Task[Any]], ref[AbstractEventLoop], ref[UUID] | None]


def release(recorder: _core.Recorder, origins: dict[int, Origin]) -> int:
    """Give up the dead calls that hold budgets; returns how many.

    Judges nothing in a thread without a running event loop, except calls whose ancestor has ended.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        return 0
    dead, doubtful = set(), set()
    for key, _, heard, orphaned, _ in recorder.reserving():
        if heard is not None:
            continue
        origin = origins.get(key)
        if orphaned or (origin is not None and _is_id_gone(origin)):
            dead.add(key)
        elif origin is not None and _is_done(origin, loop):
            doubtful.add(key)
    if doubtful:
        dead |= doubtful.difference(_produced(recorder, loop))
    for key in dead:
        origins.pop(key, None)
    # Of one of them something may have been heard since it was judged.
    return recorder.abandon(list(dead), unheard=True) if dead else 0


def _is_id_gone(origin: Origin) -> bool:
    return origin[2] is not None and origin[2]() is None


def _is_done(origin: Origin, loop: AbstractEventLoop) -> bool:
    task, home = origin[0](), origin[1]()
    if task is not None and not task.done():
        return False
    # What another thread's loop still runs cannot be seen from here.
    return home is None or home is loop or home.is_closed()


def _produced(recorder: _core.Recorder, loop: AbstractEventLoop) -> Iterator[int]:
    """Keys of the runs that a live task of langchain-core produces.

    `astream_events(version="v3")` starts its run in the task that asks first, and calls the model
    in a task of its own.
    """
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is None or not frame.f_globals.get("__name__", "").startswith("langchain_core."):
            continue
        for value in frame.f_locals.values():
            if "CallbackManager" in type(value).__name__ and hasattr(value, "run_id"):
                yield recorder.key(value.run_id)
