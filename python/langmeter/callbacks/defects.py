"""Fixes that a model made: how many worked."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from langmeter._base.failures import ERROR
from langmeter.callbacks.base import FIX, Callback
from langmeter.callbacks.model_end import OK
from langmeter.callbacks.views import DefectView
from langmeter.snapshot import Snapshot

#: Name of the custom event that `dispatch_custom_event` sends.
EVENT = "langmeter.fix"


class DefectAnalysisCallback(Callback, DefectView):
    """Counts fixes that worked and fixes that did not, by kind.

    Tell it directly, `record_fix(True, kind="syntax")`, or from inside a runnable that has it among
    its callbacks: `dispatch_custom_event("langmeter.fix", {"success": True, "kind": "syntax"})`.

    Each property takes a whole snapshot; `of(snapshot)` reads several of one moment.
    """

    ignore_llm = True
    ignore_chat_model = True
    ignore_chain = True
    ignore_custom_event = False

    @staticmethod
    def of(snapshot: Snapshot) -> DefectView:
        """Return the same figures of a snapshot: `meter.defects.of(snapshot)`."""
        return DefectView(snapshot)

    def record_fix(
        self, success: bool, kind: str = "fix", *, duration: float | None = None
    ) -> None:
        """Count one fix; `duration` in seconds.

        Raises TypeError when `success` is not a bool or `kind` not a string, ValueError when
        `duration` is negative or not finite.
        """
        if not isinstance(success, bool):
            raise TypeError(f"success = {success!r}: must be True or False")
        if not isinstance(kind, str):
            raise TypeError(f"kind = {kind!r}: must be a string")
        if duration is not None and not (math.isfinite(duration) and duration >= 0):
            raise ValueError(f"duration = {duration!r}: must be seconds, 0 or more")
        nanos = None if duration is None else round(duration * 1e9)
        self._recorder.count(FIX, kind, OK if success else ERROR, nanos)

    def on_custom_event(
        self,
        name: str,
        data: Any,
        *,
        run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> None:
        """Count a fix; events of other names are ignored."""
        if name != EVENT:
            return
        try:
            self.record_fix(data["success"], data.get("kind", "fix"), duration=data.get("duration"))
        except BaseException as exc:
            self._failed("on_custom_event", exc)
